"""SIGHUP: what a registry applies while it serves, and what it keeps when that fails."""

from __future__ import annotations

import os
import re
import signal
from hashlib import sha256

import pytest
import pytest_twisted
from twisted.internet import reactor

from tests.support.passwords import basic_header, password_lines
from tests.support.processes import (
    SERVE,
    TWISTD,
    RegistryProcess,
    prepared,
    wait_until,
    write_configuration,
)
from tests.support.receiver import Receiver, wait_for
from tests.support.services import HTTP, MEMORY, run_service
from tests.support.tokens import ISSUER, REALM, SERVICE, claims, jwk, jwks, key, mint
from tests.workers.process_group import Family, ask
from twisted_registry.config.loading import load_text

ADA = {"Authorization": basic_header("ada", "secret")}
EVE = {"Authorization": basic_header("eve", "secret")}
TEXT = """
version: 0.1
storage: {{filesystem: {{rootdirectory: {root}}}}}
http: {{addr: '{addr}', secret: do-not-tell, workers: WORKERS}}
auth: {{htpasswd: {{realm: r, path: users}}}}
"""
PULL, PUSH = "access: {authenticated: [pull]}\n", "access: {authenticated: [push]}\n"
TABLE = [(SERVE, 1), ((*TWISTD, "registry"), 2)]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "users").write_bytes(password_lines(ada="secret"))
    return tmp_path


def configure(folder, more, workers=1):
    return write_configuration(folder, TEXT.replace("WORKERS", str(workers)), more=more)


def reload(server, count=1):
    """Send SIGHUP, and wait until the log says that it has been handled."""
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: len(results(server)) >= count)
    return results(server)[-1]


def results(server):
    return [line for line in server.lines if re.search(r'msg="(reloaded|reload has failed)', line)]


def upload(server, headers=ADA):
    return server.ask("POST", "/v2/a/blobs/uploads/", b"", headers)[0].status


@pytest.mark.parametrize(("command", "workers"), TABLE)
def test_rules_and_settings_change_in_all_processes(folder, command, workers):
    path = configure(folder, PULL, workers)
    with Family(*command, path, cwd=folder, count=workers) as server:
        assert upload(server) == 403
        more = PUSH + "tags: {maxtags: 7}\nhttp: {headers: {X-Other: [here]}}\n"
        configure(folder, more, workers)
        line = reload(server)
        assert "changed=access,http.headers,tags.maxtags" in line
        for connection in server.one_for_each() if workers > 1 else [server.connection()]:

            def status(connection=connection):
                response, _ = ask(connection, "POST", "/v2/a/blobs/uploads/", b"", ADA)
                return response.status, response.getheader("X-Other")

            wait_until(lambda status=status: status() == (202, "here"))
        if workers > 1:
            # A worker that is replaced uses the same.
            (old,) = server.others
            os.kill(old, signal.SIGKILL)
            server.settle(workers)
            for connection in server.one_for_each():
                assert ask(connection, "POST", "/v2/a/blobs/uploads/", b"", ADA)[0].status == 202
        _, _, lines = server.stop()
    assert "Traceback" not in "\n".join(lines)


def test_a_broken_file_keeps_everything_and_names_key_and_value(folder):
    path = configure(folder, PULL)
    with RegistryProcess(*SERVE, path, cwd=folder) as server:
        configure(folder, PUSH + "log: {level: loud}\n")
        line = reload(server)
        assert "what was in use stays" in line
        assert "stays: log.level: got 'loud'" in line
        assert f"({path} line 7)" in line
        assert upload(server) == 403
        configure(folder, "access: [\n")
        assert f"{path}: is not YAML at line 7" in reload(server, 2)
        assert upload(server) == 403
        configure(folder, PUSH)
        assert "changed=access" in reload(server, 3)
        assert upload(server) == 202


@pytest.mark.parametrize("content", [b"no colon\n", None], ids=["broken", "missing"])
def test_a_file_of_users_that_cannot_be_used_keeps_everything(folder, content):
    path = configure(folder, PULL)
    with RegistryProcess(*SERVE, path, cwd=folder) as server:
        configure(folder, PUSH.replace("users", "others"))
        text = (folder / "registry.yml").read_text()
        (folder / "registry.yml").write_text(text.replace("path: users", "path: others"))
        if content is not None:
            (folder / "others").write_bytes(content)
        assert f"auth.htpasswd.path: {folder}/others: " in reload(server)
        assert (folder / "others").exists() is (content is not None)
        assert upload(server) == 403
        (folder / "others").write_bytes(password_lines(eve="secret"))
        assert "changed=auth,access" in reload(server, 2)
        assert (upload(server), upload(server, EVE)) == (401, 202)


def in_each_process(server, *request, expected):
    """Wait until each process answers a request as is expected: with a status and X-Other."""
    for connection in server.one_for_each():

        def answer(connection=connection):
            response, _ = ask(connection, *request)
            return response.status, response.getheader("X-Other")

        wait_until(lambda answer=answer: answer() == expected)


def test_the_log_changes_in_all_processes(folder):
    def use(log, name):
        return configure(folder, f"log: {log}\nhttp: {{headers: {{X-Other: [{name}]}}}}\n", 2)

    def get(path, name):
        in_each_process(server, "GET", f"/v2/{path}/tags/list", None, ADA, expected=(404, name))

    path = use("{level: info}", "one")
    with Family(*SERVE, path, cwd=folder) as server:
        get("before", "one")
        use("{level: error}", "two")
        server.process.send_signal(signal.SIGHUP)
        get("first", "two")
        get("silent", "two")
        use("{level: info, fields: {service: registry}, reportcaller: true}", "three")
        line = reload(server)
        assert "changed=log.level,log.fields,log.reportcaller" in line
        assert "service=registry" in line
        get("after", "three")
        get("loud", "three")

        def pids(path):
            lines = server.log_lines(f"/v2/{path}/tags/list")
            return {int(re.search(r"process\.pid=(\d+)", each)[1]) for each in lines}

        wait_until(lambda: pids("loud") == {server.first, *server.others})
        assert pids("before") == pids("loud")
        assert pids("silent") == set()
        (line, _) = server.log_lines("/v2/loud/tags/list")
        assert "service=registry" in line
        assert "func=" in line


START_UPLOAD = ("POST", "/v2/a/blobs/uploads/", b"", ADA)


def make_read_only(folder, enabled, workers=1):
    path = configure(folder, "", workers)
    mode = f"maintenance: {{readonly: {{enabled: {enabled}}}}}"
    text = (folder / "registry.yml").read_text()
    (folder / "registry.yml").write_text(text.replace("}}\nhttp", f"}}, {mode}}}\nhttp"))
    return path


def test_read_only_comes_and_goes_in_all_processes(folder):
    path = make_read_only(folder, "false", 2)
    with Family(*SERVE, path, cwd=folder) as server:
        in_each_process(server, *START_UPLOAD, expected=(202, None))
        make_read_only(folder, "true", 2)
        assert "changed=storage.maintenance.readonly.enabled" in reload(server)
        in_each_process(server, *START_UPLOAD, expected=(405, None))
        in_each_process(server, "GET", "/v2/", None, ADA, expected=(200, None))
        # A worker that is started meanwhile has all that it needs afterwards.
        (worker,) = server.others
        os.kill(worker, signal.SIGKILL)
        server.settle(2)
        in_each_process(server, *START_UPLOAD, expected=(405, None))
        make_read_only(folder, "false", 2)
        reload(server, 2)
        in_each_process(server, *START_UPLOAD, expected=(202, None))
        push_blob(server.connection())
        assert not server.log_lines("needs a restart")
        assert server.stop()[0] == 0


def test_a_registry_that_was_started_read_only_needs_a_restart_to_store(folder):
    path = make_read_only(folder, "true")
    (folder / "store").mkdir()
    with RegistryProcess(*SERVE, path, cwd=folder) as server:
        assert upload(server) == 405
        make_read_only(folder, "false")
        reload(server)
        (pending,) = [line for line in server.lines if "needs a restart" in line]
        assert "reload: storage.maintenance.readonly.enabled has changed" in pending
        assert upload(server) == 405


def put_blob(server, content):
    digest = f"sha256:{sha256(content).hexdigest()}"
    path = f"/v2/a/blobs/uploads/?digest={digest}"
    return server.ask("POST", path, content, ADA)[0].status


def test_quotas_come_and_go_in_all_processes(folder):
    def limit(size):
        return f"access: {{quotas: [{{repositories: ['a/**', a], bytes: {size}}}]}}\n"

    path = configure(folder, "", 2)
    with Family(*SERVE, path, cwd=folder) as server:
        assert put_blob(server, b"x" * 50) == 201
        configure(folder, limit(100), 2)
        assert "changed=access" in reload(server)
        # What was stored before is counted as well.
        wait_until(lambda: put_blob(server, b"y" * 60) == 403)
        configure(folder, limit(200), 2)
        reload(server, 2)
        wait_until(lambda: put_blob(server, b"z" * 60) == 201)
        configure(folder, "", 2)
        reload(server, 3)
        wait_until(lambda: put_blob(server, b"w" * 500) == 201)
        status, _, lines = server.stop()
    assert status == 0
    assert "Traceback" not in "\n".join(lines)


def test_what_needs_a_restart_is_named(folder):
    path = configure(folder, PULL)
    with RegistryProcess(*SERVE, path, cwd=folder) as server:
        configure(folder, PUSH + "log: {accesslog: {disabled: true}}\nredis: {addr: 'x:1'}\n")
        reload(server)
        pending = [line for line in server.lines if "needs a restart" in line]
        assert [re.search(r"reload: (\S+) has", line)[1] for line in pending] == [
            "log.accesslog.disabled",
            "redis",
        ]
        assert upload(server) == 202


def test_what_is_wrong_with_a_new_file_is_a_warning(folder):
    path = configure(folder, PULL + "old: 1\n")
    with RegistryProcess(*SERVE, path, cwd=folder) as server:
        configure(folder, PULL + "old: 1\nacces: {authenticated: [push]}\n")
        reload(server)
        (warning,) = [line for line in server.lines if "reload: " in line]
        assert "level=warning" in warning
        assert "acces" in warning
        assert "access" in warning


def test_a_signal_during_the_start_is_handled_after_it(folder):
    statements = (
        "import os, signal; from twisted_registry.app import listener;"
        "listener.raise_descriptor_limit = lambda: os.kill(os.getpid(), signal.SIGHUP)"
    )
    path = configure(folder, PULL)
    with RegistryProcess(*prepared(statements), path, cwd=folder) as server:
        wait_until(lambda: results(server))
        assert "changed=none" in results(server)[0]


def push_blob(connection):
    digest = "sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    url = f"/v2/a/blobs/uploads/?digest={digest}"
    assert ask(connection, "POST", url, b"x", ADA)[0].status == 201


def test_events_of_all_processes_have_the_instance_of_the_log(folder):
    with Receiver() as one:
        endpoints = f"notifications: {{endpoints: [{{name: one, url: '{one.url}'}}]}}\n"
        path = configure(folder, PUSH + endpoints, 2)
        with Family(*SERVE, path, cwd=folder) as server:
            for connection in server.one_for_each():
                push_blob(connection)
            wait_for(lambda: len(one.events) == 2)
            found = re.findall(r"instance\.id=(\S+)", "\n".join(server.lines))
        assert {event["source"]["instanceID"] for event in one.events} == set(found)


def test_endpoints_of_notifications_change(folder):
    def endpoint(name, receiver):
        return f"{{name: {name}, url: '{receiver.url}', backoff: 50ms}}"

    def endpoints(*each):
        return PUSH + f"notifications: {{endpoints: [{', '.join(each)}]}}\n"

    with Receiver() as one, Receiver() as two, Receiver() as three:
        first, second = endpoint("one", one), endpoint("two", two)
        path = configure(folder, endpoints(first, second), 2)
        with Family(*SERVE, path, cwd=folder) as server:
            push_blob(server.connection())
            wait_for(lambda: len(one.events) == len(two.events) == 1)
            configure(folder, endpoints(first, endpoint("two", three)), 2)
            assert "changed=notifications.endpoints" in reload(server)
            push_blob(server.connection())
            wait_for(lambda: len(one.events) == 2 and len(three.events) == 1)
            configure(folder, endpoints(endpoint("two", three)), 2)
            reload(server, 2)
            wait_until(lambda: server.log_lines("endpoint=two waiting=0"))
            for connection in server.one_for_each():
                response, _ = ask(connection, "POST", "/v2/a/blobs/uploads/", b"", ADA)
                assert response.status == 202
            push_blob(server.connection())
            wait_for(lambda: len(three.events) == 2)
            assert server.stop()[0] == 0
        assert (len(one.events), len(two.events)) == (2, 1)


def bearer(name):
    token = mint(key("P-256", name), "ES256", claims(reactor.seconds()), kid=name)
    return {"Authorization": f"Bearer {token}"}


@pytest_twisted.ensureDeferred
async def test_keys_of_a_token_server_are_read_again(tmp_path, log_lines):
    keys = tmp_path / "keys"
    keys.write_bytes(jwks(jwk(key("P-256", "old"), kid="old")))
    options = f"{{{{realm: {REALM}, service: {SERVICE}, issuer: {ISSUER}, jwks: {keys}}}}}"
    old, new = bearer("old"), bearer("new")

    async with run_service(tmp_path, f"{MEMORY}{HTTP}auth: {{{{token: {options}}}}}\n") as ask:

        async def statuses():
            return [(await ask("GET", "/v2/", headers=each)).code for each in (old, new)]

        assert await statuses() == [200, 401]
        keys.write_bytes(b"{}")
        problem = await ask.service.reload()
        assert f"auth.token.jwks: {keys}: " in problem
        assert problem in log_lines[-1]
        assert await statuses() == [200, 401]
        keys.write_bytes(jwks(jwk(key("P-256", "new"), kid="new")))
        assert await ask.service.reload() == ""
        assert await statuses() == [401, 200]


@pytest_twisted.ensureDeferred
async def test_the_page_of_tokens_comes_and_goes(tmp_path):
    users = tmp_path / "users"
    users.write_bytes(password_lines(ada="secret"))
    basic = MEMORY + HTTP + f"auth: {{{{htpasswd: {{{{realm: r, path: {users}}}}}}}}}\n"
    tokens = basic + "access: {{authenticated: [pull], tokens: {{}}}}\n"
    async with run_service(tmp_path, basic) as ask:
        for text, scheme, status in (
            (basic, "Basic", 404),
            (tokens, "Bearer", 200),
            (basic, "Basic", 404),
        ):
            assert await ask.service.reload(load_text(text.format(), {})) == ""
            response = await ask("GET", "/v2/")
            assert response.code == 401
            assert response.headers.getRawHeaders("WWW-Authenticate")[0].startswith(scheme)
            assert (await ask("GET", "/auth/token", headers=ADA)).code == status


@pytest_twisted.ensureDeferred
async def test_a_registry_gets_and_loses_access_control(tmp_path):
    open_text, closed = MEMORY + HTTP, MEMORY + HTTP + "access: {{anonymous: [pull]}}\n"
    async with run_service(tmp_path, open_text) as ask:
        for text, status in ((open_text, 202), (closed, 403), (open_text, 202)):
            assert await ask.service.reload(load_text(text.format(), {})) == ""
            assert (await ask("POST", "/v2/a/blobs/uploads/")).code == status


@pytest_twisted.ensureDeferred
async def test_policy_and_deletes_change(tmp_path):
    deletes = "version: 0.1\nstorage: {{inmemory: {{}}, delete: {{enabled: true}}}}\n" + HTTP
    image = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",'
    image += b'"config":{"mediaType":"application/vnd.oci.empty.v1+json","size":2,"digest":'
    image += b'"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},'
    image += b'"layers":[]}'
    kind = {"Content-Type": "application/vnd.oci.image.manifest.v1+json"}
    async with run_service(tmp_path, MEMORY + HTTP) as ask:
        put = ("PUT", "/v2/a/manifests/latest")
        assert (await ask(*put, headers=kind, data=image)).code == 400
        more = "validation: {{disabled: true}}\n"
        assert await ask.service.reload(load_text((deletes + more).format(), {})) == ""
        assert (await ask(*put, headers=kind, data=image)).code == 201
        assert (await ask("DELETE", "/v2/a/manifests/latest")).code == 202


@pytest_twisted.ensureDeferred
async def test_periodic_tasks_stop_while_the_registry_is_read_only(tmp_path):
    read_only = (
        "version: 0.1\nstorage: {{inmemory: {{}}, maintenance: {{readonly: {{enabled: true}}}}}}\n"
    )
    writable, read_only = (text + HTTP for text in (MEMORY, read_only))
    quotas = "access: {{quotas: [{{repositories: ['**'], bytes: 1}}]}}\n"
    async with run_service(tmp_path, writable) as ask:
        maintenance = ask.service.getServiceNamed("maintenance")

        async def planned(text):
            assert await ask.service.reload(load_text(text.format(), {})) == ""
            return {task.name for task in maintenance if task.next is not None}

        usual = await planned(writable)
        assert "uploadpurging" in usual
        assert await planned(read_only) == set()
        assert await planned(read_only + quotas) == set()
        assert await planned(writable + quotas) == usual | {"quotas"}
        assert await planned(writable) == usual
