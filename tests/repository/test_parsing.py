"""The worker that hashes and parses manifests: what waits for its thread, and what does not."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from tests.repository.worlds import begin, done, listed, result_of
from twisted_registry.oci.digest import Digest
from twisted_registry.repository import layout
from twisted_registry.repository.inventory import Inventory
from twisted_registry.repository.parsing import MAX_INLINE_BYTES, ManifestWorker
from twisted_registry.storage.memory import MemoryDriver

SMALL, LARGE = b"x" * MAX_INLINE_BYTES, b"x" * (MAX_INLINE_BYTES + 1)


class HeldThread:
    """A thread that makes calls when the test says."""

    def __init__(self):
        self.calls = []

    def run_blocking(self, work, *arguments):
        waiting = Deferred()
        self.calls.append((waiting, work, arguments))
        return waiting

    def run_all(self):
        calls, self.calls = self.calls, []
        for waiting, work, arguments in calls:
            if not waiting.called:
                waiting.callback(work(*arguments))


@pytest.fixture
def thread():
    return HeldThread()


@pytest.fixture
def worker(thread):
    return ManifestWorker(thread.run_blocking)


class Counter:
    """Finds the length of a content, and counts its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, content):
        self.calls += 1
        return len(content)


def test_a_small_manifest_does_not_wait_for_the_thread(worker, thread):
    assert done(worker.run(len(SMALL), len, SMALL)) == len(SMALL)
    assert done(worker.find(Digest.of(SMALL), SMALL, len)) == len(SMALL)
    assert thread.calls == []


def test_a_large_manifest_waits_for_the_thread(worker, thread):
    running = begin(worker.run(len(LARGE), len, LARGE))
    found = begin(worker.find(Digest.of(LARGE), LARGE, len))
    assert not running.called
    assert not found.called
    thread.run_all()
    assert result_of(running) == result_of(found) == len(LARGE)


def test_a_large_manifest_is_parsed_once_for_all_who_wait(worker, thread):
    counter = Counter()
    digest = Digest.of(LARGE)
    waiting = [begin(worker.find(digest, LARGE, counter)) for _ in range(40)]
    thread.run_all()
    assert [result_of(each) for each in waiting] == [len(LARGE)] * 40
    later = begin(worker.find(digest, LARGE, counter))
    thread.run_all()
    assert result_of(later) == len(LARGE)
    assert counter.calls == 1


def test_requests_that_are_aborted_are_not_parsed(worker, thread):
    counter = Counter()
    waiting = [begin(worker.find(Digest.of(LARGE), LARGE, counter)) for _ in range(40)]
    for each in waiting:
        each.cancel()
    thread.run_all()
    assert counter.calls == 0
    for each in waiting:
        with pytest.raises(CancelledError):
            result_of(each)


def test_content_with_another_digest_is_not_parsed(worker, thread):
    counter = Counter()
    for content in (SMALL, LARGE):
        found = begin(worker.find(Digest.of(b"other"), content, counter))
        thread.run_all()
        assert result_of(found) is None
    assert counter.calls == 0


def test_without_a_thread_everything_is_done_at_once():
    worker = ManifestWorker()
    assert done(worker.find(Digest.of(LARGE), LARGE, len)) == len(LARGE)
    assert done(worker.run(len(LARGE), len, LARGE)) == len(LARGE)


def test_a_collection_parses_large_manifests_one_by_one(worker, thread):
    """Between two of them, pulls of large manifests get their turn."""
    driver = MemoryDriver(Clock())
    contents = [b"1", b"2", b"3" + LARGE, b"4" + LARGE, b"5"]
    digests = [Digest.of(content) for content in contents]
    for digest, content in zip(digests, contents, strict=True):
        result_of(driver.put(layout.blob_data(digest), content))
    reading = begin(listed(Inventory(driver, worker).manifests([*digests, Digest.of(b"none")])))
    jobs = 0
    while not reading.called:
        jobs += 1
        assert len(thread.calls) == 1
        thread.run_all()
    assert jobs == 4
    found = result_of(reading)
    assert [digest for digest, _ in found] == [*digests, Digest.of(b"none")]
    assert [references is None for _, references in found] == [False] * 5 + [True]
