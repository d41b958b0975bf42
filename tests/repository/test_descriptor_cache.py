"""Caches of blob sizes in this process."""

from __future__ import annotations

import pytest
from zope.interface.verify import verifyObject

from twisted_registry.oci.digest import Digest
from twisted_registry.repository.cache import (
    IDescriptorCache,
    MemoryDescriptorCache,
    NullDescriptorCache,
)

ONE, TWO, THREE = (Digest.of(bytes([number])) for number in range(3))


def size(cache, digest):
    found = []
    cache.size(digest).addCallback(found.append)
    assert found, "it has not fired"
    return found[0]


@pytest.mark.parametrize(
    ("cache", "cached"), [(NullDescriptorCache(), None), (MemoryDescriptorCache(1), 5)]
)
def test_cache_returns_stored_sizes(cache, cached):
    assert verifyObject(IDescriptorCache, cache)
    assert size(cache, ONE) is None
    cache.remember_size(ONE, 5)
    assert size(cache, ONE) == cached
    closed = []
    cache.close().addCallback(closed.append)
    assert closed == [None]


def test_least_recently_used_entry_is_evicted():
    cache = MemoryDescriptorCache(2)
    cache.remember_size(ONE, 1)
    cache.remember_size(TWO, 2)
    assert size(cache, ONE) == 1
    cache.remember_size(THREE, 3)
    assert [size(cache, each) for each in (ONE, TWO, THREE)] == [1, None, 3]


def test_limit_of_zero_keeps_every_entry():
    cache = MemoryDescriptorCache(0)
    digests = [Digest.of(str(number).encode()) for number in range(1000)]
    for digest in digests:
        cache.remember_size(digest, 7)
    assert all(size(cache, digest) == 7 for digest in digests)
