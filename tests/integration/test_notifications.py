"""Notifications of registries as processes, with a receiver over HTTP.

The receiver fails, hangs and comes back, while a registry is killed. Clients push tags one after
the other, each to one repository, and repeat a push that got no response. Every push that was
answered 201 arrives at the receiver, once or more, and the events of a repository arrive in the
order of its pushes. Another test compares the events with those of Distribution.
"""

from __future__ import annotations

import json
import threading
import time
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException

import pytest
from attrs import define, field

from tests.integration.servers import AGAINST, DISTRIBUTION, OURS
from tests.support.manifests import OCI_IMAGE, digest_of, image
from tests.support.receiver import Receiver, wait_for

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(AGAINST != OURS, reason="a feature of this registry"),
]

CONFIGURATION = """\
notifications:
  endpoints:
    - name: hook
      url: {url}
      timeout: 300ms
      threshold: 2
      backoff: 100ms
      ignore: {{mediatypes: [application/octet-stream]}}
"""
REPOSITORIES = ("a", "b/c", "d")
#: Pushes to each repository in each state of receiver and registry.
PUSHES = 5


def request(address, method, path, body=None, kind=""):
    """Send a request; return the status, or 0 without a response."""
    with suppress(OSError, HTTPException), closing(HTTPConnection(address, timeout=20)) as client:
        client.request(method, path, body, {"Content-Type": kind, "Accept": kind} if kind else {})
        response = client.getresponse()
        response.read()
        return response.status
    return 0


@define(eq=False)
class Pusher:
    """A client that pushes tags to one repository until it is stopped.

    :ivar pushed: the tags that were answered 201.
    """

    address: str
    repository: str
    pushed: list[str] = field(factory=list)
    fault: str = ""
    _stopped: threading.Event = field(factory=threading.Event)
    _thread: threading.Thread = field(init=False)

    def __attrs_post_init__(self):
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while not self._stopped.is_set():
            tag = f"t{len(self.pushed)}"
            path = f"/v2/{self.repository}/manifests/{tag}"
            status = request(self.address, "PUT", path, image(b"{}", b"layer"), OCI_IMAGE)
            if status == 201:
                self.pushed.append(tag)
            elif status:
                self.fault = f"{path}: {status}"
                return

    def stop(self):
        """Stop, and return when it has."""
        self._stopped.set()
        self._thread.join(30)
        assert not self.fault, self.fault


@define(eq=False)
class Moods:
    """How a receiver answers: all events, none, or only after the client has given up.

    :ivar accepted: the events that it has accepted, in order.
    """

    mood: str = "accepts"
    accepted: list = field(factory=list)

    def answer(self, body):
        """Return the status for a request."""
        if self.mood == "fails":
            return 500
        if self.mood == "hangs":
            time.sleep(1.0)
            return 500
        self.accepted += body["events"]
        return 200

    def tags_of(self, repository):
        """Return the tags that arrived from a repository, without repetitions."""
        targets = [event["target"] for event in [*self.accepted]]
        found = (each["tag"] for each in targets if each["repository"] == repository)
        return list(dict.fromkeys(found))


def test_every_event_of_an_answered_push_arrives_in_order(launcher, tmp_path):
    moods = Moods()
    receiver = Receiver(moods.answer).start()
    text = CONFIGURATION.format(url=receiver.url)
    server = launcher.start(OURS, tmp_path / "store", 2, text)
    for name in REPOSITORIES:
        for blob in (b"{}", b"layer"):
            path = f"/v2/{name}/blobs/uploads/?digest={digest_of(blob)}"
            assert request(server.address, "POST", path, blob) == 201
    pushers = [Pusher(server.address, name) for name in REPOSITORIES]

    def push_more():
        goals = [len(each.pushed) + PUSHES for each in pushers]
        wait_for(
            lambda: (
                any(each.fault for each in pushers)
                or all(len(p.pushed) >= goal for p, goal in zip(pushers, goals, strict=True))
            )
        )

    push_more()
    moods.mood = "hangs"
    push_more()
    server.kill()
    server.start()
    moods.mood = "fails"
    push_more()
    receiver.stop()
    push_more()
    server.kill()
    moods.mood = "accepts"
    server.start()
    push_more()
    receiver.start()
    push_more()
    for each in pushers:
        each.stop()
    for each in pushers:
        wait_for(lambda each=each: {*each.pushed} <= {*moods.tags_of(each.repository)})
        # A push without a response may have happened; it is repeated, and has the same tag.
        assert moods.tags_of(each.repository)[: len(each.pushed)] == each.pushed
    server.stop()
    receiver.stop()


def test_an_answered_push_has_its_event_when_the_registry_is_killed_at_once(launcher, tmp_path):
    moods = Moods("fails")
    with Receiver(moods.answer) as receiver:
        text = CONFIGURATION.format(url=receiver.url)
        server = launcher.start(OURS, tmp_path / "store", 1, text)
        for blob in (b"{}", b"layer"):
            path = f"/v2/a/blobs/uploads/?digest={digest_of(blob)}"
            assert request(server.address, "POST", path, blob) == 201
        path = "/v2/a/manifests/last"
        assert request(server.address, "PUT", path, image(b"{}", b"layer"), OCI_IMAGE) == 201
        server.kill()
        moods.mood = "accepts"
        server.start()
        wait_for(lambda: moods.tags_of("a") == ["last"])


VERSION_1 = """\
notifications:
  events:
    includereferences: true
  endpoints:
    - name: hook
      url: {url}
      timeout: 10s
      format: distribution-v1
"""


#: Events of the deletes below: of a manifest, its tag, and a blob.
DELETES = 3


def use_everything(address):
    """Push, pull, mount and delete; return the number of events."""
    content = image(b"{}", b"layer")
    digest, layer = digest_of(content), digest_of(b"layer")
    for blob in (b"{}", b"layer"):
        client = HTTPConnection(address, timeout=20)
        with closing(client):
            client.request("POST", "/v2/a/blobs/uploads/", b"")
            response = client.getresponse()
            response.read()
            location = response.headers["Location"]
        path = f"{location.partition(address)[2]}&digest={digest_of(blob)}"
        assert request(address, "PUT", path, blob, "application/octet-stream") == 201
    steps = [
        ("PUT", "/v2/a/manifests/one", 201),
        ("PUT", f"/v2/a/manifests/{digest}", 201),
        ("GET", "/v2/a/manifests/one", 200),
        ("GET", f"/v2/a/manifests/{digest}", 200),
        ("GET", f"/v2/a/blobs/{layer}", 200),
        ("POST", f"/v2/b/blobs/uploads/?mount={layer}&from=a", 201),
        ("DELETE", f"/v2/a/manifests/{digest}", 202),
        ("DELETE", f"/v2/b/blobs/{layer}", 202),
    ]
    for method, path, status in steps:
        body = content if method == "PUT" else b"" if method == "POST" else None
        kind = OCI_IMAGE if "/manifests/" in path else ""
        assert request(address, method, path, body, kind) == status, path
    return 2 + len(steps) + 1


def comparable(event, address):
    """Return an event without what differs from run to run."""
    assert event["id"]
    assert event["timestamp"]
    assert event["source"]["instanceID"]
    host, _, port = event["source"]["addr"].rpartition(":")
    assert host
    assert address.endswith(f":{port}")
    request = event["request"]
    assert request["id"]
    assert request["addr"].startswith("127.0.0.1")
    changed = {"id", "timestamp", "source"}
    kept = {name: value for name, value in event.items() if name not in changed}
    kept["request"] = {name: request[name] for name in request if name not in {"id", "addr"}}
    return json.loads(json.dumps(kept, sort_keys=True).replace(address, "ADDRESS"))


def test_events_are_those_of_distribution(launcher, tmp_path):
    seen = {}
    for kind in (DISTRIBUTION, OURS):
        with Receiver() as receiver:
            text = VERSION_1.format(url=receiver.url)
            server = launcher.start(kind, tmp_path / kind, 1, text)
            count = use_everything(server.address)
            wait_for(lambda receiver=receiver, count=count: len(receiver.events) >= count)
            server.stop()
            seen[kind] = [comparable(event, server.address) for event in receiver.events]
            types = {headers["Content-Type"] for headers, _ in receiver.received}
            assert types == {"application/vnd.docker.distribution.events.v1+json"}
    ours, theirs = seen[OURS], seen[DISTRIBUTION]
    assert [each["action"] for each in ours].count("delete") == DELETES
    # Distribution reports the manifest of a delete before its tags.
    assert ours[:-DELETES] == theirs[:-DELETES]
    assert sorted(ours[-DELETES:], key=str) == sorted(theirs[-DELETES:], key=str)
