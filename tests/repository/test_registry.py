"""Registry: upload secret, repositories and URLs of the store."""

from __future__ import annotations

import pytest
from twisted.internet.defer import succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from tests.repository.watched_driver import Pauses, fails_at
from tests.repository.worlds import ORIGIN, Body, World, begin, done, result_of
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.repository import layout
from twisted_registry.repository.registry import Registry
from twisted_registry.storage.interfaces import IPresigner
from twisted_registry.storage.memory import MemoryDriver


def test_upload_secret_is_created_once_for_a_store(world):
    secret = done(world.registry.upload_secret.load())
    assert len(secret) == 64
    assert done(world.registry.upload_secret.load()) == secret
    world.restart()
    assert done(world.registry.upload_secret.load()) == secret
    assert done(World().registry.upload_secret.load()) != secret


def test_concurrent_creation_gives_one_upload_secret(world):
    pauses = Pauses("create", "")
    world.driver.before = pauses
    waiting = [
        begin(registry.upload_secret.load()) for registry in (world.registry, world.another())
    ]
    pauses.release()
    first, second = map(result_of, waiting)
    assert first == second


@pytest.mark.parametrize("torn", [b"", b"short"])
def test_torn_upload_secret_is_replaced(world, torn):
    world.write(layout.UPLOAD_SECRET, torn)
    secret = done(world.registry.upload_secret.load())
    assert len(secret) == 64
    assert done(world.registry.upload_secret.load()) == secret


def test_upload_secret_of_a_failing_store_is_unavailable(world):
    world.driver.before = fails_at(0)
    with pytest.raises(RegistryError) as caught:
        done(world.registry.upload_secret.load())
    assert caught.value.code is ErrorCode.UNAVAILABLE


def test_registry_needs_only_a_driver_and_a_clock(world):
    driver = MemoryDriver(Clock())
    driver.min_chunk_bytes = 5
    registry = Registry(driver, Clock())
    assert registry.min_chunk_bytes == 5
    assert done(registry.repository("a").uploads.store_blob(Digest.of(b"x"), Body(b"x"))) == 1
    assert world.repo().name == "a/b"
    assert world.repo().blobs.publish_event.origin == ORIGIN


def test_url_of_a_blob_comes_from_the_driver():
    @implementer(IPresigner)
    class Presigning(MemoryDriver):
        def presign(self, path, method, expires, client=""):
            return succeed(f"{method} {path} {expires}")

    world = World(memory=Presigning(Clock()))
    digest = world.blob(b"x")
    url = done(world.repo().blobs.url(digest, "HEAD"))
    assert url == f"HEAD {layout.blob_data(digest)} 1200"
    assert world.listener.brief()[-1] == ("pull", "blob", None)


def test_each_request_has_its_own_repository_object(world):
    assert world.repo() is not world.repo()
