"""The statistics of a store: bytes alone and shared, times, growth, totals."""

from __future__ import annotations

from contextlib import closing

import pytest

from tests.repository.trash_kit import WORLDS, KeptStore
from tests.repository.worlds import World, done, result_of
from tests.support.inline_thread import InlineThread
from twisted_registry.gc.reference_db import TEMPORARY, ReferenceDatabase
from twisted_registry.maintenance.pull_times import PullTimes
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.patterns import GlobSet
from twisted_registry.repository import layout
from twisted_registry.repository.inventory import Inventory
from twisted_registry.statistics.store import (
    FileTotal,
    SortKey,
    StatisticsObserver,
    StoreStatistics,
)
from twisted_registry.testing import build_image, build_index

DAY = 86_400.0
BASE = {"/base": "b" * 5000}


class RecordingObserver(StatisticsObserver):
    def __init__(self):
        self.blobs, self.names = [], []

    def blobs_counted(self, blobs):
        self.blobs.append(blobs.count)

    def repository_started(self, name):
        self.names.append(name)


@pytest.fixture(params=WORLDS.values(), ids=WORLDS.keys())
def store(request):
    with closing(KeptStore(request.param())) as store:
        yield store


@pytest.fixture
def world(store):
    return store.world


def push(world, name, image, tag=None):
    """Push an image or index with everything that it needs."""
    for child in getattr(image, "images", ()):
        push(world, name, child)
    for blob in getattr(image, "blobs", ()):
        if not world.exists(layout.layer_link(name, Digest.parse(blob.digest))):
            world.blob(blob.read(), name)
    return world.put(image.manifest.read(), image.media_type, tag, name)


def size_of(*images):
    """The bytes of images, each blob once."""
    blobs = {}
    for image in images:
        blobs |= {blob.digest: blob.size for blob in (image.manifest, *image.blobs)}
    return sum(blobs.values())


def gather(world, *, sort=SortKey.NAME, top=None, names=None, observer=None):
    """Return the totals, and the repositories by name, in order."""
    statistics = StoreStatistics(
        Inventory(world.driver),
        ReferenceDatabase(TEMPORARY, InlineThread()),
        PullTimes(world.driver),
        world.clock.seconds,
        names,
        observer or StatisticsObserver(),
    )

    async def run():
        totals = await statistics.run()
        pages = [page async for page in statistics.list_repositories(sort, top)]
        return totals, {item.name: item for page in pages for item in page}

    try:
        return done(run())
    finally:
        result_of(statistics.close())


def layered(number):
    """An image with a layer that others have, and one that none has."""
    return build_image({f"/{number}": str(number) * 3000}, [BASE])


def test_bytes_are_divided_into_unique_and_shared(world):
    one, two, three = map(layered, (1, 2, 3))
    push(world, "a", one, "v1")
    push(world, "a", one, "latest")
    push(world, "a", two)
    push(world, "b/c", three, "v1")
    totals, found = gather(world)
    assert list(found) == ["a", "b/c"]
    assert found["a"].logical_bytes == size_of(one, two)
    assert found["b/c"].logical_bytes == size_of(three)
    base = three.layers[0]
    assert found["b/c"].unique_bytes == size_of(three) - base.size
    assert {item.shared_bytes for item in found.values()} == {base.size}
    assert (found["a"].tags, found["a"].manifests) == (2, 2)
    assert (totals.repositories, totals.tags, totals.manifests) == (2, 3, 3)
    assert totals.blobs.bytes == size_of(one, two, three)
    assert totals.unreferenced == FileTotal()


def test_an_index_uses_what_its_children_refer_to(world):
    children = [build_image({"/a": text}, platform=f"linux/{text}") for text in ("x", "y")]
    index = build_index(children)
    push(world, "a", index, "v1")
    _, found = gather(world)
    assert found["a"].logical_bytes == size_of(*children) + index.manifest.size
    assert (found["a"].tags, found["a"].manifests) == (1, 3)


def test_nothing_is_written(store, world):
    push(world, "a", layered(1), "v1")
    done(world.repo("a").uploads.start())
    before = world.paths()
    gather(world)
    assert world.paths() == before


def test_growth_is_what_was_stored_in_the_period(store, world):
    old, young = layered(1), layered(2)
    push(world, "a", old, "old")
    store.age(10 * DAY)
    push(world, "a", young, "young")
    store.age(2 * DAY)
    totals, found = gather(world)
    new = size_of(old, young) - size_of(old)
    assert [(each.days, each.bytes) for each in totals.growth] == [
        (1, 0), (7, new), (30, size_of(old, young)),
    ]  # fmt: skip
    assert [(each.bytes, each.manifests) for each in found["a"].growth] == [
        (0, 0), (new, 1), (size_of(old, young), 2),
    ]  # fmt: skip


def test_times_of_the_last_push_and_the_last_pull(store, world):
    began = world.clock.seconds()
    push(world, "a", layered(1), "v1")
    push(world, "b", layered(2), "v1")
    times = PullTimes(world.driver)
    _, found = gather(world)
    assert found["a"].last_pull is None
    assert found["a"].last_push == pytest.approx(began, abs=1)
    done(times.mark_recording())
    store.age(DAY)
    done(times.record_pulls({("a", "v1")}))
    done(times.merge_batches(0))
    store.age(DAY)
    done(times.record_pulls({("a", "latest"), ("b", "v1")}))
    totals, found = gather(world)
    assert totals.pulls_recorded_since == pytest.approx(began, abs=1)
    assert found["a"].last_pull == found["b"].last_pull == pytest.approx(began + 2 * DAY, abs=1)
    push(world, "a", layered(1), "v2")
    _, found = gather(world)
    assert found["a"].last_push == pytest.approx(began + 2 * DAY, abs=1)
    assert found["b"].last_push == pytest.approx(began, abs=1)


def test_content_that_no_manifest_refers_to_is_counted_apart(store, world):
    image = layered(1)
    push(world, "a", image, "v1")
    world.blob(b"not part of an image", "a")
    done(world.repo("only/uploads").uploads.start())
    totals, found = gather(world)
    assert list(found) == ["a"]
    assert totals.unreferenced == FileTotal(1, 20)
    assert totals.uploads.count == 1
    history = totals.trash
    store.age()
    store.collect()
    totals, _ = gather(world)
    assert totals.unreferenced == FileTotal()
    assert totals.trash.bytes >= history.bytes + 20
    assert totals.bytes == size_of(image) + totals.trash.bytes + totals.uploads.bytes


def test_a_repository_with_a_damaged_manifest_is_marked(world):
    image = layered(1)
    world.write(layout.blob_data(push(world, "a", image)), b"{}")
    push(world, "b", layered(2))
    _, found = gather(world)
    assert {name: item.is_complete for name, item in found.items()} == {"a": False, "b": True}


def test_a_link_that_a_crash_emptied_is_no_tag_and_no_manifest(world):
    push(world, "a", layered(1), "v1")
    world.write(layout.tag_current_link("a", "v2"), b"")
    world.write(layout.revision_link("a", Digest.of(b"lost")), b"")
    _, found = gather(world)
    assert (found["a"].tags, found["a"].manifests) == (1, 1)


def test_the_walk_reports_its_progress(world):
    push(world, "a", layered(1), "v1")
    push(world, "b", layered(2), "v1")
    observer = RecordingObserver()
    gather(world, observer=observer)
    assert (observer.names, observer.blobs[-1]) == (["a", "b"], 7)


class TestLists:
    """Order, limits and patterns; they do not depend on the driver."""

    @pytest.fixture
    def world(self):
        with closing(KeptStore(World())) as store:
            push(store.world, "small", layered(1), "v1")
            store.age(DAY)
            push(store.world, "large", layered(2), "v1")
            push(store.world, "large", layered(3), "v2")
            store.age(DAY)
            push(store.world, "latest", layered(1), "v1")
            push(store.world, "latest", build_image({"/x": "x"}))
            times = PullTimes(store.world.driver)
            done(times.mark_recording())
            done(times.record_pulls({("small", "v1")}))
            yield store.world

    @pytest.mark.parametrize(
        ("sort", "first"),
        [
            (SortKey.NAME, "large"),
            (SortKey.LOGICAL, "large"),
            (SortKey.UNIQUE, "large"),
            (SortKey.SHARED, "latest"),
            (SortKey.TAGS, "large"),
            (SortKey.MANIFESTS, "large"),
            (SortKey.PUSHED, "latest"),
            (SortKey.PULLED, "small"),
            (SortKey.GROWTH, "large"),
        ],
    )
    def test_they_are_sorted(self, world, sort, first):
        _, found = gather(world, sort=sort)
        assert (len(found), next(iter(found))) == (3, first)

    def test_some_are_listed_and_all_are_counted(self, world):
        totals, found = gather(world, sort=SortKey.LOGICAL, top=1)
        assert (list(found), totals.repositories) == (["large"], 3)
        shared = found["large"].shared_bytes
        totals, found = gather(world, names=GlobSet.parse(["l*", "!latest"]))
        assert (list(found), totals.repositories) == (["large"], 3)
        assert found["large"].shared_bytes == shared > 0

    def test_many_are_listed_in_pages(self):
        world = World()
        image = build_image({"/x": "x"})
        names = {f"r{number:04}" for number in range(501)}
        for name in names:
            push(world, name, image)
        _, found = gather(world)
        assert found.keys() == names
        assert len(gather(world, top=500)[1]) == 500
