"""Clients push, overwrite, mount and delete while the collector runs without pause.

A minute or so here; ``nightly`` runs twenty. What is asked of the numbers grows with the time.
"""

from __future__ import annotations

import os
from uuid import uuid4

import pytest

from tests.integration.racing import Broken, Race
from tests.integration.servers import Bucket

pytestmark = pytest.mark.integration

#: Of a run of 20 minutes: pushes that were answered 201, blobs swept and pushed again.
PUSHES, SWEPT = 500, 1000
LONG = 20 * 60.0


def raced(race, length):
    """Race, look after every promise, collect, and look again."""
    try:
        race.run(length)
        race.stop()
        race.start()
        race.check_all()
    finally:
        race.stop()
    # Those that were killed are waited for until their records and lists are void.
    race.collect()
    race.start()
    race.check_all()
    needed = set()
    for name in race.remote.catalog():
        for tag in race.remote.tags(name):
            made = race.remote.manifest(name, tag)
            document = made.json()
            needed |= {made.headers["docker-content-digest"], document["config"]["digest"]}
            needed |= {layer["digest"] for layer in document["layers"]}
    race.stop()
    counts = race.ledger.counts
    print(dict(counts))
    assert race.blobs() == needed, "a final collection leaves exactly what is referenced"
    pushes = sum(count for what, count in counts.items() if what.startswith("manifest"))
    assert counts["manifest 201"] >= PUSHES * length / LONG
    assert counts["swept and pushed again"] >= SWEPT * length / LONG
    assert counts["manifest 201"] >= 0.95 * pushes


def seconds(usual):
    """How long to race."""
    return float(os.environ.get("RACE_SECONDS", usual))


@pytest.fixture
def race(tmp_path):
    races = []

    def make(**settings):
        races.append(Race(tmp_path, **settings))
        return races[-1]

    yield make
    for each in races:
        each.stop()


@pytest.mark.timeout(300)
def test_acknowledged_pushes_survive_collections(race):
    # With a trash that is emptied all the time; what a push needs comes back from it.
    raced(race(workers=2, trash="5s"), seconds(60.0))


@pytest.mark.nightly
@pytest.mark.timeout(2 * LONG)
@pytest.mark.parametrize(("workers", "trash"), [(1, "off"), (2, "off"), (2, "10s")])
def test_acknowledged_pushes_survive_a_long_race(race, workers, trash):
    raced(race(workers=workers, trash=trash), seconds(LONG))


@pytest.mark.nightly
@pytest.mark.timeout(2 * LONG)
def test_acknowledged_pushes_survive_with_two_instances_over_one_bucket(race, object_stores):
    bucket = Bucket(object_stores.get("ceph"), f"race-{uuid4().hex}")
    raced(race(instances=2, bucket=bucket), seconds(LONG))


@pytest.mark.nightly
@pytest.mark.timeout(300)
def test_without_the_gate_images_break(race):
    """The race is one: what keeps images whole is the gate."""
    with pytest.raises(Broken):
        raced(race(gate=False, kills=False, grace="0s"), 120.0)
