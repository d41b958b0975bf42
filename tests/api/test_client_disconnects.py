"""Clients that disconnect: wherever the handler waits, everything is freed."""

from __future__ import annotations

import gc
import os
from collections import Counter
from itertools import count
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from tests.api.scenarios import SCENARIOS, RequestEnds, check, prepare
from tests.api.setups import SETUPS
from tests.api.watched_driver import HeldCall, Watched
from tests.support.http_client import connect, head, with_query
from tests.support.manifests import digest_of
from twisted_registry.storage.filesystem.driver import FilesystemDriver
from twisted_registry.storage.memory import MemoryDriver

HTTPSITE = tuple(name for name in SETUPS if name.startswith("httpsite"))
BIG = os.urandom(8 * 1024 * 1024)


def pass_call(number, name):
    return None


def find_leaks(root):
    """Return the files below a folder that are open, but should be closed.

    A store may keep a blob's file open for the next reader: one descriptor of it is no leak.
    """
    found = Counter()
    for link in Path("/proc/self/fd").iterdir():
        try:
            target = str(link.readlink())
        except OSError:
            continue
        if target.startswith(str(root)):
            found[target] += 1
    return [path for path, number in found.items() if number > 1 or "/blobs/" not in path]


async def run_reactor(number=5):
    for _ in range(number):
        await deferLater(reactor, 0)


async def wait_for_no_leaks(root):
    """Wait for threads that still work after their caller was cancelled."""
    for _ in range(3000):
        if not find_leaks(root):
            return
        await deferLater(reactor, 0.001)
    raise AssertionError(find_leaks(root))


async def send_request(api, scenario, upload):
    """Send a request, and its body after 100 Continue; return the connection.

    A server that does not read the body yet would not notice the disconnect behind it.
    """
    connection = await connect(api.served.port)
    headers, body = scenario.headers(), scenario.body
    if body is not None:
        headers["Content-Length"] = str(len(body))
    if body:
        headers["Expect"] = "100-continue"
        connection.until(lambda received: b"100 Continue" in received).addCallback(
            lambda _: connection.gone or connection.send(body)
        )
    connection.send(head(scenario.method, scenario.target(upload), headers, host=api.host))
    return connection


@pytest.mark.setups("httpsite-memory", "twisted-memory")
@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
@pytest_twisted.ensureDeferred
async def test_a_disconnect_cancels_each_storage_call(setup, start, clock, scenario, logged_errors):
    """Each storage call is delayed in turn, the client disconnects, and the call is cancelled."""
    for number in count(0, 1 if setup in HTTPSITE else 4):
        ends = RequestEnds()
        driver = Watched(MemoryDriver(clock), pass_call)
        async with start(driver=driver, metrics=ends) as api:
            upload = await prepare(api)
            driver.calls.clear()
            driver.before = held_call = HeldCall(number)
            ended = ends.after(len(ends.statuses) + 1)
            connection = await send_request(api, scenario, upload)
            connection.closed.addCallback(
                lambda _, held_call=held_call: (
                    held_call.reached.called or held_call.reached.callback(None)
                )
            )
            name = await held_call.reached
            connection.abort()
            await ended
            if name is None:
                assert number > 0
                gc.collect()  # so that unhandled errors are logged
                assert not logged_errors.take()
                return
            assert held_call.cancelled, name
            assert ends.statuses[-1] == 499 or name == "deliver"
            assert driver.opened == 0, name
            driver.before = pass_call
            await check(api, scenario, upload)


@pytest.mark.setups("httpsite-files")
@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
@pytest_twisted.ensureDeferred
async def test_a_disconnect_during_a_thread_leaves_nothing_open(start, tmp_path, scenario):
    """The client disconnects during each call in turn: no thread leaves a file open."""
    number = 0
    ends = RequestEnds()
    files = FilesystemDriver(str(tmp_path / "files"), reactor)
    driver = Watched(files, pass_call)
    async with start(driver=driver, metrics=ends) as api:
        while True:
            upload = await prepare(api)
            driver.calls.clear()
            call_reached = Deferred()

            def before(call, _name, number=number, call_reached=call_reached):
                if call == number and not call_reached.called:
                    call_reached.callback(True)

            driver.before = before
            ended = ends.after(len(ends.statuses) + 1)
            connection = await send_request(api, scenario, upload)
            connection.closed.addCallback(
                lambda _, call_reached=call_reached: (
                    call_reached.called or call_reached.callback(False)
                )
            )
            reached = await call_reached
            connection.abort()
            await ended
            driver.before = pass_call
            await check(api, scenario, upload)
            assert driver.opened == 0
            await run_reactor()
            await wait_for_no_leaks(tmp_path)
            if not reached:
                assert number > 0
                return
            number += 4


@pytest.mark.setups(*HTTPSITE)
@pytest_twisted.ensureDeferred
async def test_a_disconnect_during_a_download_closes_the_file(start, tmp_path):
    ends = RequestEnds()
    async with start(metrics=ends) as api:
        digest = await api.push_blob(BIG)
        for _ in range(3):
            ended = ends.after(len(ends.statuses) + 1)
            connection = await connect(api.served.port)
            connection.send(head("GET", f"/v2/a/blobs/{digest}", host=api.host))
            await connection.until(lambda received: len(received) > 100_000)
            connection.transport.pauseProducing()
            connection.abort()
            await ended
            await run_reactor()
            await wait_for_no_leaks(tmp_path)
        assert (await api("GET", f"a/blobs/{digest}")).body == BIG


@pytest.mark.setups("twisted-memory", "twisted-files")
@pytest_twisted.ensureDeferred
async def test_a_disconnect_during_a_download_from_a_twisted_web_site(start, tmp_path):
    ends = RequestEnds()
    async with start(metrics=ends) as api:
        digest = await api.push_blob(BIG)
        ended = ends.after(len(ends.statuses) + 1)
        connection = await connect(api.served.port)
        connection.send(head("GET", f"/v2/a/blobs/{digest}", host=api.host))
        await connection.until(lambda received: len(received) > 100_000)
        connection.transport.pauseProducing()
        connection.abort()
        await ended
        await wait_for_no_leaks(tmp_path)
        assert (await api("GET", f"a/blobs/{digest}")).body == BIG


@pytest.mark.setups(*HTTPSITE)
@pytest.mark.parametrize("method", ["PATCH", "PUT", "POST"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest_twisted.ensureDeferred
async def test_an_upload_continues_after_a_disconnect(start, tmp_path, method, framing):
    """Received bytes are kept, and the next request can write to the upload."""
    ends = RequestEnds()
    half = BIG[: len(BIG) // 2]
    digest = digest_of(BIG)
    async with start(metrics=ends) as api:
        url = await api.start_upload()
        target = {
            "PATCH": url,
            "PUT": with_query(url, digest=digest),
            "POST": f"/v2/a/blobs/uploads/?digest={digest}",
        }[method]
        target = "/v2/" + target.split("/v2/")[1]
        connection = await connect(api.served.port)
        ended = ends.after(len(ends.statuses) + 1)
        if framing == "length":
            headers, data = {"Content-Length": str(len(BIG))}, half
        else:
            headers = {"Transfer-Encoding": "chunked"}
            data = b"%x\r\n%b\r\n" % (len(half), half)
        connection.send(head(method, target, headers, host=api.host) + data)
        if method != "POST":
            while (await api.request_target("GET", url)).get("Range") == "0-0":
                pass
            ended = ends.after(len(ends.statuses) + 1)
        else:
            await run_reactor(50)
        connection.abort()
        await ended
        assert ends.statuses[-1] == 499
        await wait_for_no_leaks(tmp_path)
        response = await api.request_target("GET", url)
        assert response.status == 204
        stored = response.get("Range").partition("-")[2]
        size = 0 if stored == "0" else int(stored) + 1
        assert size <= len(half)
        assert (size == 0) == (method == "POST")
        response = await api.request_target(
            "PUT", with_query(response.get("Location"), digest=digest), body=BIG[size:]
        )
        assert response.status == 201
        assert (await api("GET", f"a/blobs/{digest}")).body == BIG
        uploads = tmp_path / "store/docker/registry/v2/repositories/a/_uploads"
        assert not uploads.exists() or not list(uploads.iterdir())


@pytest.mark.setups(*HTTPSITE)
@pytest_twisted.ensureDeferred
async def test_a_disconnect_before_the_body_leaves_nothing_open(start, tmp_path):
    ends = RequestEnds()
    async with start(metrics=ends) as api:
        url = "/v2/" + (await api.start_upload()).split("/v2/")[1]
        for method, target in (
            ("PATCH", url),
            ("PUT", with_query(url, digest=digest_of(BIG))),
            ("PUT", "/v2/a/manifests/latest"),
            ("POST", f"/v2/a/blobs/uploads/?digest={digest_of(BIG)}"),
        ):
            ended = ends.after(len(ends.statuses) + 1)
            connection = await connect(api.served.port)
            connection.send(head(method, target, {"Content-Length": "1000000"}, host=api.host))
            await run_reactor(20)
            connection.abort()
            await ended
            assert ends.statuses[-1] == 499
            await wait_for_no_leaks(tmp_path)
        response = await api.request_target("PUT", with_query(url, digest=digest_of(BIG)), body=BIG)
        assert response.status == 201


@pytest.mark.setups("httpsite-memory", "twisted-memory")
@pytest_twisted.ensureDeferred
async def test_a_disconnect_during_a_long_list(start):
    ends = RequestEnds()
    async with start(metrics=ends) as api:
        await api.push_image()
        tags = api.served.registry.repository("a").tags
        digest = await tags.resolve("latest")
        names = [f"{number:05}{'x' * 120}" for number in range(6000)]
        for name in names:
            await tags.set(name, digest)
        ended = ends.after(len(ends.statuses) + 1)
        connection = await connect(api.served.port)
        connection.send(head("GET", "/v2/a/tags/list", host=api.host))
        await connection.until(lambda received: b"tags" in received)
        connection.abort()
        await ended
        assert (await api("GET", "a/tags/list")).json()["tags"] == [*names, "latest"]
