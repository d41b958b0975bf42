"""``Registry`` in the frameworks whose tests use it, and many of them at once."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import unittest
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import pytest_twisted
import treq
from twisted.internet import reactor
from twisted.python import threadable

from twisted_registry.testing import AsyncRegistry, Registry, RegistryMixin, WouldDeadlock

ROOT = Path(__file__).parents[2]


def run(*command, cwd=ROOT):
    done = subprocess.run(
        command,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return done.returncode, done.stdout + done.stderr


def ask(url):
    with urllib.request.urlopen(f"{url}/v2/", timeout=20) as response:
        return response.read()


def test_in_asyncio():
    async def main():
        with Registry() as one, Registry() as two:
            work = [asyncio.to_thread(ask, each.url) for each in (one, two)]
            return await asyncio.gather(*work)

    assert asyncio.run(main()) == [b"{}", b"{}"]


@pytest_twisted.ensureDeferred
async def test_beside_a_running_reactor():
    """The reactor of pytest-twisted runs on this thread, so a blocking client would wait for it."""
    with Registry() as registry:
        assert ask(registry.url) == b"{}"
        response = await treq.get(f"{registry.url}/v2/", persistent=False)
        assert await response.content() == b"{}"
    assert threadable.isInIOThread()


@pytest_twisted.ensureDeferred
async def test_on_the_reactor_that_runs():
    async with AsyncRegistry(reactor) as registry:
        response = await treq.get(f"{registry.url}/v2/", persistent=False)
        assert await response.content() == b"{}"
        assert registry.url == f"http://{registry.host}" == f"http://127.0.0.1:{registry.port}"
        assert (registry.auth, registry.ca_file, registry.ssl_context) == (None, None, None)
    with pytest.raises(RuntimeError, match="async with"):
        _ = registry.url


@pytest_twisted.ensureDeferred
async def test_the_reactor_of_this_thread_is_refused():
    with pytest.raises(WouldDeadlock, match="AsyncRegistry"):
        Registry(reactor=reactor).start()


ON_A_THREAD = """
import threading, urllib.request
from twisted.internet import reactor
from twisted_registry.testing import Registry

ready = threading.Event()
reactor.callWhenRunning(ready.set)
thread = threading.Thread(target=reactor.run, kwargs={"installSignalHandlers": False})
thread.start()
ready.wait()
with Registry(reactor=reactor) as one, Registry() as two:
    for registry in (one, two):
        print(urllib.request.urlopen(registry.url + "/v2/").read())
    print(one.run(threading.current_thread) is thread)
print(reactor.getDelayedCalls())
reactor.callFromThread(reactor.stop)
thread.join()
"""


def test_the_installed_reactor_on_another_thread(tmp_path):
    status, out = run(sys.executable, "-c", ON_A_THREAD, cwd=tmp_path)
    assert out.splitlines() == ["b'{}'", "b'{}'", "True", "[]"]
    assert status == 0


def count_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_hundred_registries_leave_nothing():
    with Registry(tls=True, auth=True) as registry:  # imports everything
        assert registry.auth
    gc.collect()
    threads, descriptors = set(threading.enumerate()), count_descriptors()
    kept, delayed = set(), []
    for number in range(100):
        with Registry(tls=number % 10 == 0, auth=number % 10 == 1 or None) as registry:
            ask(registry.url) if number % 10 > 1 else registry.run(int)
            background = registry.server.reactor
            kept |= set(map(str, (registry.ca_file,) if registry.ca_file else ()))
        delayed += background.getDelayedCalls()
    assert delayed == []
    assert set(threading.enumerate()) == threads
    assert count_descriptors() <= descriptors
    assert kept
    assert not [path for path in kept if Path(path).exists()]


def test_twenty_in_parallel():
    barrier = threading.Barrier(20)

    def serve(_):
        with Registry() as registry:
            barrier.wait(60)
            return registry.port, ask(registry.url)

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(serve, range(20)))
    assert {body for _, body in answers} == {b"{}"}
    assert len({port for port, _ in answers}) == 20


FIRST_IN_PARALLEL = """
import threading
from concurrent.futures import ThreadPoolExecutor
from twisted_registry.testing import Registry

barrier = threading.Barrier(20)

def serve(_):
    barrier.wait(60)
    with Registry() as registry:
        return registry.port

with ThreadPoolExecutor(20) as pool:
    print(len(set(pool.map(serve, range(20)))))
"""


def test_the_first_registries_of_a_process_start_in_parallel(tmp_path):
    """Nothing that Twisted sets up for a process is set up twice, which would be a warning."""
    status, out = run(sys.executable, "-W", "error", "-c", FIRST_IN_PARALLEL, cwd=tmp_path)
    assert (status, out) == (0, "20\n")


class TestWithTheMixin(RegistryMixin, unittest.TestCase):
    registry_options = {"auth": ("ada", "secret")}  # noqa: RUF012
    ports = set()  # noqa: RUF012

    def test_one(self):
        assert self.registry.auth == ("ada", "secret")
        assert self.registry is self.registry
        self.check()

    def test_other(self):
        self.check()

    def test_that_uses_none(self):
        assert not [each for each in threading.enumerate() if each.name == "registry"]

    def check(self):
        assert self.registry.url not in self.ports
        self.ports.add(self.registry.url)


TRIAL = """
import urllib.request
import treq
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted_registry.testing import AsyncRegistry, Registry, RegistryMixin

class BlockingTests(RegistryMixin, SynchronousTestCase):
    def test_blocking(self):
        self.assertEqual(urllib.request.urlopen(self.registry.url + "/v2/").read(), b"{}")

class Tests(RegistryMixin, TestCase):
    def test_blocking(self):
        self.assertEqual(urllib.request.urlopen(self.registry.url + "/v2/").read(), b"{}")

    async def test_with_a_client_on_the_reactor(self):
        response = await treq.get(self.registry.url + "/v2/", persistent=False)
        self.assertEqual(await response.content(), b"{}")

    async def test_on_the_reactor(self):
        from twisted.internet import reactor
        async with AsyncRegistry(reactor) as registry:
            response = await treq.get(registry.url + "/v2/", persistent=False)
            self.assertEqual(await response.content(), b"{}")
"""


def test_in_trial(tmp_path):
    (tmp_path / "test_it.py").write_text(TRIAL)
    status, out = run(sys.executable, "-m", "twisted.trial", "test_it", cwd=tmp_path)
    assert "PASSED (successes=4)" in out, out
    assert status == 0


NOT_STOPPED = """
from twisted_registry.testing import Registry
import urllib.request
registry = Registry(tls=True).start()
urllib.request.urlopen(registry.url + "/v2/", context=registry.ssl_context).read()
print(registry.ca_file)
"""


def test_a_registry_that_is_not_stopped_does_not_keep_the_interpreter(tmp_path):
    status, out = run(sys.executable, "-W", "ignore", "-c", NOT_STOPPED, cwd=tmp_path)
    assert status == 0, out
    (path,) = out.splitlines()
    assert not Path(path).exists()


def test_an_abandoned_registry_stops():
    registry = Registry().start()
    url = registry.url
    del registry
    gc.collect()
    for thread in threading.enumerate():
        if thread.name == "registry":
            thread.join(20)
    with pytest.raises(OSError, match="refused"):
        ask(url)
