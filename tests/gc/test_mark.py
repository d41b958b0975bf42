"""A second mark finds all that became reachable since the first."""

from __future__ import annotations

from contextlib import closing
from itertools import count
from random import Random

import pytest

from tests.gc.collected_store import Store
from tests.repository.trash_kit import WORLDS
from tests.repository.worlds import OCI_IMAGE, OCI_INDEX, descriptor, done, image, index, result_of
from tests.support.inline_thread import InlineThread
from twisted_registry.gc.mark import MarkPhase
from twisted_registry.gc.reference_db import ReferenceDatabase
from twisted_registry.repository import layout
from twisted_registry.repository.inventory import Inventory

LATER = 4_000_000_000.0


@pytest.fixture(params=WORLDS.values(), ids=WORLDS.keys())
def store(request):
    with closing(Store(request.param())) as store:
        yield store


@pytest.fixture
def mark_phase(store):
    return MarkPhase(Inventory(store.world.driver), store.references, untagged=True)


def unreachable(store, *digests):
    return set(done(_dead(store.references, digests)))


async def _dead(references, digests):
    return await references.unreachable(sorted(digests))


def own_image(store, number, tag=None, name="a/b", **fields):
    """Push an image with its own layer, and return the digests of both."""
    layer = store.world.blob(b"layer %d" % number, name)
    store.world.blob(b"{}", name)
    content = image(layers=[descriptor(b"layer %d" % number)], **fields)
    return store.world.put(content, OCI_IMAGE, tag, name), layer


def test_content_pushed_since_the_mark_is_reachable(store, mark_phase):
    """In an existing repository and in a new one."""
    old, layer = own_image(store, 1, "v1")
    done(mark_phase.mark(LATER))
    assert unreachable(store, old, layer) == set()
    second, other = own_image(store, 2, "v2")
    third, another = own_image(store, 3, "v1", "new/one")
    assert unreachable(store, second, other, third, another) == {second, other, third, another}
    done(mark_phase.remark(LATER, ()))
    assert unreachable(store, old, layer, second, other, third, another) == set()


def test_marked_content_stays_marked(store, mark_phase):
    """Revisions that a list takes out make nothing else garbage in the same round."""
    old, layer = own_image(store, 1, "v1")
    done(mark_phase.mark(LATER))
    store.world.remove(layout.revision_folder("a/b", old))
    done(mark_phase.remark(LATER, ()))
    assert unreachable(store, old, layer) == set()
    done(mark_phase.mark(LATER))
    assert unreachable(store, old, layer) == {old, layer}


def test_candidates_that_are_held_now_are_not_returned(store, mark_phase):
    unreferenced, tagged, child = (own_image(store, number)[0] for number in (1, 2, 3))
    pairs = {("a/b", digest) for digest in (unreferenced, tagged, child)}
    assert set(done(mark_phase.mark(LATER)).unreferenced) == pairs
    own_image(store, 2, "v2")
    size = len(image(layers=[descriptor(b"layer 3")]))
    entry = {"mediaType": OCI_IMAGE, "digest": str(child), "size": size}
    store.world.put(index(entry), OCI_INDEX, "v3")
    assert done(mark_phase.remark(LATER, pairs)) == {("a/b", unreferenced)}
    # Only candidates are returned.
    assert done(mark_phase.remark(LATER, [("a/b", child)])) == set()
    assert done(mark_phase.remark(LATER, [("c/d", unreferenced)])) == set()


def test_repository_with_an_unreadable_manifest_keeps_new_links(store, mark_phase):
    broken, _ = own_image(store, 1, "v1")
    store.world.write(layout.blob_data(broken), b"{}")
    mark_result = done(mark_phase.mark(LATER))
    assert mark_result.troubled == ["a/b"]
    perhaps = store.world.blob(b"perhaps needed")
    done(mark_phase.remark(LATER, ()))
    assert unreachable(store, perhaps) == set()


def test_unchanged_repositories_are_only_listed(store, mark_phase):
    for number in range(3):
        own_image(store, number, f"v{number}", f"name/{number}")
    done(mark_phase.mark(LATER))
    own_image(store, 3, "v3", "name/2")
    seen = []
    store.world.driver.before = lambda _number, action, path: seen.append((action, str(path)))
    done(mark_phase.remark(LATER, ()))
    read = [path for action, path in seen if action in {"get", "get_many"}]
    assert read
    assert not [path for path in read if "name/0" in path or "name/1" in path]
    assert not [path for action, path in seen if "tags" in path]


@pytest.mark.parametrize("seed", range(20))
def test_second_mark_finds_all_that_a_full_mark_finds(seed):
    """Pushes, deletes, moved tags and indexes, in any order."""
    random, numbers = Random(seed), count()
    store = Store(WORLDS["memory"]())
    mark_phase = MarkPhase(Inventory(store.world.driver), store.references, untagged=True)
    everything, manifests = set(), []

    def push():
        name, tag = random.choice(["a/b", "a/c", "d"]), random.choice([None, "v1", "v2"])
        subject = random.choice([*manifests, (None, None, None)])
        fields = {} if subject[1] is None else {"subject": subject[2]}
        number = random.choice([next(numbers), 0])
        digest, layer = own_image(store, number, tag, name, **fields)
        content = result_of(store.world.driver.get(layout.blob_data(digest), 10_000))
        entry = {"mediaType": OCI_IMAGE, "digest": str(digest), "size": len(content)}
        manifests.append((name, digest, entry))
        everything.update((digest, layer))

    def push_index():
        if manifests:
            name, digest, entry = random.choice(manifests)
            if layout.revision_link(name, digest) in store.world.paths():
                everything.add(store.world.put(index(entry), OCI_INDEX, "many", name))

    def delete():
        name, digest, _ = random.choice([*manifests, ("", None, None)])
        if digest is not None and layout.revision_link(name, digest) in store.world.paths():
            store.world.remove(layout.revision_folder(name, digest))

    def change():
        for _ in range(random.randrange(1, 6)):
            random.choice([push, push, push_index, delete])()

    change()
    candidates = done(mark_phase.mark(LATER)).unreferenced
    for _ in range(4):
        change()
        still = done(mark_phase.remark(LATER, candidates))
        references = ReferenceDatabase(":memory:", InlineThread())
        whole = MarkPhase(Inventory(store.world.driver), references, untagged=True)
        unreferenced = set(done(whole.mark(LATER)).unreferenced)
        alive = everything - set(done(_dead(references, everything)))
        result_of(references.close())
        assert alive.isdisjoint(unreachable(store, *alive))
        assert still == unreferenced.intersection(candidates)
    store.close()
