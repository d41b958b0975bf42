from __future__ import annotations

import gc

import pytest

from twisted_registry.app.gc_freeze import freeze_imports


@pytest.fixture(autouse=True)
def _as_before():
    yield
    gc.unfreeze()
    gc.enable()


def test_nothing_is_searched_in_the_block_and_what_it_made_never():
    before = gc.get_freeze_count()
    with freeze_imports():
        assert not gc.isenabled()
        made = [[] for _ in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= before + len(made)


def test_an_import_that_fails_leaves_the_search_on():
    with pytest.raises(ImportError), freeze_imports():
        raise ImportError
    assert gc.isenabled()


def test_whoever_has_switched_the_search_off_keeps_it_off():
    gc.disable()
    with freeze_imports():
        pass
    assert not gc.isenabled()
