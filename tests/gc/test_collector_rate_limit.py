"""A collector that is told to take its time."""

from __future__ import annotations

import pytest

from tests.gc.collected_store import Store
from tests.repository.worlds import World
from twisted_registry.repository.concurrency import RateLimiter


@pytest.fixture
def store():
    return Store(World())


def seconds(store, rate, **settings):
    """What a run did, and how long it took."""
    began = store.world.clock.seconds()
    collected = store.collect(rate_limiter=RateLimiter(store.world.clock, rate), **settings)
    return collected, store.world.clock.seconds() - began


def test_so_many_are_removed_in_a_second(store):
    for number in range(60):
        store.world.blob(b"garbage %d" % number)
    store.age()
    collected, took = seconds(store, 4)
    assert collected.blobs == 60
    # Two lists of forty at most, so that each is gone long before it is void.
    assert store.told.progress == [(40, 40), (20, 20)]
    assert 60 / 4 - 1 <= took <= 60 / 4 + 3


def test_so_many_manifests_are_read_in_a_second(store):
    for number in range(40):
        store.world.image(f"t{number}", annotations={"n": str(number)})
    store.age()
    collected, took = seconds(store, 4)
    assert collected.marked == 42
    assert 8 <= took <= 11
    # What they refer to is known now.
    assert seconds(store, 4)[1] <= 1


def test_without_a_rate_nothing_waits(store):
    for number in range(60):
        store.world.blob(b"garbage %d" % number)
    store.age()
    assert seconds(store, 0)[1] <= 1


def test_even_one_in_a_long_time_comes_to_an_end(store):
    for number in range(3):
        store.world.blob(b"garbage %d" % number)
    store.age()
    collected, took = seconds(store, 0.1)
    assert collected.blobs == 3
    assert took >= 20
