"""One object that cannot be read, moved or written does not end a check or a scrub."""

from __future__ import annotations

import pytest

from tests.gc.collected_store import drive
from tests.integrity.checked_store import CHILD, CONFIGURATION, CheckedStore, path_of, revision_of
from tests.repository.worlds import World
from twisted_registry.app.integrity import make_scrub
from twisted_registry.repository import layout
from twisted_registry.storage.interfaces import StorageError

#: Damage to repair: a changed blob, and a link without content.
DAMAGE = {path_of(b"child layer"): b"changed", revision_of(CHILD): b""}


def fail_object(store, path):
    """Make all calls for one path fail."""

    def before(_number, _action, called):
        if called == path or (not isinstance(called, str) and path in called):
            raise StorageError(path, "broken")

    store.world.driver.before = before


def damaged():
    store = CheckedStore(World())
    store.plant(DAMAGE)
    return store


PATHS = damaged().world.paths()


@pytest.mark.parametrize("path", [*PATHS, layout.SCRUB, layout.layers_folder("other")])
def test_fsck_repair_survives_each_object_that_fails(path):
    store = damaged()
    fail_object(store, path)
    store.check(repair=True)
    store.world.driver.before = lambda *_: None
    if path not in DAMAGE:
        assert path_of(b"child layer") in store.quarantined()
        assert store.world.read(revision_of(CHILD))


@pytest.mark.parametrize("path", [*PATHS, layout.SCRUB])
def test_scrub_survives_each_object_that_fails(path):
    store = damaged()
    store.world.write(layout.SCRUB, b"")
    fail_object(store, path)
    scrub = make_scrub(CONFIGURATION, store.world.driver, store.world.clock)
    result = drive(store.world, scrub())
    assert result.quarantined == (path not in DAMAGE or path == revision_of(CHILD))
