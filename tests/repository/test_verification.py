"""What comes from afar is compared with its digest before its last bytes are passed on."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import IConsumer
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.repository.watched_driver import Pauses
from tests.repository.worlds import World, done, result_of
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.errors import RegistryError
from twisted_registry.repository import layout, verification
from twisted_registry.repository.verification import VerifiedReader
from twisted_registry.storage.interfaces import ILocalFileReader, IReader, StorageError


@implementer(IConsumer)
class Client:
    def __init__(self, pause_after=None):
        self.content = b""
        self.pause_after = pause_after
        self.producer = None

    def registerProducer(self, producer, streaming):
        assert streaming
        self.producer = producer

    def unregisterProducer(self):
        self.producer = None

    def write(self, data):
        self.content += data
        if self.pause_after is not None and len(self.content) >= self.pause_after:
            self.producer.pauseProducing()


LARGE = bytes(range(256)) * 16_000


@pytest.fixture
def world():
    return World()


@pytest.mark.parametrize("content", [b"", b"small", LARGE])
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_what_is_right_passes(world, content, algorithm):
    digest = world.blob(content, algorithm=algorithm)
    reader, client = done(world.repo().blobs.open_whole(digest)), Client()
    assert verifyObject(IReader, reader)
    assert reader.size == len(content)
    assert not ILocalFileReader.providedBy(reader)
    result_of(reader.deliver(client))
    assert client.content == content
    assert client.producer is None
    shown = []
    result_of(done(world.repo().blobs.open_whole(digest)).feed(shown.append))
    assert b"".join(shown) == content


@pytest.mark.parametrize("content", [b"small", LARGE])
def test_what_is_spoiled_is_not_passed_on_to_its_end(world, content):
    digest = world.blob(content)
    path = f"docker/registry/v2/blobs/sha256/{digest.hex[:2]}/{digest.hex}/data"
    world.write(path, content[:-1] + bytes([content[-1] ^ 1]))
    reader, client = done(world.repo().blobs.open_whole(digest)), Client()
    with pytest.raises(StorageError, match="not the bytes of the digest"):
        result_of(reader.deliver(client))
    assert len(client.content) < len(content)
    assert content.startswith(client.content)
    assert client.producer is None


@pytest.mark.parametrize("spoiled", [LARGE[:-1] + b"!", b"!" + LARGE[1:], LARGE[:-1], LARGE + b"!"])
def test_what_passed_once_is_told_without_the_digest(world, monkeypatch, spoiled):
    digest = world.blob(LARGE)
    blobs, client = world.repo().blobs, Client()
    result_of(done(blobs.open_whole(digest)).deliver(client))
    monkeypatch.setattr(verification, "hasher", lambda _: pytest.fail("hashed again"))
    client = Client()
    result_of(done(blobs.open_whole(digest)).deliver(client))
    assert client.content == LARGE
    path = f"docker/registry/v2/blobs/sha256/{digest.hex[:2]}/{digest.hex}/data"
    world.write(path, spoiled)
    client = Client()
    with pytest.raises(StorageError, match="not the bytes of the digest"):
        result_of(done(blobs.open_whole(digest)).deliver(client))
    assert len(client.content) < len(spoiled)
    world.write(path, LARGE)
    client = Client()
    result_of(done(blobs.open_whole(digest)).deliver(client))
    assert client.content == LARGE


def test_what_was_spoiled_at_first_is_not_taken_for_right(world):
    digest = world.blob(LARGE)
    path = f"docker/registry/v2/blobs/sha256/{digest.hex[:2]}/{digest.hex}/data"
    world.write(path, b"!" + LARGE[1:])
    for _ in range(2):
        with pytest.raises(StorageError, match="not the bytes of the digest"):
            result_of(done(world.repo().blobs.open_whole(digest)).deliver(Client()))


@pytest.fixture
def passed(world, monkeypatch):
    """A blob that passed once, its repository, and the readers that are opened from now on."""
    digest, readers = world.blob(LARGE), []
    result_of(done(world.repo().blobs.open_whole(digest)).deliver(Client()))
    made = verification.VerifiedReader

    def make(*arguments):
        reader = made(*arguments)
        reader.closed = []
        monkeypatch.setattr(reader, "close", lambda: reader.closed.append(True))
        readers.append(reader)
        return reader

    monkeypatch.setattr(verification, "VerifiedReader", make)
    return digest, world.repo().blobs, readers


def test_what_passed_once_is_opened_while_its_link_is_read(world, passed):
    digest, blobs, readers = passed
    world.driver.before = pauses = Pauses("get", "/link")
    opening = Deferred.fromCoroutine(blobs.open_whole(digest))
    assert len(pauses.waiting) == len(readers) == 1
    pauses.release()
    assert result_of(opening) is readers[0]
    assert not readers[0].closed


def test_what_was_opened_is_closed_if_there_is_no_link(world, passed):
    digest, blobs, readers = passed
    world.remove(layout.layer_link("a/b", digest))
    with pytest.raises(RegistryError, match="BLOB_UNKNOWN"):
        done(blobs.open_whole(digest))
    assert readers[0].closed == [True]


def test_what_was_opened_is_closed_if_the_link_can_not_be_read(world, passed):
    digest, blobs, readers = passed
    world.driver.before = lambda _number, action, path: (
        fail(StorageError(path, "broken")) if action == "get" else None
    )
    with pytest.raises(RegistryError, match="UNAVAILABLE"):
        done(blobs.open_whole(digest))
    assert readers[0].closed == [True]


@pytest.mark.parametrize("held", ["get", "open"])
def test_who_leaves_meanwhile_leaves_nothing_open(world, passed, held):
    digest, blobs, readers = passed
    world.driver.before = Pauses(held, "")
    opening = Deferred.fromCoroutine(blobs.open_whole(digest))
    opening.cancel()
    with pytest.raises(CancelledError):
        result_of(opening)
    assert all(reader.closed for reader in readers)
    assert len(readers) == (held == "get")


def test_the_link_alone_does_not_do(world, passed):
    digest, blobs, _ = passed
    world.remove(f"docker/registry/v2/blobs/sha256/{digest.hex[:2]}/{digest.hex}/data")
    with pytest.raises(RegistryError, match="BLOB_UNKNOWN"):
        done(blobs.open_whole(digest))


def test_a_slow_client_is_waited_for(world):
    digest = world.blob(LARGE)
    reader, client = done(world.repo().blobs.open_whole(digest)), Client(pause_after=1)
    delivering = reader.deliver(client)
    assert not delivering.called
    assert 0 < len(client.content) < len(LARGE)
    client.pause_after = None
    client.producer.resumeProducing()
    result_of(delivering)
    assert client.content == LARGE


def test_what_was_read_here_is_not_looked_at_again():
    """A store in this process, or on this machine: it has its own ways to find out."""
    world = World()
    digest = world.blob(b"near")
    world.driver.glances = True
    world.clock.advance(10)
    reader = done(world.repo().blobs.open_whole(digest))
    assert not isinstance(reader, VerifiedReader)
    reader.close()


def test_a_manifest_that_was_spoiled_on_the_way_is_read_again(world):
    digest = world.image("t")
    path = f"docker/registry/v2/blobs/sha256/{digest.hex[:2]}/{digest.hex}/data"
    right, reads = world.read(path), []

    def spoil(_number, action, at):
        if (action, at) == ("get", path):
            reads.append(at)
            world.write(path, b"spoiled" if len(reads) % 2 else right)

    world.driver.before = spoil
    _, manifest = done(world.repo().manifests.get_parsed(digest))
    assert manifest.layers
    assert len(reads) == 2
    world.driver.before = lambda _number, action, at: (
        world.write(path, b"spoiled") if (action, at) == ("get", path) else None
    )
    assert done(world.repo().manifests.get_parsed(digest)) is None


def test_whoever_asks_for_a_blob_that_is_not_there(world):
    with pytest.raises(RegistryError):
        done(world.repo().blobs.open_whole(Digest.of(b"nothing")))
