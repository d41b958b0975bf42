"""Recording of pulls, and the retention rules that use it."""

from __future__ import annotations

import pytest

from tests.maintenance.test_retention import ALL, DAY, NOW, in_days, retention
from tests.repository.trash_kit import WORLDS
from tests.repository.worlds import done, result_of
from twisted_registry.maintenance import pull_times
from twisted_registry.maintenance.pull_times import (
    FLUSH_INTERVAL_S,
    MAX_GAP_S,
    PullRecorder,
    PullTimes,
)
from twisted_registry.maintenance.retention import RetentionRule
from twisted_registry.repository import layout
from twisted_registry.repository.registry import Registry
from twisted_registry.storage.interfaces import StorageError


@pytest.fixture(params=WORLDS.values(), ids=WORLDS.keys())
def world(request):
    world = request.param()
    world.clock.advance(NOW)
    return world


@pytest.fixture
def pending_pulls():
    return set()


@pytest.fixture
def served(world, pending_pulls):
    """A registry over the same store that records pulls."""
    return Registry(world.driver, world.clock, pending_pulls=pending_pulls)


@pytest.fixture
def recorder(world, pending_pulls):
    return PullRecorder(pending_pulls, PullTimes(world.driver), world.clock)


def pull(served, reference, name="a/b"):
    done(served.repository(name).manifests.get(reference))


def test_pulled_tags_are_kept_until_the_pull_is_old(world, served, pending_pulls, recorder):
    in_days(world, "by-tag", "by-digest", "unused")
    digest = done(world.repo().tags.resolve("by-digest"))
    recorder.startService()
    world.clock.pump([DAY] * 20)
    pull(served, "by-tag")
    pull(served, digest)
    pull(served, "by-tag")
    assert pending_pulls == {("a/b", "by-tag"), ("a/b", digest)}
    world.clock.advance(FLUSH_INTERVAL_S)
    assert pending_pulls == set()
    rule = RetentionRule(ALL, pulled_within=10 * DAY)
    for _ in range(2):
        assert done(retention(world, rule, dry_run=True).run()).expired == 1
        # Merged times stay when the files of the processes are deleted.
        world.clock.advance(2 * 3600)
    assert world.paths("twisted-registry/pulls/batches") == []
    done(retention(world, rule).run())
    assert world.tags() == ["by-digest", "by-tag"]
    world.clock.pump([DAY] * 11)
    done(retention(world, rule).run())
    assert world.tags() == []


def test_pulls_of_several_processes_are_merged(world):
    in_days(world, "one", "two", "both", "unused")
    recorders = []
    for reference in ("one", "two"):
        pending_pulls = set()
        served = Registry(world.driver, world.clock, pending_pulls=pending_pulls)
        recorders.append(PullRecorder(pending_pulls, PullTimes(world.driver), world.clock))
        recorders[-1].startService()
        for tag_name in (reference, "both"):
            pull(served, tag_name)
    world.clock.pump([DAY] * 3)
    rule = RetentionRule(ALL, pulled_within=10 * DAY)
    # The recording has not lasted long enough.
    assert done(retention(world, rule).run()).expired == 0
    world.clock.pump([DAY] * 6)
    assert done(retention(world, rule).run()).expired == 0
    world.clock.pump([DAY])
    assert done(retention(world, rule).run()).expired == 1
    assert world.tags() == ["both", "one", "two"]
    for recorder in recorders:
        recorder.stopService()


def test_failed_pull_is_not_recorded(world, served, pending_pulls):
    with pytest.raises(Exception, match="MANIFEST_UNKNOWN"):
        pull(served, "nothing")
    assert pending_pulls == set()


def test_remaining_pulls_are_recorded_at_stop(world, served, pending_pulls, recorder):
    in_days(world, "one")
    recorder.startService()
    pull(served, "one")
    stopped = []
    recorder.stopService().addCallback(stopped.append)
    assert stopped == [None]
    assert world.clock.getDelayedCalls() == []
    times = PullTimes(world.driver)
    done(times.merge_batches(0.0))
    assert done(times.read_times("a/b")) == {"one": world.clock.seconds()}


def test_failed_flush_keeps_the_pulls_and_is_logged(world, pending_pulls, recorder, log_events):
    def breaks(_number, action, path):
        if action == "put":
            raise StorageError(path, "it broke")

    recorder.startService()
    pending_pulls.add(("a", "tag"))
    world.driver.before = breaks
    world.clock.advance(FLUSH_INTERVAL_S)
    assert pending_pulls == {("a", "tag")}
    assert any("could not be recorded" in event["log_format"] for event in log_events)
    world.driver.before = lambda *_: None
    world.clock.advance(FLUSH_INTERVAL_S)
    assert pending_pulls == set()


def test_recording_starts_again_after_a_long_gap(world, recorder):
    times = PullTimes(world.driver)
    assert done(times.recording_since()) is None
    done(times.mark_recording())
    first = done(times.recording_since())
    for _ in range(3):
        world.clock.advance(MAX_GAP_S * 0.9)
        done(times.mark_recording())
    assert done(times.recording_since()) == first
    world.clock.advance(MAX_GAP_S * 1.1)
    done(times.mark_recording())
    assert done(times.recording_since()) == world.clock.seconds()


def test_many_pulls_are_split_into_files_and_merged_in_pages(world, monkeypatch):
    monkeypatch.setattr(pull_times, "_MAX_BATCH_PULLS", 7)
    monkeypatch.setattr(pull_times, "_BATCHES_PER_MERGE", 3)
    times = PullTimes(world.driver)
    done(times.record_pulls({(f"r{number % 5}", f"t{number}") for number in range(100)}))
    assert len(world.paths("twisted-registry/pulls/batches")) == 15
    done(times.merge_batches(0.0))
    assert sum(len(done(times.read_times(f"r{number}"))) for number in range(5)) == 100
    done(times.merge_batches(world.clock.seconds() + 1))
    assert [done(times.read_times(f"r{number}")) for number in range(5)] == [{}] * 5


def test_torn_lines_are_ignored(world):
    world.write(layout.pull_batch("torn"), b"\xff\n\ntag\nsha256:00 a\n")
    world.write(layout.pull_times("a"), b"x y\n12 tag\n\n")
    times = PullTimes(world.driver)
    assert done(times.read_times("a")) == {"tag": 12.0}
    done(times.merge_batches(0.0))
    assert set(done(times.read_times("a"))) == {"tag", "sha256:00"}
    assert result_of(world.driver.stat(layout.pull_times("a"))).size
