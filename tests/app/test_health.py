"""The section ``health`` of registries that serve."""

from __future__ import annotations

import json
import os
import re
import signal
from contextlib import closing
from http.client import HTTPConnection

import pytest
import pytest_twisted
import treq
from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import deferLater
from twisted.web.server import Site

from tests.support.processes import CONFIGURATION, SERVE, free_port, wait_until, write_configuration
from tests.support.services import HTTP, MEMORY, run_service
from tests.workers.process_group import Family, ask
from twisted_registry.app.embedding import make_resource
from twisted_registry.health.interfaces import HealthState

_POLL_S = 0.02
_PATIENCE_S = 30

TWO_PROCESSES = """\
  workers: 2
  debug: {{addr: '127.0.0.1:0'}}
auth: {{silly: {{realm: r, service: s}}}}
health:
  file: [{{file: {file}, interval: 100ms}}]
"""
LOGIN = {"Authorization": "Bearer x"}


def ask_debug(family, method, path, headers=None):
    """Send a request to the debug address; return status and body."""
    pattern = r"maintenance: http://127\.0\.0\.1:(\d+)"
    (port,) = {found[1] for line in family.lines if (found := re.search(pattern, line))}
    with closing(HTTPConnection("127.0.0.1", int(port), timeout=30)) as connection:
        response, body = ask(connection, method, path, None, headers)
        return response.status, body


def statuses(connections, path, headers=None):
    return {ask(connection, "GET", path, None, headers)[0].status for connection in connections}


def test_a_check_that_fails_makes_every_process_answer_503(tmp_path):
    file = tmp_path / "down"
    text = CONFIGURATION + TWO_PROCESSES.replace("{file}", str(file))
    path = write_configuration(tmp_path, text)
    with Family(*SERVE, path, cwd=tmp_path) as family:
        both = family.one_for_each()
        for probe in ("/livez", "/readyz", "/startupz"):
            wait_until(lambda probe=probe: statuses(both, probe) == {200})
        assert statuses(both, "/v2/") == {401}
        assert statuses(both, "/v2/", LOGIN) == statuses(both, "/") == {200}
        assert ask_debug(family, "GET", "/debug/health") == (200, b"{}")

        file.touch()
        wait_until(lambda: statuses(both, "/v2/", LOGIN) == {503})
        assert statuses(both, "/") == statuses(both, "/readyz") == {503}
        assert statuses(both, "/livez") == statuses(both, "/startupz") == {200}
        for connection in both:
            (error,) = json.loads(ask(connection, "GET", "/v2/")[1])["errors"]
            assert error["code"] == "UNAVAILABLE"
            assert ask(connection, "GET", "/readyz")[1] == b"failed"
        status, body = ask_debug(family, "GET", "/debug/health")
        assert (status, json.loads(body)) == (503, {str(file): "file exists"})

        file.unlink()
        wait_until(lambda: statuses(both, "/v2/", LOGIN) == {200})
        family.stop()
        assert len(family.log_lines("health check fails")) == 1
        assert len(family.log_lines("health check passes again")) == 1


def test_an_operator_takes_every_process_down_and_up(tmp_path):
    text = CONFIGURATION + TWO_PROCESSES.replace("{file}", str(tmp_path / "down"))
    with Family(*SERVE, write_configuration(tmp_path, text), cwd=tmp_path) as family:
        both = family.one_for_each()
        assert ask_debug(family, "POST", "/debug/health/down")[0] == 401
        assert statuses(both, "/v2/", LOGIN) == {200}
        assert ask_debug(family, "POST", "/debug/health/down", LOGIN)[0] == 200
        assert statuses(both, "/v2/", LOGIN) == {503}
        # A worker that starts meanwhile is down as well.
        (worker,) = family.others
        os.kill(worker, signal.SIGKILL)
        family.settle(2)
        both = family.one_for_each()
        assert statuses(both, "/v2/", LOGIN) == {503}
        assert ask_debug(family, "POST", "/debug/health/up", LOGIN)[0] == 200
        assert statuses(both, "/v2/", LOGIN) == {200}
        status, body = ask_debug(family, "GET", "/debug/stacks")
        assert status == 200
        assert b"thread MainThread" in body
        family.stop()


async def until(ready):
    """Wait until a coroutine function returns something true."""
    for _ in range(round(_PATIENCE_S / _POLL_S)):
        if await ready():
            return
        await deferLater(reactor, _POLL_S)
    pytest.fail(f"not ready after {_PATIENCE_S} s")


@pytest_twisted.ensureDeferred
async def test_checks_of_store_http_and_tcp(tmp_path):
    health = f"""\
  debug: {{{{addr: '127.0.0.1:{(debug := free_port())}'}}}}
health:
  storagedriver: {{{{enabled: true, interval: 100ms}}}}
  http: [{{{{uri: 'http://127.0.0.1:{debug}/debug/vars', interval: 100ms}}}}]
  tcp: [{{{{addr: ':{debug}', interval: 100ms}}}}]
"""
    text = CONFIGURATION.replace("{addr}", "127.0.0.1:0") + health
    async with run_service(tmp_path, text) as ask_registry:

        async def is_ready():
            return (await ask_registry("GET", "/readyz")).code == 200

        async def is_down():
            return (await ask_registry("GET", "/v2/")).code == 503

        await until(is_ready)
        store = tmp_path / "store"
        store.rename(tmp_path / "elsewhere")
        store.touch()  # no task makes the folder again
        await until(is_down)
        store.unlink()
        (tmp_path / "elsewhere").rename(store)
        await until(is_ready)


@pytest_twisted.ensureDeferred
async def test_servers_that_do_not_listen_are_faults(tmp_path, log_events):
    port = free_port()
    health = f"""\
health:
  http: [{{{{uri: 'http://ada:secret@127.0.0.1:{port}/', interval: 100ms, threshold: 2}}}}]
  tcp: [{{{{addr: '127.0.0.1:{port}', interval: 100ms}}}}]
"""
    async with run_service(tmp_path, MEMORY + HTTP + health) as ask_registry:

        async def are_reported():
            return len([event for event in log_events if "check" in event]) == 2

        await until(are_reported)
        assert (await ask_registry("GET", "/v2/")).code == 503
    names = {event["check"] for event in log_events if "check" in event}
    assert names == {f"http://127.0.0.1:{port}/", f"127.0.0.1:{port}"}


@pytest_twisted.ensureDeferred
async def test_a_mounted_registry_has_its_checks(tmp_path):
    file = tmp_path / "down"
    configuration = {
        "version": 0.1,
        "storage": "inmemory",
        "health": {"file": [{"file": str(file), "interval": "100ms"}]},
    }
    root = make_resource(reactor, configuration)
    site = Site(root)
    site.noisy = False
    port = reactor.listenTCP(0, site, interface="127.0.0.1")
    url = f"http://127.0.0.1:{port.getHost().port}/v2/"

    async def status():
        response = await treq.get(url, persistent=False)
        await response.content()
        return response.code

    async def is_failing():
        return root.service.health.state() == HealthState.FAILING

    try:
        assert await status() == 200
        file.touch()
        await until(is_failing)
        assert await status() == 503
    finally:
        await maybeDeferred(port.stopListening)
        await root.close()
