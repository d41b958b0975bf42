"""Which tags rules keep, and what a run does about the others."""

from __future__ import annotations

import pytest
from twisted.logger import globalLogPublisher

from tests.repository.trash_kit import WORLDS
from tests.repository.worlds import done, result_of
from twisted_registry.maintenance.pull_times import (
    FLUSH_INTERVAL_S,
    MAX_GAP_S,
    PullRecorder,
    PullTimes,
)
from twisted_registry.maintenance.retention import (
    RetentionResult,
    RetentionRule,
    TagRetention,
    TagTimes,
    decide,
)
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.patterns import Glob, GlobSet
from twisted_registry.repository import layout
from twisted_registry.repository.inventory import Inventory
from twisted_registry.repository.policy import TagSelector
from twisted_registry.repository.registry import Registry
from twisted_registry.storage.interfaces import StorageError

DAY = 86_400.0
NOW = 1_800_000_000.0
ALL = TagSelector.parse(["**"], ["*"])
DIGEST = Digest.of(b"manifest")


def tag(name, pushed=100.0, pulled=None):
    """A tag that was pushed, and perhaps pulled, so many days ago."""
    return TagTimes(
        name,
        DIGEST,
        None if pushed is None else NOW - pushed * DAY,
        None if pulled is None else NOW - pulled * DAY,
    )


def kept(rule, *tags, recording_since=None):
    """The tags that stay, with the reason."""
    decisions = decide(rule, "a", tags, NOW, recording_since)
    assert [decision.tag for decision in decisions] == sorted(tags, key=lambda each: each.name)
    return {decision.tag.name: decision.kept for decision in decisions if decision.kept}


def test_the_newest():
    tags = [tag("a", 3), tag("b", 1), tag("c", 2), tag("d", 2)]
    assert kept(RetentionRule(ALL, newest=2), *tags) == {"b": "newest 2", "c": "newest 2"}
    assert len(kept(RetentionRule(ALL, newest=9), *tags)) == 4


def test_what_was_pushed_lately():
    rule = RetentionRule(ALL, pushed_within=2 * DAY)
    assert kept(rule, tag("a", 1.5), tag("b", 2), tag("c", 3)) == {"a": "pushed 1.5 d ago"}


def test_what_always_stays():
    rule = RetentionRule(ALL, always=GlobSet.parse(["v*", "!v*-rc"], Glob.parse_tag))
    assert kept(rule, tag("v1"), tag("v1-rc"), tag("x")) == {"v1": "always"}


def test_what_was_pulled_lately():
    rule = RetentionRule(ALL, pulled_within=10 * DAY)
    tags = [tag("a", pulled=9), tag("b", pulled=10), tag("c")]
    assert kept(rule, *tags, recording_since=NOW - 50 * DAY) == {"a": "pulled 9.0 d ago"}


def test_what_is_not_known_to_be_unused_stays():
    rule = RetentionRule(ALL, pulled_within=10 * DAY)
    assert kept(rule, tag("a")) == {"a": "pulls not recorded yet"}
    assert kept(rule, tag("a"), recording_since=NOW - 4 * DAY) == {"a": "pulls recorded for 4.0 d"}
    assert kept(RetentionRule(ALL, newest=0), tag("a", None)) == {"a": "push time unknown"}


def test_one_reason_is_enough():
    rule = RetentionRule(ALL, 1, 2 * DAY, 10 * DAY, GlobSet.parse(["z"], Glob.parse_tag))
    tags = [tag("a", 0.5), tag("b", 1), tag("c", 5, pulled=1), tag("d", 5), tag("z", 5)]
    assert list(kept(rule, *tags, recording_since=0.0)) == ["a", "b", "c", "z"]


@pytest.fixture(params=WORLDS.values(), ids=WORLDS.keys())
def world(request):
    world = request.param()
    world.clock.advance(NOW)
    return world


def retention(world, *rules, **more):
    return TagRetention(
        Registry(world.driver, world.clock),
        Inventory(world.driver),
        PullTimes(world.driver),
        rules,
        **more,
    )


def in_days(world, *names, name="a/b"):
    """Push a tag a day, and let a day pass after the last."""
    for index, tag_name in enumerate(names):
        world.image(tag_name, name, annotations={"n": str(index)})
        world.clock.advance(DAY)


def test_a_run(world):
    in_days(world, "one", "two", "three", "stable")
    in_days(world, "one", "two", name="c")
    in_days(world, "one", name="other")
    decisions = []
    rules = [
        RetentionRule(TagSelector.parse(["a/*"], ["stable"]), newest=1),
        RetentionRule(TagSelector.parse(["a/*", "c"], ["*"]), newest=1),
    ]
    dry = done(retention(world, *rules, dry_run=True, on_decision=decisions.append).run())
    assert dry == RetentionResult(2, 6, 3, 3, 0)
    assert [(each.repository, each.tag.name) for each in decisions if not each.kept] == [
        ("a/b", "one"),
        ("a/b", "two"),
        ("c", "one"),
    ]
    assert world.tags() == ["one", "stable", "three", "two"]
    assert done(retention(world, *rules).run()) == dry
    assert (world.tags(), world.tags("c"), world.tags("other")) == (
        ["stable", "three"],
        ["two"],
        ["one"],
    )
    assert done(retention(world, *rules).run()) == RetentionResult(2, 3, 3, 0, 0)
    world.check()


def test_immutable_tags_stay(world):
    in_days(world, "v1", "v2")
    immutable = [TagSelector.parse(["**"], ["v1"])]
    made = retention(world, RetentionRule(ALL, pushed_within=1), immutable=immutable)
    assert done(made.run()) == RetentionResult(1, 1, 0, 1, 0)
    assert world.tags() == ["v1"]


def test_a_tag_that_is_pushed_meanwhile_stays(world):
    in_days(world, "one", "two")

    def again(decision):
        if decision.tag.name == "one":
            world.image("one")

    made = retention(world, RetentionRule(ALL, newest=1), on_decision=again)
    assert done(made.run()) == RetentionResult(1, 2, 1, 0, 0)
    assert world.tags() == ["one", "two"]


def test_a_repository_that_can_not_be_read_does_not_keep_the_rest(world):
    for name in ("a/b", "c"):
        in_days(world, "one", "two", name=name)
    broken = layout.tag_current("a/b", "one")

    def breaks(_number, action, path):
        if action == "stat" and path == broken:
            raise StorageError(path, "it broke")

    world.driver.before = breaks
    made = done(retention(world, RetentionRule(ALL, newest=1)).run())
    assert (made.failed, made.expired) == (1, 1)
    assert world.tags("c") == ["two"]


# Pulls.


@pytest.fixture
def pending_pulls():
    return set()


@pytest.fixture
def served(world, pending_pulls):
    """The same store behind a registry that notes pulls."""
    return Registry(world.driver, world.clock, pending_pulls=pending_pulls)


@pytest.fixture
def recorder(world, pending_pulls):
    return PullRecorder(pending_pulls, PullTimes(world.driver), world.clock)


def pull(served, reference, name="a/b"):
    done(served.repository(name).manifests.get(reference))


def test_pulls_keep_tags(world, served, pending_pulls, recorder):
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
        # What was gathered is remembered when the files of the processes are gone.
        world.clock.advance(2 * 3600)
    assert world.paths("twisted-registry/pulls/batches") == []
    done(retention(world, rule).run())
    assert world.tags() == ["by-digest", "by-tag"]
    world.clock.pump([DAY] * 11)
    done(retention(world, rule).run())
    assert world.tags() == []


def test_several_processes_record_pulls(world):
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
    # Nothing is known to be unused for as long as that.
    assert done(retention(world, rule).run()).expired == 0
    world.clock.pump([DAY] * 6)
    assert done(retention(world, rule).run()).expired == 0
    world.clock.pump([DAY])
    assert done(retention(world, rule).run()).expired == 1
    assert world.tags() == ["both", "one", "two"]
    for recorder in recorders:
        recorder.stopService()


def test_a_pull_that_fails_is_none(world, served, pending_pulls):
    with pytest.raises(Exception, match="MANIFEST_UNKNOWN"):
        pull(served, "nothing")
    assert pending_pulls == set()


def test_what_is_left_is_recorded_at_the_end(world, served, pending_pulls, recorder):
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


def test_a_store_that_breaks_loses_no_pull(world, pending_pulls, recorder):
    def breaks(_number, action, path):
        if action == "put":
            raise StorageError(path, "it broke")

    recorder.startService()
    pending_pulls.add(("a", "tag"))
    events = []
    globalLogPublisher.addObserver(events.append)
    try:
        world.driver.before = breaks
        world.clock.advance(FLUSH_INTERVAL_S)
        assert pending_pulls == {("a", "tag")}
        assert any("log_failure" in event for event in events)
        world.driver.before = lambda *_: None
        world.clock.advance(FLUSH_INTERVAL_S)
    finally:
        globalLogPublisher.removeObserver(events.append)
    assert pending_pulls == set()


def test_the_recording_begins_anew_after_a_long_gap(world, recorder):
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


def test_many_pulls_and_many_files(world, monkeypatch):
    monkeypatch.setattr("twisted_registry.maintenance.pull_times._MAX_BATCH_PULLS", 7)
    monkeypatch.setattr("twisted_registry.maintenance.pull_times._BATCHES_PER_PAGE", 3)
    times = PullTimes(world.driver)
    done(times.record_pulls({(f"r{number % 5}", f"t{number}") for number in range(100)}))
    assert len(world.paths("twisted-registry/pulls/batches")) == 15
    done(times.merge_batches(0.0))
    assert sum(len(done(times.read_times(f"r{number}"))) for number in range(5)) == 100
    done(times.merge_batches(world.clock.seconds() + 1))
    assert [done(times.read_times(f"r{number}")) for number in range(5)] == [{}] * 5


def test_torn_files_count_for_nothing(world):
    world.write(layout.pull_batch("torn"), b"\xff\n\ntag\nsha256:00 a\n")
    world.write(layout.pull_times("a"), b"x y\n12 tag\n\n")
    times = PullTimes(world.driver)
    assert done(times.read_times("a")) == {"tag": 12.0}
    done(times.merge_batches(0.0))
    assert set(done(times.read_times("a"))) == {"tag", "sha256:00"}
    assert result_of(world.driver.stat(layout.pull_times("a"))).size
