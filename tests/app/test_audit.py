"""``log.audit``: the file, and what a registry and its commands write to it."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context

import pytest
import pytest_twisted
from twisted.logger import formatEvent, globalLogPublisher

from tests.support.http_client import with_query
from tests.support.manifests import digest_of, image
from tests.support.passwords import basic_header, password_lines
from tests.support.processes import (
    SERVE,
    RegistryProcess,
    run,
    wait_until,
    write_configuration,
)
from tests.support.services import HTTP, header, run_service
from twisted_registry.app.audit import AuditFile, open_audit_log, rules_digest
from twisted_registry.auth.audit import AuditRecord
from twisted_registry.auth.check_queue import FREE_FAILURES
from twisted_registry.config.loading import load_text
from twisted_registry.frame.errors import StartError

LAYER, CONFIG = b"layer", b"{}"
DIGEST = digest_of(LAYER)
ADA = {"Authorization": basic_header("ada", "ada-knows-this")}
BOB = {"Authorization": basic_header("bob", "bob-knows-this")}
COMMAND = (sys.executable, "-m", "twisted_registry")


def configuration(folder, audit, access="{authenticated: [pull, push, delete]}", more=""):
    """Return a configuration with users and an audit log."""
    users = folder / "users"
    if not users.exists():
        users.write_bytes(password_lines(ada="ada-knows-this", bob="bob-knows-this"))
    return (
        f"version: 0.1\nlog: {{{{audit: {audit}}}}}\n"
        f"storage:\n  filesystem: {{{{rootdirectory: {folder}/store}}}}\n"
        f"  delete: {{{{enabled: true}}}}\n{HTTP}{more}"
        f"auth: {{{{htpasswd: {{{{realm: here, path: {users}}}}}}}}}\n"
        f"access: {access.replace('{', '{{').replace('}', '}}')}\n"
    )


def entries(path):
    """Return the entries in a file without their times."""
    found = [json.loads(line) for line in path.read_bytes().splitlines()]
    for entry in found:
        assert entry.pop("time").endswith("Z")
    return found


def subset(entry, *names):
    return tuple(entry.get(name, "") for name in names)


def of_event(found, event):
    return [entry for entry in found if entry["event"] == event]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.log"


@pytest.fixture
def audit(path):
    opened = AuditFile(str(path), lambda: 0.0)
    opened.open()
    yield opened
    opened.close()


def test_a_new_file_is_readable_for_owner_and_group_and_is_appended_to(path, audit):
    assert stat.S_IMODE(path.stat().st_mode) & 0o137 == 0
    audit.record(AuditRecord("one"))
    other = AuditFile(str(path), lambda: 0.0)
    other.open()
    for log, event in ((other, "two"), (audit, "three")):
        log.record(AuditRecord(event))
    other.close()
    assert [entry["event"] for entry in entries(path)] == ["one", "two", "three"]


@pytest.mark.parametrize("rotate", ["rename", "remove", "replace", "truncate"])
def test_a_rotated_file_is_opened_again_with_the_next_entry(tmp_path, path, audit, rotate):
    audit.record(AuditRecord("one"))
    if rotate == "rename":
        path.rename(tmp_path / "audit.log.1")
    elif rotate == "remove":
        path.unlink()
    elif rotate == "replace":
        (tmp_path / "new").touch()
        (tmp_path / "new").rename(path)
    else:
        os.truncate(path, 0)
    audit.record(AuditRecord("two"))
    assert [entry["event"] for entry in entries(path)] == ["two"]


def test_a_pipe_without_a_reader_is_an_error(path):
    os.mkfifo(path)
    with pytest.raises(OSError, match="No such device or address"):
        AuditFile(str(path), lambda: 0.0).open()


def test_reopening_creates_a_missing_file(path, audit):
    path.unlink()
    audit.reopen()
    assert path.read_bytes() == b""


def write_entries(path, name):
    log = AuditFile(path, lambda: 0.0)
    log.open()
    for number in range(300):
        log.record(AuditRecord("push", user=name, reference="é" * (number % 256)))
    log.close()


def test_processes_write_whole_lines_to_one_file(path):
    context = get_context("spawn")
    writers = [context.Process(target=write_entries, args=(str(path), name)) for name in "abcd"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    users = [entry["user"] for entry in entries(path)]
    assert {name: users.count(name) for name in "abcd"} == dict.fromkeys("abcd", 300)


def test_a_full_disk_is_logged_once_a_minute(tmp_path):
    now = [0.0]
    link = tmp_path / "full"
    link.symlink_to("/dev/full")
    log, told = AuditFile(str(link), lambda: now[0]), []
    log.open()
    globalLogPublisher.addObserver(told.append)
    try:
        for seconds in (0.0, 59.0, 61.0):
            now[0] = seconds
            log.record(AuditRecord("lost"))
        link.unlink()
        log.record(AuditRecord("kept"))
    finally:
        globalLogPublisher.removeObserver(told.append)
        log.close()
    assert [formatEvent(each) for each in told] == [
        f"log.audit: {link}: No space left on device: entries are lost"
    ] * 2
    # A line that was cut off must not spoil the next one.
    assert link.read_bytes().startswith(b"\n")
    assert json.loads(link.read_bytes())["event"] == "kept"


@pytest_twisted.ensureDeferred
async def test_a_file_that_cannot_be_opened_ends_the_start(tmp_path):
    with pytest.raises(StartError, match=f"^log.audit: {tmp_path}/no/audit.log: No such file"):
        async with run_service(tmp_path, configuration(tmp_path, tmp_path / "no/audit.log")):
            pass


def test_a_relative_path_is_that_of_the_working_directory_at_the_start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    section = load_text(configuration(tmp_path, "audit.log").format(), {}).configuration
    log = open_audit_log(section, None, lambda: 0.0)
    monkeypatch.chdir("/")
    log.reopen()
    log.record(AuditRecord("kept"))
    log.close()
    assert [entry["event"] for entry in entries(tmp_path / "audit.log")] == ["kept"]


def test_on_a_full_disk_the_log_is_opened_later(path, monkeypatch):
    text = configuration(path.parent, path)
    section = load_text(text.format(), {}).configuration
    real = os.open

    def full(*_arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "open", full)
    log = open_audit_log(section, None, lambda: 0.0)
    log.record(AuditRecord("lost"))
    monkeypatch.setattr(os, "open", real)
    log.record(AuditRecord("kept"))
    log.close()
    assert [entry["event"] for entry in entries(path)] == ["kept"]


@pytest_twisted.ensureDeferred
async def test_logins_pushes_and_deletes_are_recorded(tmp_path, path):
    more = {"X-Forwarded-For": "192.0.2.1", "X-Request-Id": "request-7"}
    ada, manifest = {**ADA, **more}, image(CONFIG, LAYER)
    async with run_service(tmp_path, configuration(tmp_path, path)) as ask:
        for content in (LAYER, CONFIG):
            url = f"/v2/a/blobs/uploads/?digest={digest_of(content)}"
            assert (await ask("POST", url, headers=ada, data=content)).code == 201
        started = await ask("POST", "/v2/a/blobs/uploads/", headers=ada)
        upload = header(started, "Location").removeprefix(ask.base)
        assert (await ask("PATCH", upload, headers=ada, data=LAYER)).code == 202
        started = await ask("POST", "/v2/a/blobs/uploads/", headers=ada)
        upload = header(started, "Location").removeprefix(ask.base)
        closing = with_query(upload, digest=DIGEST)
        assert (await ask("PUT", closing, headers=ada, data=b"other")).code == 400
        mount = f"/v2/b/blobs/uploads/?mount={DIGEST}&from=a"
        assert (await ask("POST", mount, headers=ada)).code == 201
        target = "/v2/a/manifests/v1"
        assert (await ask("PUT", target, headers=ada, data=manifest)).code == 201
        assert (await ask("GET", target, headers=ada)).code == 200
        assert (await ask("DELETE", target, headers=ada)).code == 202
        assert (await ask("DELETE", target, headers=ada)).code == 404
        assert (await ask("DELETE", f"/v2/a/blobs/{DIGEST}", headers=ada)).code == 202
    found = entries(path)
    (login,) = of_event(found, "login")
    who = ("user", "login", "address", "peer")
    assert subset(login, *who) == ("ada", "password", "192.0.2.1", "127.0.0.1")
    content = [entry for entry in found if entry["event"] in {"push", "delete"}]
    assert {subset(entry, *who) for entry in content} == {subset(login, *who)}
    assert {entry["request_id"] for entry in content} == {"request-7"}
    names = ("event", "outcome", "repository", "reference", "digest", "status", "error")
    digest = digest_of(manifest)
    assert [subset(entry, *names) for entry in content] == [
        ("push", "success", "a", "", DIGEST, 201, ""),
        ("push", "success", "a", "", digest_of(CONFIG), 201, ""),
        ("push", "failure", "a", "", DIGEST, 400, "DIGEST_INVALID"),
        ("push", "success", "b", "", DIGEST, 201, ""),
        ("push", "success", "a", "v1", digest, 201, ""),
        ("delete", "success", "a", "v1", "", 202, ""),
        ("delete", "failure", "a", "v1", "", 404, "MANIFEST_UNKNOWN"),
        ("delete", "success", "a", "", DIGEST, 202, ""),
    ]
    assert content[3]["mounted_from"] == "a"
    assert "ada-knows-this" not in path.read_text()


@pytest_twisted.ensureDeferred
async def test_a_cancelled_upload_is_recorded(tmp_path, path):
    async with run_service(tmp_path, configuration(tmp_path, path)) as ask:
        started = await ask("POST", "/v2/a/blobs/uploads/", headers=ADA)
        url = header(started, "Location").removeprefix(ask.base)
        assert (await ask("DELETE", url, headers=ADA)).code == 204
    (entry,) = of_event(entries(path), "upload.cancel")
    upload = header(started, "Docker-Upload-UUID")
    assert subset(entry, "outcome", "repository", "target") == ("success", "a", upload)


@pytest_twisted.ensureDeferred
async def test_refusals_are_recorded(tmp_path, path):
    access = "{rules: [{repositories: [team/*], users: [ada], allow: [push]}]}"
    async with run_service(tmp_path, configuration(tmp_path, path, access)) as ask:
        assert (await ask("GET", "/v2/")).code == 401
        target = "/v2/team/a/manifests/latest"
        assert (await ask("PUT", target, headers=BOB, data=b"{}")).code == 403
        for number in range(FREE_FAILURES + 2):
            wrong = {"Authorization": basic_header("ada", f"wrong {number}")}
            code = (await ask("GET", target, headers=wrong)).code
        assert code == 429
    found = [entry for entry in entries(path) if entry["outcome"] != "success"]
    names = ("event", "outcome", "user", "status", "error")
    assert [subset(entry, *names) for entry in found] == [
        ("access", "denied", "bob", 403, "DENIED"),
        *[("login", "failure", "ada", 401, "UNAUTHORIZED")] * (FREE_FAILURES + 1),
        ("login", "failure", "ada", 429, "TOOMANYREQUESTS"),
    ]
    assert found[0]["repository"] == "team/a"
    assert "wrong" not in path.read_text()


@pytest_twisted.ensureDeferred
async def test_tokens_are_recorded(tmp_path, path):
    access = "{authenticated: [pull], tokens: {}}"
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    async with run_service(tmp_path, configuration(tmp_path, path, access)) as ask:
        assert (await ask("GET", "/auth/token")).code == 200
        response = await ask("GET", "/auth/token?offline_token=true", headers=ADA)
        refresh = json.loads(response.body)["refresh_token"]
        data = f"grant_type=refresh_token&refresh_token={refresh}".encode()
        response = await ask("POST", "/auth/token", headers=form, data=data)
        bearer = {"Authorization": f"Bearer {json.loads(response.body)['token']}"}
        assert (await ask("GET", "/v2/", headers=bearer)).code == 200
        data = b"grant_type=password&username=bob&password=mistaken"
        assert (await ask("POST", "/auth/token", headers=form, data=data)).code == 401
        wrong = {"Authorization": "Bearer nonsense"}
        assert (await ask("GET", "/v2/", headers=wrong)).code == 401
    found = entries(path)
    names = ("outcome", "user", "login", "error")
    assert [subset(entry, *names) for entry in of_event(found, "login")] == [
        ("success", "ada", "password", ""),
        ("success", "ada", "refresh", ""),
        ("failure", "bob", "password", "UNAUTHORIZED"),
        ("failure", "", "token", "UNAUTHORIZED"),
    ]
    (made,) = of_event(found, "token.create")
    assert subset(made, "user", "kind", "target") == ("ada", "refresh", refresh.split("_")[1])
    text = path.read_text()
    for secret in (refresh.split("_")[2], bearer["Authorization"][7:], "mistaken", "nonsense"):
        assert secret not in text


@pytest_twisted.ensureDeferred
async def test_standard_output_has_the_entries_between_the_access_log(tmp_path):
    out = io.StringIO()
    async with run_service(tmp_path, configuration(tmp_path, "stdout"), out) as ask:
        assert (await ask("GET", "/v2/", headers=ADA)).code == 200
    found = [json.loads(line) for line in out.getvalue().splitlines() if line.startswith("{")]
    # The change is recorded once the rules of the last start were read: after some requests.
    assert sorted(entry["event"] for entry in found) == ["login", "rules.change"]
    assert "GET /v2/ HTTP/1.1" in out.getvalue()


@pytest_twisted.ensureDeferred
async def test_a_start_with_other_rules_is_recorded(tmp_path, path):
    first, second = "{authenticated: [pull]}", "{authenticated: [pull, push]}"
    for access in (first, first, second):
        async with run_service(tmp_path, configuration(tmp_path, path, access)) as ask:
            assert (await ask("GET", "/")).code == 200
    changes = of_event(entries(path), "rules.change")
    digests = [
        rules_digest(load_text(configuration(tmp_path, path, access).format(), {}).configuration)
        for access in (first, second)
    ]
    assert [subset(entry, "before", "now") for entry in changes] == [
        ("", digests[0]),
        (digests[0], digests[1]),
    ]


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1], ids=["HUP", "USR1"])
def test_workers_write_to_one_file_that_is_rotated(tmp_path, path, number):
    text = configuration(tmp_path, path, more="  workers: 2\n")
    rotated = tmp_path / "audit.log.1"

    def push(number):
        content = b"%d" % number
        url = f"/v2/a/blobs/uploads/?digest={digest_of(content)}"
        return server.ask("POST", url, content, ADA)[0].status

    with RegistryProcess(*SERVE, write_configuration(tmp_path, text), cwd=tmp_path) as server:
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(push, range(40))) == {201}
            pushes = pool.map(push, range(40, 80))
            path.rename(rotated)
            server.process.send_signal(number)
            wait_until(path.exists)
            assert set(pushes) == {201}
            assert set(pool.map(push, range(80, 120))) == {201}
        assert server.stop()[0] == 0
    before, after = (len(of_event(entries(file), "push")) for file in (rotated, path))
    assert before >= 40
    assert after >= 40
    assert before + after == 120


def test_commands_are_recorded(tmp_path, path):
    text = configuration(tmp_path, path, "{authenticated: [pull], tokens: {}}")
    file = write_configuration(tmp_path, text)
    content = tmp_path / "store/docker/registry/v2/repositories/a/_layers"
    content.mkdir(parents=True)

    def command(*arguments, status=0):
        done, out, err = run(*COMMAND, *arguments, file, cwd=tmp_path)
        assert done == status, err
        return out

    token = json.loads(command("token", "create", "ci", "--allow", "a:pull", "--json"))
    command("token", "list")
    command("token", "revoke", token["id"])
    command("token", "revoke", token["id"], status=1)
    command("user", "remove", "bob")
    command("user", "remove", "bob", status=1)
    command("delete", "a")
    command("trash", "empty")
    command("trash", "list")
    command("garbage-collect")
    command("garbage-collect", "--dry-run")
    found = entries(path)
    names = ("event", "outcome", "target", "repository")
    assert [subset(entry, *names) for entry in found] == [
        ("token.create", "success", token["id"], ""),
        ("token.revoke", "success", token["id"], ""),
        ("token.revoke", "failure", token["id"], ""),
        ("user.remove", "success", "bob", ""),
        ("user.remove", "failure", "bob", ""),
        ("delete", "success", "", "a"),
        ("trash.empty", "success", "", ""),
        ("garbage-collect", "success", "", ""),
    ]
    assert {entry["login"] for entry in found} == {"command"}
    assert all(entry["user"] for entry in found)
    assert token["token"].split("_")[2] not in path.read_text()


def test_a_command_that_cannot_write_its_entry_changes_nothing(tmp_path):
    text = configuration(tmp_path, tmp_path / "no/audit.log")
    file = write_configuration(tmp_path, text)
    users = (tmp_path / "users").read_bytes()
    status, _, lines = run(*COMMAND, "user", "remove", "bob", file, cwd=tmp_path)
    assert status == 1
    assert lines == [
        f"twisted-registry: {file}: log.audit: {tmp_path}/no/audit.log: No such file or directory"
    ]
    assert (tmp_path / "users").read_bytes() == users
