"""Collections of a damaged store: they continue, and what may be needed is kept."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.gc.collected_store import Store
from tests.repository.trash_kit import WORLDS, KeptStore
from tests.support.inline_thread import InlineThread
from twisted_registry.gc.reference_db import ReferenceDatabase
from twisted_registry.repository import layout
from twisted_registry.storage.interfaces import StorageError


@pytest.fixture(params=WORLDS.values(), ids=WORLDS.keys())
def world(request):
    return request.param()


@pytest.fixture(params=[Store, KeptStore], ids=["for good", "trash"])
def store(request, world):
    with closing(request.param(world)) as store:
        yield store


@pytest.mark.parametrize("damage", ["missing", "changed", "empty", "unreadable"])
def test_repository_with_an_unreadable_manifest_keeps_all_its_blobs(store, damage):
    needed = b"perhaps needed"
    store.world.blob(needed)
    broken = store.world.image("v1")
    store.world.blob(b"garbage", "other")
    store.world.image("v1", "other", artifactType="another/one")
    if damage == "missing":
        store.world.remove(layout.blob_data(broken))
    elif damage != "unreadable":
        store.world.write(layout.blob_data(broken), b"{}" if damage == "changed" else b"")
    else:

        def before(_number, action, path):
            # An unreadable sector.
            if (
                action == "get_many" and layout.blob_data(broken) in path
            ) or path == layout.blob_data(broken):
                raise StorageError("", "I/O error")

        store.world.driver.before = before
    store.age()
    for settings in ({}, {"untagged": True}):
        collected = store.collect(**settings)
        assert collected.troubled == ("a/b",)
        assert store.holds(needed)
    assert not store.holds(b"garbage")


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"?" * 10_000)])
@pytest.mark.parametrize(
    "moment", ["before", "repository_started", "manifest_kept", "eligible", "removed"]
)
def test_loss_of_the_reference_database_keeps_what_is_needed(store, tmp_path, damage, moment):
    """At any moment of a run: needed content is kept, and garbage is removed."""
    path = tmp_path / "references.sqlite"
    store.references = ReferenceDatabase(str(path), InlineThread())
    store.world.blob(b"garbage")
    kept = store.world.image("v1")
    store.age()
    store.collect(dry_run=True)
    store.world.blob(b"more garbage")
    store.age()
    spoilt = []

    def spoil(*_):
        if not spoilt:
            spoilt.append(moment)
            damage(path)

    if moment == "before":
        spoil()
    else:
        setattr(store.observer, moment, spoil)
    assert store.collect().blobs == 2
    assert store.is_whole(kept)
    assert store.collect().blobs == 0
    assert spoilt


def test_changed_value_in_the_reference_database_is_detected(store, tmp_path):
    """One value of a valid database has changed: it is rebuilt, and nothing needed is removed."""
    path = tmp_path / "references.sqlite"
    store.references = ReferenceDatabase(str(path), InlineThread())
    kept = [store.world.image(tag, artifactType=f"one/{tag}") for tag in ("v1", "v2")]
    store.age()
    store.collect()
    store.close()
    before = _references(path)
    layer = max(target for _, target in before)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE reference SET target = 1 WHERE target = ?", (layer,))
    store.references = ReferenceDatabase(str(path), InlineThread())
    assert store.collect().blobs == 0
    assert all(store.is_whole(digest) for digest in kept)
    assert len(_references(path)) == len(before)
    store.world.blob(b"garbage")
    store.age()
    assert store.collect().blobs == 1


def _references(path):
    with closing(sqlite3.connect(path)) as database:
        return database.execute("SELECT manifest, target FROM reference").fetchall()
