"""Notifications of a whole registry in this process, sent over HTTP."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import sqlite3
from contextlib import closing
from http.client import HTTPConnection

import pytest

from tests.support.manifests import OCI_IMAGE, digest_of, image
from tests.support.processes import SERVE, RegistryProcess, run, write_configuration
from tests.support.receiver import Receiver, wait_for
from twisted_registry.app.notifications import make_filter, make_settings, queue_path
from twisted_registry.config.loading import load_text
from twisted_registry.notifications.queue import IN_MEMORY
from twisted_registry.testing import Registry

BASE = "version: 0.1\n"
FILES = "storage: {filesystem: {rootdirectory: /srv/store}}\n"
DEFAULT_PATH = "/srv/store/twisted-registry/notifications/events.sqlite"
BUCKET = "storage: {s3: {bucket: b, region: us-east-1}}\n"


def load(text):
    return load_text(BASE + text, {}).configuration


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (FILES, DEFAULT_PATH),
        (FILES + "notifications: {queue: {path: /q/e.sqlite}}\n", "/q/e.sqlite"),
        (BUCKET, IN_MEMORY),
        (BUCKET + "notifications: {queue: {path: /q/e.sqlite}}\n", "/q/e.sqlite"),
        ("storage: inmemory\n", IN_MEMORY),
    ],
)
def test_where_events_wait(text, expected):
    assert queue_path(load(text), read_only=False) == expected


def test_events_wait_in_memory_if_the_registry_was_started_read_only():
    assert queue_path(load(FILES), read_only=True) == IN_MEMORY


def only_endpoint(text):
    (endpoint,) = load(
        f"{FILES}notifications: {{endpoints: [{{{text}}}]}}\n"
    ).notifications.endpoints
    return endpoint


def test_settings_of_an_endpoint():
    endpoint = only_endpoint("name: a, url: 'http://h', timeout: 0, threshold: 0, backoff: 0")
    settings = make_settings(endpoint)
    assert (settings.timeout_s, settings.threshold, settings.backoff_s) == (1.0, 10, 1.0)
    assert (settings.form, settings.secret) == ("distribution", "")
    endpoint = only_endpoint(
        "name: a, url: 'http://h', timeout: 500ms, threshold: 5, backoff: 2s, secret: hunter2,"
        " format: cloudevents, headers: {X-A: [b]}"
    )
    settings = make_settings(endpoint)
    assert (settings.timeout_s, settings.threshold, settings.backoff_s) == (0.5, 5, 2.0)
    assert (settings.form, settings.secret) == ("cloudevents", "hunter2")
    assert settings.headers == {"X-A": ("b",)}


def test_old_and_new_keys_of_ignored_media_types_count():
    found = make_filter(
        only_endpoint(
            "name: a, url: 'http://h', ignoredmediatypes: [a/b],"
            " ignore: {mediatypes: [c/d], actions: [pull]}"
        )
    )
    assert (found.ignored_media_types, found.ignored_actions) == ({"a/b", "c/d"}, {"pull"})


def request(registry, method, path, body=None, headers=None):
    with closing(HTTPConnection(registry.host, timeout=30)) as connection:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        response.read()
        return response.status


def push_image(registry, name="team/app", tag="1"):
    """Push an image with one layer; return its manifest."""
    for blob in (b"{}", b"layer"):
        path = f"/v2/{name}/blobs/uploads/?digest={digest_of(blob)}"
        assert request(registry, "POST", path, blob) == 201
    content = image(b"{}", b"layer")
    headers = {"Content-Type": OCI_IMAGE, "User-Agent": "pusher/1"}
    assert request(registry, "PUT", f"/v2/{name}/manifests/{tag}", content, headers) == 201
    return content


def notifications(receiver, **more):
    endpoint = {"name": "hook", "url": receiver.url, "timeout": "5s", "backoff": "50ms", **more}
    return {"notifications": {"endpoints": [endpoint]}}


def names(events):
    """Return action, tag and digest of events, without repetitions."""
    found = [(e["action"], e["target"].get("tag"), e["target"]["digest"]) for e in events]
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("store", ["files", "memory"])
def test_events_are_sent(tmp_path, store):
    storage = tmp_path if store == "files" else None
    with (
        Receiver() as receiver,
        Registry(storage=storage, config=notifications(receiver)) as registry,
    ):
        content = push_image(registry)
        digest = digest_of(content)
        assert request(registry, "GET", "/v2/team/app/manifests/1") == 200
        wait_for(lambda: len(receiver.events) >= 4)
        assert request(registry, "DELETE", f"/v2/team/app/manifests/{digest}") == 202
        wait_for(lambda: len(receiver.events) >= 6)
        events = receiver.events
        assert names(events) == [
            ("push", None, digest_of(b"{}")),
            ("push", None, digest_of(b"layer")),
            ("push", "1", digest),
            ("pull", "1", digest),
            ("delete", "1", ""),
            ("delete", None, digest),
        ]
        assert len({event["id"] for event in events}) == 6
        pushed = events[2]
        assert pushed["target"]["url"] == f"{registry.url}/v2/team/app/manifests/{digest}"
        assert pushed["target"]["size"] == pushed["target"]["length"] == len(content)
        assert pushed["request"]["method"] == "PUT"
        assert pushed["request"]["useragent"] == "pusher/1"
        assert pushed["request"]["host"] == registry.host
        assert pushed["request"]["addr"] == "127.0.0.1"
        assert len({event["source"]["instanceID"] for event in events}) == 1


def test_events_name_the_user_and_references(tmp_path):
    with Receiver() as receiver:
        config = notifications(receiver, ignore={"mediatypes": ["application/octet-stream"]})
        config["notifications"]["events"] = {"includereferences": True}
        with Registry(storage=tmp_path, config=config, auth={"alice": "secret"}) as registry:
            token = base64.b64encode(b"alice:secret").decode()
            headers = {"Authorization": f"Basic {token}", "Content-Type": OCI_IMAGE}
            for blob in (b"{}", b"layer"):
                path = f"/v2/a/blobs/uploads/?digest={digest_of(blob)}"
                assert request(registry, "POST", path, blob, headers) == 201
            content = image(b"{}", b"layer")
            assert request(registry, "PUT", "/v2/a/manifests/1", content, headers) == 201
            wait_for(lambda: receiver.events)
    (event,) = receiver.events
    assert event["actor"] == {"name": "alice"}
    assert [each["digest"] for each in event["target"]["references"]] == [
        digest_of(b"{}"), digest_of(b"layer"),
    ]  # fmt: skip


def serve_with_endpoint(folder, url, **environ):
    """Run a registry with an endpoint as a process."""
    section = f"notifications: {{endpoints: [{{name: hook, url: '{url}', timeout: 5s}}]}}\n"
    config = write_configuration(folder, more=section)
    return RegistryProcess(*SERVE, config, cwd=folder, **environ)


def push_blob(server):
    path = f"/v2/a/blobs/uploads/?digest={digest_of(b'x')}"
    assert server.ask("POST", path, b"x")[0].status == 201


def test_http_endpoints_are_reached_through_the_proxy(tmp_path):
    with Receiver() as proxy:
        variable = f"http://me:pass@127.0.0.1:{proxy.port}"
        url = "http://hooks.example/events"
        with serve_with_endpoint(
            tmp_path, url, HTTP_PROXY=variable, NO_PROXY="x.example"
        ) as server:
            push_blob(server)
            wait_for(lambda: proxy.received)
    fields, _ = proxy.received[0]
    assert fields["Host"] == "hooks.example"
    assert fields["Proxy-Authorization"] == f"Basic {base64.b64encode(b'me:pass').decode()}"


def test_https_endpoints_are_reached_through_a_tunnel(tmp_path):
    with Receiver() as proxy:
        variable = f"http://127.0.0.1:{proxy.port}"
        url = "https://hooks.example/events"
        with serve_with_endpoint(tmp_path, url, https_proxy=variable) as server:
            push_blob(server)
            refusal = "501 Unsupported method ('CONNECT')"
            wait_for(lambda: [line for line in server.lines if refusal in line])


def test_a_proxy_that_cannot_be_used_ends_the_start(tmp_path):
    endpoint = "{name: hook, url: 'http://hooks.example'}"
    config = write_configuration(tmp_path, more=f"notifications: {{endpoints: [{endpoint}]}}\n")
    variable = "https://me:pass@proxy.example"
    status, _, err = run(*SERVE, config, cwd=tmp_path, HTTP_PROXY=variable)
    assert status == 1
    assert err == [
        (
            f"twisted-registry: {config}: notifications.endpoints: hook: HTTP_PROXY is not a"
            " supported proxy URL: expected http://HOST:PORT"
        )
    ]


def make_file(path):
    path.parent.write_text("not a folder")


def make_folder(path):
    path.mkdir(parents=True)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (make_file, "queue is not a directory (stat); name a directory"),
        (make_folder, "queue/events.sqlite is not a file that the registry may write"),
    ],
)
def test_a_queue_that_cannot_be_written_ends_the_start(tmp_path, make, problem):
    path = tmp_path / "queue/events.sqlite"
    make(path)
    endpoint = "{name: h, url: 'http://127.0.0.1:1'}"
    section = f"notifications: {{endpoints: [{endpoint}], queue: {{path: {path}}}}}\n"
    config = write_configuration(tmp_path, more=section)
    status, _, err = run(*SERVE, config, cwd=tmp_path)
    assert status == 1
    assert err == [f"twisted-registry: {config}: notifications.queue.path: {tmp_path}/{problem}"]


def test_events_wait_for_the_next_start(tmp_path, log_lines):
    receiver = Receiver()
    receiver.start()
    receiver.stop()  # the port is free: connections are refused
    config = notifications(receiver)
    with Registry(storage=tmp_path, config=config) as registry:
        push_image(registry)
    path = tmp_path / "twisted-registry/notifications/events.sqlite"
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT count(*) FROM event").fetchone() == (3,)
    with receiver, Registry(storage=tmp_path, config=config):
        wait_for(lambda: len(names(receiver.events)) == 3)
    assert "notifications: endpoint=hook waiting=0 refused=0" in log_lines
    assert "notifications: endpoint=hook waiting=3 refused=0" in log_lines


def test_events_of_a_removed_endpoint_are_removed(tmp_path, log_lines):
    receiver = Receiver()
    receiver.start()
    receiver.stop()
    with Registry(storage=tmp_path, config=notifications(receiver)) as registry:
        push_image(registry)
    config = notifications(receiver, name="other")
    with receiver, Registry(storage=tmp_path, config=config) as registry:
        push_image(registry, "b")
        wait_for(lambda: len(receiver.events) == 3)
    assert {event["target"]["repository"] for event in receiver.events} == {"b"}
    text = "endpoint=hook: not configured any more, 3 events are removed"
    assert [line for line in log_lines if text in line]


def test_a_push_is_answered_while_the_receiver_hangs(tmp_path):
    """The receiver answers nothing before the pushes are answered."""
    with Receiver() as receiver:
        pushed = []
        receiver.answer = lambda _: wait_for(lambda: pushed) or 200
        with Registry(storage=tmp_path, config=notifications(receiver, timeout="60s")) as registry:
            for number in range(5):
                push_image(registry, tag=str(number))
            pushed.append(True)
            wait_for(lambda: len(receiver.events) == 15)


def test_a_signature_can_be_verified(tmp_path):
    with Receiver() as receiver:
        config = notifications(receiver, secret="hunter2", format="cloudevents")
        with Registry(storage=tmp_path, config=config) as registry:
            push_image(registry)
            wait_for(lambda: len(receiver.received) == 3)
            source = f"{registry.url}/v2/team/app"
    for headers, body in receiver.received:
        expected = hmac.new(b"hunter2", body, hashlib.sha256).hexdigest()
        assert headers["X-Hub-Signature-256"] == f"sha256={expected}"
        assert json.loads(body)["source"] == source
