"""Cached pulls of blobs. :mod:`tests.repository.test_cache` covers blobs that are lost."""

import pytest

from tests.repository.worlds import PeekWorld, done
from twisted_registry.repository import layout
from twisted_registry.repository.cache import MetadataCache


@pytest.fixture
def world():
    return PeekWorld()


def pull(world, digest, name="a/b"):
    reader = done(world.repo(name).blobs.open_whole(digest))
    reader.close()
    return reader.size


def test_a_repeated_pull_only_validates_link_and_blob(world):
    digest = world.blob(b"content")
    pull(world, digest)
    calls, peeks = len(world.driver.calls), len(world.driver.peeks)
    assert pull(world, digest) == 7
    assert len(world.driver.calls) == calls
    assert world.driver.peeks[peeks:] == [
        layout.layer_link("a/b", digest),
        layout.blob_data(digest),
    ]


def test_a_repeated_pull_of_a_condemned_blob_succeeds_and_tells_the_gate(world):
    digest = world.blob(b"content")
    pull(world, digest)
    world.gate.condemned.add(digest)
    asked = len(world.gate.asked)
    assert pull(world, digest) == 7
    assert world.gate.asked[asked:] == [("a/b", digest)]


def test_the_least_recently_pulled_blob_is_evicted(world):
    cache = MetadataCache(world.driver, max_pulls=2)
    first, second, third = [world.blob(content) for content in (b"1", b"2", b"3")]

    def remember(digest):
        done(cache.read_link(layout.layer_link("a/b", digest)))
        cache.remember_blob_pull("a/b", digest)

    remember(first)
    remember(second)
    cache.reopen_blob("a/b", first).close()
    remember(third)
    assert cache.reopen_blob("a/b", second) is None
    for digest in (first, third):
        cache.reopen_blob("a/b", digest).close()


def test_a_pull_is_not_cached_without_its_link(world):
    cache = MetadataCache(world.driver)
    digest = world.blob(b"content")
    cache.remember_blob_pull("a/b", digest)
    assert cache.reopen_blob("a/b", digest) is None


def test_a_pull_is_not_cached_if_the_driver_does_not_keep_the_blob_open(world, monkeypatch):
    cache = MetadataCache(world.driver)
    digest = world.blob(b"content")
    done(cache.read_link(layout.layer_link("a/b", digest)))
    monkeypatch.setattr(cache.lookup, "open_cached", lambda *_: None)
    cache.remember_blob_pull("a/b", digest)
    monkeypatch.undo()
    assert cache.reopen_blob("a/b", digest) is None


def test_a_blob_that_is_no_longer_open_is_opened_again(world, monkeypatch):
    digest = world.blob(b"content")
    pull(world, digest)
    lookup = world.registry.repository("a/b").store.cache.lookup
    monkeypatch.setattr(lookup, "open_cached", lambda *_: None)
    assert pull(world, digest) == 7
    monkeypatch.undo()
    assert pull(world, digest) == 7
