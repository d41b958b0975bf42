"""Decisions of retention rules, and the removal of tags that no rule keeps."""

from __future__ import annotations

import pytest

from tests.repository.trash_kit import WORLDS
from tests.repository.worlds import done
from twisted_registry.maintenance.pull_times import (
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
    """Return a tag that was pushed, and perhaps pulled, that many days ago."""
    return TagTimes(
        name,
        DIGEST,
        None if pushed is None else NOW - pushed * DAY,
        None if pulled is None else NOW - pulled * DAY,
    )


def kept(rule, *tags, recording_since=None):
    """Return the tags that are kept, with the reason."""
    decisions = decide(rule, "a", tags, NOW, recording_since)
    assert [decision.tag for decision in decisions] == sorted(tags, key=lambda each: each.name)
    return {decision.tag.name: decision.kept for decision in decisions if decision.kept}


def test_newest_tags_are_kept():
    tags = [tag("a", 3), tag("b", 1), tag("c", 2), tag("d", 2)]
    assert kept(RetentionRule(ALL, newest=2), *tags) == {"b": "newest 2", "c": "newest 2"}
    assert len(kept(RetentionRule(ALL, newest=9), *tags)) == 4


def test_recently_pushed_tags_are_kept():
    rule = RetentionRule(ALL, pushed_within=2 * DAY)
    assert kept(rule, tag("a", 1.5), tag("b", 2), tag("c", 3)) == {"a": "pushed 1.5 d ago"}


def test_tags_matched_by_always_are_kept():
    rule = RetentionRule(ALL, always=GlobSet.parse(["v*", "!v*-rc"], Glob.parse_tag))
    assert kept(rule, tag("v1"), tag("v1-rc"), tag("x")) == {"v1": "always"}


def test_recently_pulled_tags_are_kept():
    rule = RetentionRule(ALL, pulled_within=10 * DAY)
    tags = [tag("a", pulled=9), tag("b", pulled=10), tag("c")]
    assert kept(rule, *tags, recording_since=NOW - 50 * DAY) == {"a": "pulled 9.0 d ago"}


def test_tags_with_unknown_times_are_kept():
    rule = RetentionRule(ALL, pulled_within=10 * DAY)
    assert kept(rule, tag("a")) == {"a": "pulls not recorded yet"}
    assert kept(rule, tag("a"), recording_since=NOW - 4 * DAY) == {"a": "pulls recorded for 4.0 d"}
    assert kept(RetentionRule(ALL, newest=0), tag("a", None)) == {"a": "push time unknown"}


def test_one_of_several_reasons_keeps_a_tag():
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
    """Push one tag per day; a day passes after the last."""
    for index, tag_name in enumerate(names):
        world.image(tag_name, name, annotations={"n": str(index)})
        world.clock.advance(DAY)


def test_run_applies_the_first_rule_that_selects_a_tag(world):
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


def test_immutable_tags_are_kept(world):
    in_days(world, "v1", "v2")
    immutable = [TagSelector.parse(["**"], ["v1"])]
    made = retention(world, RetentionRule(ALL, pushed_within=1), immutable=immutable)
    assert done(made.run()) == RetentionResult(1, 1, 0, 1, 0)
    assert world.tags() == ["v1"]


def test_tag_pushed_during_the_run_is_kept(world):
    in_days(world, "one", "two")

    def again(decision):
        if decision.tag.name == "one":
            world.image("one")

    made = retention(world, RetentionRule(ALL, newest=1), on_decision=again)
    assert done(made.run()) == RetentionResult(1, 2, 1, 0, 0)
    assert world.tags() == ["one", "two"]


def test_unreadable_repository_is_skipped(world):
    for name in ("a/b", "c"):
        in_days(world, "one", "two", name=name)
    broken = layout.tag_current_link("a/b", "one")

    def breaks(_number, action, path):
        if action == "stat" and path == broken:
            raise StorageError(path, "it broke")

    world.driver.before = breaks
    made = done(retention(world, RetentionRule(ALL, newest=1)).run())
    assert (made.failed, made.expired) == (1, 1)
    assert world.tags("c") == ["two"]
