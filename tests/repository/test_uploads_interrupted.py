"""Uploads: restarts and disconnects."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError

from tests.repository.upload_kit import (
    BOTH,
    A,
    B,
    append,
    find,
    finish,
    is_known,
    reads,
    size_of,
    start,
)
from tests.repository.watched_driver import Pauses
from tests.repository.worlds import Body, ClientGone, SlowBody, begin, done, result_of
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.repository import layout
from twisted_registry.repository.uploads import Checkpoint

# Restarts.


def test_small_upload_is_neither_synced_nor_given_a_checkpoint(world):
    upload_id = start(world)
    append(world, upload_id, A)
    assert [name for name, _ in world.driver.writes()] == ["put", "writer"]
    assert finish(world, upload_id, Digest.of(A)) == 10
    assert reads(world) == 0
    upload_id = start(world)
    append(world, upload_id, A)
    world.restart()
    assert finish(world, upload_id, Digest.of(A)) == 10
    assert reads(world) == 1


@pytest.mark.usefixtures("all_are_large")
def test_checkpoint_finishes_an_upload_after_a_restart(world):
    upload_id = start(world)
    append(world, upload_id, A)
    world.restart()
    assert finish(world, upload_id, Digest.of(A)) == 10
    assert reads(world) == 0


def test_checkpoint_is_not_used_after_more_bytes(world):
    upload_id = start(world)
    append(world, upload_id, A)
    world.restart()
    append(world, upload_id, B)
    with pytest.raises(RegistryError):
        finish(world, upload_id, Digest.of(A))
    upload_id = start(world)
    append(world, upload_id, A)
    world.restart()
    append(world, upload_id, B)
    world.restart()
    assert finish(world, upload_id, BOTH) == 20
    assert reads(world) == 1


def test_bytes_of_another_process_are_hashed(world):
    upload_id = start(world)
    append(world, upload_id, A)
    other = world.another()
    done(find(world, upload_id, other).append(Body(B)))
    with pytest.raises(RegistryError) as caught:
        finish(world, upload_id, Digest.of(A))
    assert caught.value.code is ErrorCode.DIGEST_INVALID
    upload_id = start(world)
    append(world, upload_id, A)
    done(find(world, upload_id, other).append(Body(B)))
    assert finish(world, upload_id, BOTH, b"") == 20


@pytest.mark.parametrize(
    "torn",
    [
        *[b"", b"{", b"[]", b"5", b"null", b"{}", b"\xff", b"[" * 1000, b'{"size":Infinity}'],
        *[b'{"size":1e999,"digest":""}', b'{"size":10,"digest":5}', b'{"size":10,"digest":"x"}'],
        *[b'{"size":NaN}', b'{"size":null}', b"\x00" * 90, b'{"size":"x","digest":"x"}'],
    ],
)
def test_torn_checkpoint_is_ignored(world, torn):
    assert Checkpoint.from_bytes(torn) is None
    upload_id = start(world)
    append(world, upload_id, A)
    world.write(layout.upload_checkpoint("a/b", upload_id), torn)
    world.restart()
    assert finish(world, upload_id, Digest.of(A)) == 10
    assert reads(world) == 1


def test_checkpoint_of_another_size_is_ignored(world):
    upload_id = start(world)
    append(world, upload_id, A)
    for size in (9, 11, -10):
        lie = Checkpoint(size, Digest.of(B))
        assert Checkpoint.from_bytes(lie.to_bytes()) == lie
        world.write(layout.upload_checkpoint("a/b", upload_id), lie.to_bytes())
        world.restart()
        with pytest.raises(RegistryError):
            done(find(world, upload_id).finish(Digest.of(A), None, start=3))
    assert finish(world, upload_id, Digest.of(A)) == 10


# Disconnects.


def test_bytes_before_a_disconnect_remain(world):
    upload_id = start(world)
    with pytest.raises(ClientGone):
        done(find(world, upload_id).append(Body(A, error=ClientGone())))
    assert find(world, upload_id).size == 10
    with pytest.raises(ClientGone):
        done(find(world, upload_id).finish(BOTH, Body(B[:3], error=ClientGone())))
    assert find(world, upload_id).size == 13
    assert size_of(world, BOTH) is None
    append(world, upload_id, B[3:], start=13)
    assert finish(world, upload_id, BOTH) == 20
    assert reads(world) == 0


def test_upload_continues_after_a_disconnect_and_a_restart(world):
    upload_id = start(world)
    append(world, upload_id, A)
    with pytest.raises(ClientGone):
        done(find(world, upload_id).append(Body(B[:3], error=ClientGone())))
    world.restart()
    append(world, upload_id, B[3:], start=13)
    assert finish(world, upload_id, BOTH) == 20
    world.check()


def test_disconnect_during_a_single_request_leaves_nothing(world):
    with pytest.raises(ClientGone):
        done(world.repo().uploads.store_blob(BOTH, Body(A, error=ClientGone())))
    assert world.paths() == []


@pytest.mark.parametrize("way", ["append", "finish", "store"])
def test_cancelling_stops_the_body_and_frees_the_writer(world, way):
    upload_id = start(world)
    body = SlowBody()
    work = {
        "append": lambda: find(world, upload_id).append(body),
        "finish": lambda: find(world, upload_id).finish(BOTH, body),
        "store": lambda: world.repo().uploads.store_blob(BOTH, body),
    }[way]
    under_way = begin(work())
    body.arrive(A)
    under_way.cancel()
    with pytest.raises(CancelledError):
        result_of(under_way)
    assert body.cancelled
    if way != "store":
        assert find(world, upload_id).size == 10
        append(world, upload_id, B, start=10)
        finish(world, upload_id, BOTH)
    world.check()


@pytest.mark.parametrize("action", ["flush", "commit", "close", "writer", "move", "put", "stat"])
def test_cancelling_during_a_storage_call_frees_the_writer(world, action):
    upload_id = start(world)
    append(world, upload_id, A)
    upload = find(world, upload_id)
    pauses = Pauses(action, "")
    world.driver.before = pauses
    under_way = begin(upload.finish(BOTH, Body(B)))
    if not pauses.waiting:
        world.driver.before = lambda *_: None
        return
    under_way.cancel()
    pauses.holding = False
    # The upload can be found and continued, or it is complete.
    assert under_way.called
    under_way.addErrback(lambda _: None)
    if is_known(world, upload_id):
        size = find(world, upload_id).size
        append(world, upload_id, (A + B)[size:], start=size)
        assert finish(world, upload_id, BOTH) == 20
    world.check()


@pytest.mark.usefixtures("all_are_large")
@pytest.mark.parametrize("way", ["append", "finish"])
def test_checkpoint_is_written_after_the_flush(world, way):
    upload_id = start(world)
    body = Body(A, error=ClientGone())
    upload = find(world, upload_id)
    with pytest.raises(ClientGone):
        done(upload.append(body) if way == "append" else upload.finish(BOTH, body))
    writes = [(action, path.rpartition("/")[2]) for action, path in world.driver.writes()]
    assert writes.index(("flush", "data")) < writes.index(("put", "checkpoint"))
    assert find(world, upload_id).size == 10
