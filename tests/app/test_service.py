"""The effect of the configuration keys on a served registry."""

from __future__ import annotations

import hashlib
import io
import json
import os
import socket

import pytest
import pytest_twisted
import treq
from twisted.internet import reactor
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher

from tests.support.manifests import descriptor, digest_of, image
from tests.support.processes import CONFIGURATION, write_configuration
from tests.support.services import HTTP, MEMORY, header, run_service
from twisted_registry.app.listener import initial_environment
from twisted_registry.app.service import RegistryService
from twisted_registry.config.loading import load
from twisted_registry.frame.errors import StartError
from twisted_registry.integrity.scrub import ScrubResult
from twisted_registry.maintenance.purge import UploadPurgeResult
from twisted_registry.oci.digest import Digest
from twisted_registry.repository import layout
from twisted_registry.testing import build_image, build_index

LAYER = b"layer"
DIGEST = f"sha256:{hashlib.sha256(LAYER).hexdigest()}"


async def push(ask):
    response = await ask("POST", f"/v2/a/blobs/uploads/?digest={DIGEST}", data=LAYER)
    assert response.code == 201


@pytest.mark.parametrize("text", [MEMORY + HTTP, CONFIGURATION])
@pytest_twisted.ensureDeferred
async def test_push_and_pull_are_served_and_logged(tmp_path, text):
    log = io.StringIO()
    async with run_service(tmp_path, text.replace("{addr}", "127.0.0.1:0"), log) as ask:
        assert (await ask("GET", "/")).code == 200
        await push(ask)
        assert (await ask("GET", f"/v2/a/blobs/{DIGEST}")).body == LAYER
    assert [line.split('"')[1].split()[0] for line in log.getvalue().splitlines()] == [
        "GET",
        "POST",
        "GET",
    ]
    stored = tmp_path / "store/docker/registry/v2/repositories/a/_layers/sha256"
    assert stored.exists() == ("filesystem" in text)


@pytest_twisted.ensureDeferred
async def test_the_access_log_can_be_disabled(tmp_path):
    log = io.StringIO()
    async with run_service(
        tmp_path, MEMORY + HTTP + "log:\n  accesslog:\n    disabled: true\n", log
    ) as ask:
        assert (await ask("GET", "/v2/")).code == 200
    assert log.getvalue() == ""


@pytest.mark.parametrize(("enabled", "status"), [("true", 202), ("false", 405)])
@pytest_twisted.ensureDeferred
async def test_deletes_are_enabled_by_storage_delete(tmp_path, enabled, status):
    text = MEMORY + f"  delete:\n    enabled: {enabled}\n" + HTTP
    async with run_service(tmp_path, text) as ask:
        await push(ask)
        assert (await ask("DELETE", f"/v2/a/blobs/{DIGEST}")).code == status


@pytest_twisted.ensureDeferred
async def test_a_read_only_registry_refuses_uploads(tmp_path):
    text = MEMORY + "  maintenance:\n    readonly:\n      enabled: true\n" + HTTP
    async with run_service(tmp_path, text) as ask:
        assert (await ask("POST", "/v2/a/blobs/uploads/")).code == 405


@pytest_twisted.ensureDeferred
async def test_a_read_only_registry_writes_nothing_for_a_list_of_referrers(tmp_path):
    root = tmp_path / "store"
    content = image(subject=descriptor(b"subject"))
    digest = Digest.of(content)
    for path, stored in (
        (layout.blob_data(digest), content),
        (layout.revision_link("a", digest), str(digest).encode()),
    ):
        (root / path).parent.mkdir(parents=True)
        (root / path).write_bytes(stored)
    before = sorted(root.rglob("*"))
    text = (
        f"version: 0.1\nstorage:\n  filesystem: {{{{rootdirectory: {root}}}}}\n"
        "  maintenance:\n    readonly:\n      enabled: true\n" + HTTP
    )
    async with run_service(tmp_path, text) as ask:
        for _ in range(2):
            answer = await ask("GET", f"/v2/a/referrers/{digest_of(b'subject')}")
            assert answer.code == 200
            (listed,) = json.loads(answer.body)["manifests"]
            assert listed["digest"] == str(digest)
    assert sorted(root.rglob("*")) == before


def maintenance_tasks(folder, maintenance):
    text = f"{MEMORY}  maintenance: {maintenance}\n{HTTP}" if maintenance else MEMORY + HTTP
    text = text.replace("{{}}", "{}").replace("{", "{{").replace("}", "}}")
    clock = Clock()
    loaded = load(write_configuration(folder, text), {})
    service = RegistryService(loaded, clock, {}, io.StringIO(), elapsed=clock.seconds)
    if "maintenance" not in service.namedServices:
        return clock, {}
    return clock, {task.name: task for task in service.getServiceNamed("maintenance")}


PURGING = "uploadpurging: {enabled: %s, age: 2h, interval: 30m, dryrun: false}"


@pytest.mark.parametrize(
    ("maintenance", "interval"),
    [
        ("", 24 * 3600),
        (f"{{{PURGING % 'true'}}}", 1800),
        (f"{{{PURGING % 'false'}}}", None),
        ("{readonly: {enabled: true}}", None),
    ],
)
def test_uploads_are_purged_as_configured(tmp_path, maintenance, interval):
    clock, tasks = maintenance_tasks(tmp_path, maintenance)
    if interval is None:
        for task in tasks.values():
            task.startService()
            assert task.next is None
        return
    task = tasks["uploadpurging"]
    task.startService()
    assert 0 <= task.next <= min(interval, 3600)
    clock.advance(3600)
    assert task.last_run.result == UploadPurgeResult(0, 0, 0, 0)
    assert task.next == pytest.approx(task.last_run.began + interval)


def test_the_scrub_runs_as_configured(tmp_path):
    maintenance = "{scrub: {enabled: true, interval: 48h, rate: 1MiB}}"
    clock, tasks = maintenance_tasks(tmp_path, maintenance)
    task = tasks["scrub"]
    task.startService()
    clock.advance(3600)
    assert task.last_run.result == ScrubResult(0, 0, 0, 0)
    assert task.next == pytest.approx(task.last_run.began + 48 * 3600)


@pytest.mark.parametrize(
    ("keys", "start"),
    [
        ("", "{base}/v2/a/"),
        ("  relativeurls: true\n", "/v2/a/"),
        ("  host: https://registry.example\n", "https://registry.example/v2/a/"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_locations_follow_host_and_relativeurls(tmp_path, keys, start):
    async with run_service(tmp_path, MEMORY + HTTP + keys) as ask:
        response = await ask("POST", "/v2/a/blobs/uploads/")
        assert header(response, "Location").startswith(start.format(base=ask.base))


@pytest_twisted.ensureDeferred
async def test_prefix_and_headers_are_used(tmp_path):
    text = MEMORY + HTTP + "  prefix: /deep/er/\n  headers:\n    X-Mine: [one, two]\n"
    async with run_service(tmp_path, text) as ask:
        response = await ask("GET", "/deep/er/v2/")
        assert response.code == 200
        assert header(response, "X-Mine") == "one, two"
        assert (await ask("GET", "/v2/")).code == 404


@pytest_twisted.ensureDeferred
async def test_limits_of_catalog_and_tags_are_used(tmp_path):
    text = MEMORY + HTTP + "catalog:\n  maxentries: 1\ntags:\n  maxtags: 1\n"
    async with run_service(tmp_path, text) as ask:
        assert (await ask("GET", "/v2/_catalog?n=2")).code == 400
        for tag in ("one", "two"):
            response = await ask(
                "PUT", f"/v2/a/manifests/{tag}", data=b"{}", headers={"Content-Type": "x/y"}
            )
            assert response.code == 201
        response = await ask("GET", "/v2/a/tags/list?n=2")
        assert await treq.json_content(response) == {"name": "a", "tags": ["one"]}


@pytest_twisted.ensureDeferred
async def test_limits_of_requests_are_used(tmp_path):
    text = MEMORY + HTTP + (
        "  limits:\n    manifestbytes: 5MiB\n    urlbytes: 1024\n    headerbytes: 2048\n"
    )  # fmt: skip
    async with run_service(tmp_path, text) as ask:
        headers = {"Content-Type": "x/y"}
        for size, status in ((5 * 1024 * 1024, 201), (5 * 1024 * 1024 + 1, 413)):
            response = await ask("PUT", "/v2/a/manifests/x", data=b"x" * size, headers=headers)
            assert response.code == status
        assert (await ask("GET", "/v2/" + "x" * 1100)).code == 414
        assert (await ask("GET", "/v2/", headers={"X": "x" * 2100})).code == 431


@pytest.mark.parametrize(
    ("keys", "manifest", "status"),
    [
        ("validation:\n  disabled: true\n", "missing", 201),
        ("validation:\n  manifests:\n    indexes:\n      platforms: none\n", "sparse", 201),
        ("", "missing", 400),
        ("", "sparse", 400),
        ("policy:\n  repository:\n    classes: [plugin]\n", "missing", 403),
    ],
)
@pytest_twisted.ensureDeferred
async def test_validation_and_policy_are_used(tmp_path, keys, manifest, status):
    # Nothing of it is pushed but the manifest or the index.
    made = {"missing": build_image(), "sparse": build_index([build_image()])}[manifest]
    headers, content = {"Content-Type": made.media_type}, made.manifest.read()
    async with run_service(tmp_path, MEMORY + HTTP + keys) as ask:
        response = await ask("PUT", "/v2/a/manifests/x", data=content, headers=headers)
        assert response.code == status


@pytest_twisted.ensureDeferred
async def test_uploads_continue_at_a_registry_with_the_same_secret(tmp_path):
    """A registry with the same store and another secret does not know them."""
    text = CONFIGURATION.replace("{addr}", "127.0.0.1:0")
    async with run_service(tmp_path, text) as ask:
        response = await ask("POST", "/v2/a/blobs/uploads/")
        location = header(response, "Location").removeprefix(ask.base)
    async with run_service(tmp_path, text.replace("do-not-tell", "something else")) as ask:
        assert (await ask("PATCH", location, data=LAYER)).code == 404
    async with run_service(tmp_path, text) as ask:
        assert (await ask("PATCH", location, data=LAYER)).code == 202


@pytest_twisted.ensureDeferred
async def test_an_address_in_use_ends_the_start(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        addr = f"127.0.0.1:{taken.getsockname()[1]}"
        loaded = load(write_configuration(tmp_path, addr=addr), {})
        service = RegistryService(loaded, reactor, {}, io.StringIO())
        with pytest.raises(StartError, match=f"http.addr: {addr}: .*in use"):
            service.privilegedStartService()
        await service.stopService()


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("  prefixx: /x/\n", "http.prefixx"),
        ("  h2c:\n    enabled: true\n", "HTTP/2"),
        (
            "reporting: {{newrelic: {{licensekey: x}}}}\n",
            "reporting: removed from Distribution",
        ),
    ],
)
@pytest_twisted.ensureDeferred
async def test_warnings_and_the_address_are_logged(tmp_path, keys, expected):
    told = []

    def observe(event):
        told.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    try:
        async with run_service(tmp_path, MEMORY + HTTP + keys):
            pass
    finally:
        globalLogPublisher.removeObserver(observe)
    assert any(expected in text for text in told)
    assert any(text.startswith("listening on http://127.0.0.1:") for text in told)


def test_manifestbytes_limits_the_manifest_cache(tmp_path):
    for said, wanted in (("", 64 * 2**20), ("  cache: {{manifestbytes: 1MiB}}\n", 2**20)):
        text = MEMORY + said + HTTP
        service = RegistryService(
            load(write_configuration(tmp_path, text), {}), Clock(), {}, io.StringIO()
        )
        assert service.registry.max_content_bytes == wanted


def test_a_root_directory_that_is_a_file_ends_the_start(tmp_path):
    (tmp_path / "store").write_text("")
    service = RegistryService(load(write_configuration(tmp_path), {}), reactor, {}, io.StringIO())
    with pytest.raises(StartError, match=r"storage\.filesystem\.rootdirectory: "):
        service.privilegedStartService()


def test_a_root_directory_that_is_not_writable_ends_the_start(tmp_path, monkeypatch):
    # The tests may run as root, for whom every directory is writable.
    monkeypatch.setattr("os.access", lambda path, mode: not mode & os.W_OK)
    service = RegistryService(load(write_configuration(tmp_path), {}), reactor, {}, io.StringIO())
    with pytest.raises(StartError, match="is not writable; as root, twisted-registry doctor "):
        service.privilegedStartService()


def test_initial_environment_ignores_later_changes(monkeypatch):
    before = initial_environment()
    assert before["PATH"]
    monkeypatch.setenv("ADDED", "later")
    assert "ADDED" not in initial_environment()
    monkeypatch.setattr("twisted_registry.app.listener.Path.read_bytes", lambda _: no_such_file())
    assert initial_environment() == dict(os.environ)


def no_such_file():
    raise FileNotFoundError


@pytest_twisted.ensureDeferred
async def test_access_rules_are_enforced(tmp_path):
    more = (
        "auth: {{silly: {{realm: r, service: s}}}}\n"
        "access:\n"
        "  rules:\n"
        "  - {{repositories: [open/*], anonymous: true, allow: [pull]}}\n"
        "  - {{repositories: [open/*], users: [silly], allow: [push]}}\n"
    )
    async with run_service(tmp_path, MEMORY + HTTP + more) as ask:
        known = {"Authorization": "x"}
        for name, headers, method, status in (
            ("open/a", {}, "GET", 404),
            ("open/a", {}, "POST", 401),
            ("open/a", known, "POST", 202),
            ("a", {}, "GET", 401),
            ("a", known, "GET", 403),
            ("a", known, "POST", 403),
        ):
            path = f"/v2/{name}/" + ("blobs/uploads/" if method == "POST" else "tags/list")
            response = await ask(method, path, headers=headers)
            assert response.code == status, (name, method)


@pytest_twisted.ensureDeferred
async def test_access_without_auth_applies_to_anonymous_callers(tmp_path):
    more = "access:\n  anonymous: [pull]\n"
    async with run_service(tmp_path, MEMORY + HTTP + more) as ask:
        assert (await ask("GET", "/v2/")).code == 200
        assert (await ask("GET", "/v2/a/tags/list")).code == 404
        response = await ask("POST", "/v2/a/blobs/uploads/")
        assert response.code == 403
        assert not response.headers.hasHeader("WWW-Authenticate")


@pytest_twisted.ensureDeferred
async def test_requests_without_a_login_are_challenged(tmp_path):
    more = "auth:\n  silly:\n    realm: r\n    service: s\n"
    async with run_service(tmp_path, MEMORY + HTTP + more) as ask:
        response = await ask("GET", "/v2/")
        assert response.code == 401
        assert header(response, "WWW-Authenticate") == 'Bearer realm="r",service="s"'
        response = await ask("GET", "/v2/", headers={"Authorization": "x"})
        assert response.code == 200
