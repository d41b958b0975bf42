"""Clients push, overwrite, mount and delete while the collector runs continuously.

The race takes 40 seconds; ``nightly`` races for 20 minutes. ``RACE_SECONDS`` sets another duration.
The expected counts grow with it.
"""

from __future__ import annotations

import os
from uuid import uuid4

import pytest

from tests.integration.racing import Broken, Race
from tests.integration.servers import Bucket

pytestmark = pytest.mark.integration

#: Least counts of a race of 20 minutes: acknowledged pushes, blobs swept and pushed again.
PUSHES, SWEPT = 500, 1000
LONG_S = 20 * 60.0
#: Seconds for which a push may wait for a sweep.
MAX_WAIT_S = 5.0


def raced(race, length):
    """Race, check all acknowledged content, collect, and check it again."""
    try:
        race.run(length)
        race.stop()
        race.start()
        race.check_all()
    finally:
        race.stop()
    # The collector waits until the records and lists of killed processes expire.
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
    blobs = race.blobs()
    race.start()
    race.delete_all()
    race.stop()
    race.collect()
    counts, longest_s = race.ledger.counts, race.ledger.longest_s
    print(dict(counts), {kind: round(seconds, 2) for kind, seconds in sorted(longest_s.items())})
    assert blobs == needed, "a final collection leaves exactly what is referenced"
    assert race.blobs() == set(), "nothing is left when everything is deleted"
    failed = [line for line in race.log_lines() if "failed" in line or "Traceback" in line]
    assert failed == [], "no run of a task fails"
    assert longest_s
    assert max(longest_s.values()) <= MAX_WAIT_S
    pushes = sum(count for what, count in counts.items() if what.startswith("manifest"))
    assert counts["manifest 201"] >= PUSHES * length / LONG_S
    assert counts["swept and pushed again"] >= SWEPT * length / LONG_S
    assert counts["manifest 201"] >= 0.95 * pushes


def seconds(usual):
    """Return the duration of the race."""
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
    # The trash expires continuously; a push restores what it needs from the trash.
    raced(race(workers=2, trash="5s"), seconds(40.0))


@pytest.mark.nightly
@pytest.mark.timeout(2 * LONG_S)
@pytest.mark.parametrize(("workers", "trash"), [(1, "off"), (2, "off"), (2, "10s")])
def test_acknowledged_pushes_survive_a_long_race(race, workers, trash):
    raced(race(workers=workers, trash=trash), seconds(LONG_S))


@pytest.mark.nightly
@pytest.mark.timeout(2 * LONG_S)
def test_acknowledged_pushes_survive_with_two_instances_over_one_directory(race):
    raced(race(instances=2, trash="10s"), seconds(LONG_S))


@pytest.mark.nightly
@pytest.mark.timeout(2 * LONG_S)
def test_acknowledged_pushes_survive_with_two_instances_over_one_bucket(race, object_stores):
    bucket = Bucket(object_stores.get("ceph"), f"race-{uuid4().hex}")
    raced(race(instances=2, bucket=bucket), seconds(LONG_S))


@pytest.mark.nightly
@pytest.mark.timeout(300)
def test_without_the_gate_images_break(race):
    """The race really happens: only the gate keeps images complete."""
    with pytest.raises(Broken):
        raced(race(gate=False, kills=False, grace="0s"), 120.0)
