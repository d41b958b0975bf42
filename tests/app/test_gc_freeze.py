from __future__ import annotations

import gc

import pytest

from twisted_registry.app.gc_freeze import freeze_imports


@pytest.fixture(autouse=True)
def _restore_gc():
    yield
    gc.unfreeze()
    gc.enable()


def test_collection_is_off_in_the_block_and_its_objects_are_frozen():
    before = gc.get_freeze_count()
    with freeze_imports():
        assert not gc.isenabled()
        made = [[] for _ in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= before + len(made)


def test_a_failed_import_enables_collection_again():
    with pytest.raises(ImportError), freeze_imports():
        raise ImportError
    assert gc.isenabled()


def test_collection_that_was_disabled_stays_disabled():
    gc.disable()
    with freeze_imports():
        pass
    assert not gc.isenabled()
