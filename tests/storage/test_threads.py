from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from threading import Event, current_thread
from threading import enumerate as all_threads

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred

from twisted_registry.storage.filesystem.driver import FilesystemDriver
from twisted_registry.storage.interfaces import StorageError
from twisted_registry.storage.threads import Threads


@pytest_twisted.async_yield_fixture
async def threads():
    threads = Threads(reactor, 1, "test-storage")
    yield threads
    await threads.close()


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def ours():
    return [thread.name for thread in all_threads() if "test-storage" in thread.name]


@pytest_twisted.ensureDeferred
async def test_threads_start_with_the_first_call_and_end_with_close(threads):
    assert ours() == []
    assert "test-storage" in await threads.run_blocking(lambda: current_thread().name)
    assert len(ours()) == 1
    await threads.close()
    assert ours() == []
    with pytest.raises(StorageError):
        await threads.run_blocking(print)
    await threads.close()


@pytest_twisted.ensureDeferred
async def test_an_exception_fails_the_deferred(threads):
    with pytest.raises(ZeroDivisionError):
        await threads.run_blocking(lambda: 1 // 0)


@pytest_twisted.ensureDeferred
async def test_a_call_cancelled_before_it_starts_never_runs(threads):
    go = Event()
    first = threads.run_blocking(go.wait, 30)
    ran = []
    second = threads.run_blocking(ran.append, 1)
    second.cancel()
    with pytest.raises(CancelledError):
        await second
    go.set()
    await first
    await threads.run_blocking(lambda: None)
    assert ran == []


@pytest_twisted.ensureDeferred
async def test_undo_receives_the_result_of_a_cancelled_call(threads):
    started, go, undone = Event(), Event(), Event()

    def work():
        started.set()
        assert go.wait(30)
        return "result"

    results = []

    def undo(result):
        results.append(result)
        undone.set()

    answer = threads.run_blocking(work, undo=undo)
    assert started.wait(30)
    answer.cancel()
    with pytest.raises(CancelledError):
        await answer
    go.set()
    await threads.run_blocking(lambda: None)
    await threads.run_blocking(undone.wait, 30)
    assert results == ["result"]


@pytest_twisted.ensureDeferred
async def test_close_waits_for_running_calls(threads):
    go = Event()
    running = threads.run_blocking(go.wait, 30)
    closing = [threads.close(), threads.close()]
    assert not any(one.called for one in closing)
    go.set()
    assert await running
    for one in closing:
        await one
    assert ours() == []


@pytest_twisted.ensureDeferred
async def test_callbacks_can_make_calls_while_closing(threads):
    go = Event()
    first = threads.run_blocking(go.wait, 30)
    second = first.addCallback(lambda _: threads.run_blocking(lambda: "the rest"))
    closing = threads.close()
    go.set()
    assert await second == "the rest"
    await closing
    assert ours() == []
    with pytest.raises(StorageError, match="closed"):
        await threads.run_blocking(lambda: None)


#: Closes a pool after the reactor has stopped its threads, and once more after the reactor's end.
CLOSE_AFTER_SHUTDOWN = """
from twisted.internet import reactor
from twisted_registry.storage.threads import Threads

threads = Threads(reactor, 1, "test-storage")

def close():
    print("closed" if threads.close().called else "waiting")

def stop(_):
    reactor.addSystemEventTrigger("after", "shutdown", close)
    reactor.stop()

reactor.callWhenRunning(lambda: threads.run_blocking(int).addCallback(stop))
reactor.run()
close()
"""


def test_close_after_the_shutdown_of_the_reactor():
    ended = subprocess.run(
        [sys.executable, "-c", CLOSE_AFTER_SHUTDOWN],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert (ended.stdout.split(), ended.stderr) == (["closed", "closed"], "")


@pytest.mark.parametrize("method", ["open", "writer"])
@pytest_twisted.ensureDeferred
async def test_opening_can_be_cancelled_at_any_time(tmp_path, method):
    before = descriptors()
    driver = FilesystemDriver(str(tmp_path), reactor)
    await driver.put("file", b"content")
    for turns in range(6):
        for attempt in range(5):
            answer = getattr(driver, method)("file" if method == "open" else f"new{turns}{attempt}")
            for _ in range(turns):
                turn = Deferred()
                reactor.callLater(0, turn.callback, None)
                await turn
            if answer.called:
                await (await answer).close() if method == "writer" else (await answer).close()
                continue
            answer.cancel()
            with pytest.raises(CancelledError):
                await answer
            # What was opened is closed before the result of the next call arrives, or soon after.
            await driver.stat("file")
    await driver.close()
    assert descriptors() == before
