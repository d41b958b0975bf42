"""Clients that leave: wherever the handler waits, everything is freed."""

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

OURS = tuple(name for name in SETUPS if name.startswith("ours"))
BIG = os.urandom(8 * 1024 * 1024)


def nothing(number, name):
    return None


def leaked(root):
    """Descriptors of this process below a folder that should not be there (any more).

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


async def turns(number=5):
    for _ in range(number):
        await deferLater(reactor, 0)


async def nothing_leaks(root):
    """Give threads that were at work when their caller left the time to end."""
    for _ in range(3000):
        if not leaked(root):
            return
        await deferLater(reactor, 0.001)
    raise AssertionError(leaked(root))


async def ask(api, scenario, upload):
    """Send a request, its body when it is asked for, and answer the connection.

    A socket with bytes that nobody wants yet is not read, so that nobody sees its end either.
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


@pytest.mark.setups("ours-memory", "stock-memory")
@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
@pytest_twisted.ensureDeferred
async def test_a_disconnect_cancels_each_storage_call(setup, start, clock, scenario, logged_errors):
    """Each call is held back in turn; the client leaves; the call is cancelled."""
    for number in count(0, 1 if setup in OURS else 4):
        ends = RequestEnds()
        driver = Watched(MemoryDriver(clock), nothing)
        async with start(driver=driver, metrics=ends) as api:
            upload = await prepare(api)
            driver.calls.clear()
            driver.before = holding = HeldCall(number)
            over = ends.after(len(ends.statuses) + 1)
            connection = await ask(api, scenario, upload)
            connection.closed.addCallback(
                lambda _, holding=holding: holding.reached.called or holding.reached.callback(None)
            )
            name = await holding.reached
            connection.abort()
            await over
            if name is None:
                assert number > 0
                gc.collect()  # so that errors that nobody handled are told
                assert not logged_errors.take()
                return
            assert holding.cancelled, name
            assert ends.statuses[-1] == 499 or name == "deliver"
            assert driver.opened == 0, name
            driver.before = nothing
            await check(api, scenario, upload)


@pytest.mark.setups("ours-files")
@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
@pytest_twisted.ensureDeferred
async def test_a_disconnect_during_a_thread_leaves_nothing_open(start, tmp_path, scenario):
    """The client leaves while each call is under way: no thread leaves anything open."""
    number = 0
    ends = RequestEnds()
    files = FilesystemDriver(str(tmp_path / "files"), reactor)
    driver = Watched(files, nothing)
    async with start(driver=driver, metrics=ends) as api:
        while True:
            upload = await prepare(api)
            driver.calls.clear()
            left = Deferred()

            def before(call, _name, number=number, left=left):
                if call == number and not left.called:
                    left.callback(True)

            driver.before = before
            over = ends.after(len(ends.statuses) + 1)
            connection = await ask(api, scenario, upload)
            connection.closed.addCallback(lambda _, left=left: left.called or left.callback(False))
            reached = await left
            connection.abort()
            await over
            driver.before = nothing
            await check(api, scenario, upload)
            assert driver.opened == 0
            await turns()
            await nothing_leaks(tmp_path)
            if not reached:
                assert number > 0
                return
            number += 4


@pytest.mark.setups(*OURS)
@pytest_twisted.ensureDeferred
async def test_a_disconnect_during_a_download_closes_the_file(start, tmp_path):
    ends = RequestEnds()
    async with start(metrics=ends) as api:
        digest = await api.push_blob(BIG)
        for _ in range(3):
            over = ends.after(len(ends.statuses) + 1)
            connection = await connect(api.served.port)
            connection.send(head("GET", f"/v2/a/blobs/{digest}", host=api.host))
            await connection.until(lambda received: len(received) > 100_000)
            connection.transport.pauseProducing()
            connection.abort()
            await over
            await turns()
            await nothing_leaks(tmp_path)
        assert (await api("GET", f"a/blobs/{digest}")).body == BIG


@pytest.mark.setups("stock-memory", "stock-files")
@pytest_twisted.ensureDeferred
async def test_a_disconnect_during_a_download_from_a_twisted_web_site(start, tmp_path):
    ends = RequestEnds()
    async with start(metrics=ends) as api:
        digest = await api.push_blob(BIG)
        over = ends.after(len(ends.statuses) + 1)
        connection = await connect(api.served.port)
        connection.send(head("GET", f"/v2/a/blobs/{digest}", host=api.host))
        await connection.until(lambda received: len(received) > 100_000)
        connection.transport.pauseProducing()
        connection.abort()
        await over
        await nothing_leaks(tmp_path)
        assert (await api("GET", f"a/blobs/{digest}")).body == BIG


@pytest.mark.setups(*OURS)
@pytest.mark.parametrize("method", ["PATCH", "PUT", "POST"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest_twisted.ensureDeferred
async def test_an_upload_continues_after_a_disconnect(start, tmp_path, method, framing):
    """What came stays where it can be continued; the writer is free for the next request."""
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
        over = ends.after(len(ends.statuses) + 1)
        if framing == "length":
            headers, data = {"Content-Length": str(len(BIG))}, half
        else:
            headers = {"Transfer-Encoding": "chunked"}
            data = b"%x\r\n%b\r\n" % (len(half), half)
        connection.send(head(method, target, headers, host=api.host) + data)
        if method != "POST":
            while (await api.request_target("GET", url)).get("Range") == "0-0":
                pass
            over = ends.after(len(ends.statuses) + 1)
        else:
            await turns(50)
        connection.abort()
        await over
        await nothing_leaks(tmp_path)
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


@pytest.mark.setups(*OURS)
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
            over = ends.after(len(ends.statuses) + 1)
            connection = await connect(api.served.port)
            connection.send(head(method, target, {"Content-Length": "1000000"}, host=api.host))
            await turns(20)
            connection.abort()
            await over
            assert ends.statuses[-1] in {400, 499}
            await nothing_leaks(tmp_path)
        response = await api.request_target("PUT", with_query(url, digest=digest_of(BIG)), body=BIG)
        assert response.status == 201


@pytest.mark.setups("ours-memory", "stock-memory")
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
        over = ends.after(len(ends.statuses) + 1)
        connection = await connect(api.served.port)
        connection.send(head("GET", "/v2/a/tags/list", host=api.host))
        await connection.until(lambda received: b"tags" in received)
        connection.abort()
        await over
        assert (await api("GET", "a/tags/list")).json()["tags"] == [*names, "latest"]
