"""Uploads: failing stores, crashes, and the end of an upload."""

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
    folder,
    is_known,
    reads,
    size_of,
    start,
)
from tests.repository.watched_driver import Pauses, dies_at, fails_at
from tests.repository.worlds import Body, ClientGone, SlowBody, World, begin, done, result_of
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.repository import layout
from twisted_registry.repository.uploads import RunningHash, RunningHashes, UploadOutOfOrder

# Failing stores.


def push(world, upload_id):
    append(world, upload_id, A)
    finish(world, upload_id, BOTH, B)


def calls_of_a_push():
    world = World()
    push(world, start(world))
    return [action for action, _ in world.driver.calls]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("full", [False, True])
def test_upload_can_be_continued_after_any_failed_call(when, full):
    actions = calls_of_a_push()
    assert len(actions) > 10
    for number, action in enumerate(actions):
        if (action, when) == ("writer", "after"):
            # The tests of the driver cover a writer that was not returned.
            continue
        world = World()
        setattr(world.driver, when, fails_at(number, full=full))
        upload_id = start(world) if number else None
        with pytest.raises(RegistryError) as caught:
            push(world, upload_id or start(world))
        assert caught.value.code is ErrorCode.UNAVAILABLE
        assert caught.value.http_status == (507 if full else 503)
        setattr(world.driver, when, lambda *_: None)
        if upload_id is None or not is_known(world, upload_id):
            upload_id = start(world)
        size = find(world, upload_id).size
        append(world, upload_id, (A + B)[size:], start=size)
        assert finish(world, upload_id, BOTH) == 20, number
        assert size_of(world, BOTH) == 20
        world.check()


@pytest.mark.parametrize("hook", ["before", "after"])
def test_upload_can_be_completed_after_a_crash_at_any_call(hook):
    for fatal in range(len(calls_of_a_push())):
        world = World()
        setattr(world.driver, hook, dies_at(fatal))
        upload_id = start(world) if fatal else None
        with pytest.raises(RegistryError):
            push(world, upload_id or start(world))
        world.restart()
        world.check()
        if upload_id is None or not is_known(world, upload_id):
            upload_id = start(world)
        size = find(world, upload_id).size
        append(world, upload_id, (A + B)[size:], start=size)
        assert finish(world, upload_id, BOTH) == 20
        world.check()


def test_failure_to_write_the_link_ends_the_upload(world):
    # Its bytes were moved: nothing can be resumed, and it must not start again.
    upload_id = start(world)
    append(world, upload_id, A)
    link = layout.layer_link("a/b", Digest.of(A))

    def broken(_number, action, path):
        if (action, path) == ("put", link):
            fails_at(0)(0, action, path)

    world.driver.before = broken
    with pytest.raises(RegistryError) as caught:
        finish(world, upload_id, Digest.of(A))
    assert caught.value.code is ErrorCode.UNAVAILABLE
    assert not is_known(world, upload_id)
    assert size_of(world, Digest.of(A)) is None


# An upload that has ended must not start again: its running hash would be used for other bytes.


def test_chunk_after_the_end_of_an_empty_upload_is_refused(world):
    upload_id = start(world)
    late = find(world, upload_id)
    assert finish(world, upload_id, Digest.of(A), A) == 10
    body = Body(B)
    with pytest.raises(RegistryError) as caught:
        done(late.append(body))
    assert caught.value.code is ErrorCode.BLOB_UPLOAD_UNKNOWN
    assert not body.started
    assert not world.paths(folder(upload_id))


@pytest.mark.parametrize("ending", ["finish", "discard"])
def test_no_race_puts_other_bytes_under_a_digest(world, ending):
    """One process has the running hash of A; another ends the upload.

    If a chunk that races with the end wrote B to the same ID, the first process would move B to the
    path of A.
    """
    other = world.another()
    upload_id = start(world)
    late = find(world, upload_id, other)
    append(world, upload_id, A)
    if ending == "finish":
        done(find(world, upload_id, other).finish(Digest.of(A)))
    else:
        done(find(world, upload_id, other).discard())
    with pytest.raises(RegistryError):
        done(late.append(Body(B)))
    assert not is_known(world, upload_id)
    if ending == "finish":
        assert world.read(layout.blob_data(Digest.of(A))) == A
    world.check()


def moved_and_stopped(world, known_by="append"):
    """One process has the running hash of A; another moves A to its path, and crashes."""
    other = world.another()
    upload_id = start(world)
    upload = find(world, upload_id)
    if known_by == "append":
        done(upload.append(Body(A)))
    else:
        with pytest.raises(ClientGone):
            done(upload.finish(Digest.of(A), Body(A, error=ClientGone())))
    pauses = Pauses("move", "/data")
    world.driver.after = pauses
    moving = begin(find(world, upload_id, other).finish(Digest.of(A)))
    moving.cancel()
    with pytest.raises(CancelledError):
        result_of(moving)
    pauses.holding = False
    assert world.read(layout.blob_data(Digest.of(A))) == A
    return upload_id


def cannot_begin(world, upload_id):
    assert not is_known(world, upload_id)
    fresh = done(world.repo(registry=world.another()).uploads.start())
    fresh.id = upload_id
    with pytest.raises(RegistryError) as caught:
        done(fresh.append(Body(B)))
    assert caught.value.code is ErrorCode.BLOB_UPLOAD_UNKNOWN
    assert not world.exists(layout.upload_data("a/b", upload_id))
    world.check()


@pytest.mark.parametrize("known_by", ["append", "finish"])
def test_upload_whose_bytes_were_moved_cannot_start_again(world, known_by):
    """Other bytes written to the same ID would be stored with the digest of A."""
    cannot_begin(world, moved_and_stopped(world, known_by))


@pytest.mark.usefixtures("all_are_large")
def test_startedat_restored_by_a_power_cut_does_not_restart_an_upload(world):
    """A checkpoint without bytes would be used for other bytes."""
    upload_id = moved_and_stopped(world)
    assert not world.exists(layout.upload_started("a/b", upload_id))
    world.write(layout.upload_started("a/b", upload_id), b"2023-11-14T22:13:20Z")
    cannot_begin(world, upload_id)
    world.remove(layout.upload_checkpoint("a/b", upload_id))
    assert is_known(world, upload_id)


def test_an_empty_chunk_does_not_end_an_upload(world):
    upload_id = start(world)
    for _ in range(2):
        assert append(world, upload_id) == 0
        assert append(world, upload_id, b"") == 0
        world.restart()
    append(world, upload_id, A)
    assert finish(world, upload_id, Digest.of(A)) == 10


def test_upload_cancelled_during_a_write_stays_deleted(world):
    upload_id = start(world)
    append(world, upload_id, A)
    body = SlowBody()
    under_way = begin(find(world, upload_id).finish(BOTH, body))
    done(find(world, upload_id).discard())
    body.arrive(B)
    body.end()
    with pytest.raises(RegistryError) as caught:
        result_of(under_way)
    assert caught.value.code is ErrorCode.BLOB_UPLOAD_UNKNOWN
    assert size_of(world, BOTH) is None
    assert not is_known(world, upload_id)


def test_discarding_twice_is_no_error(world):
    upload_id = start(world)
    append(world, upload_id, A)
    upload = find(world, upload_id)
    done(upload.discard())
    done(upload.discard())
    assert not is_known(world, upload_id)
    assert world.paths() == []


def test_concurrent_closing_requests_store_one_blob(world):
    upload_id = start(world)
    append(world, upload_id, A)
    pauses = Pauses("move", "/data")
    first_upload = find(world, upload_id)
    world.driver.before = pauses
    first = begin(first_upload.finish(Digest.of(A)))
    with pytest.raises(UploadOutOfOrder):
        done(find(world, upload_id).finish(Digest.of(A)))
    pauses.release()
    assert result_of(first) == 10
    world.check()


# Running hashes.


def test_incomplete_running_hash_is_not_used(world):
    # After an error of the driver, bytes may be stored but not observed.
    world.driver.observes = False
    assert done(world.repo().uploads.store_blob(Digest.of(A), Body(A))) == 10
    assert reads(world) == 1
    upload_id = start(world)
    append(world, upload_id, A)
    world.driver.observes = True
    assert finish(world, upload_id, BOTH, B) == 20
    assert reads(world) == 2
    upload_id = start(world)
    append(world, upload_id, A)
    world.driver.observes = False
    append(world, upload_id, B)
    world.restart()
    assert finish(world, upload_id, BOTH) == 20
    assert reads(world) == 1
    world.check()


def test_least_recently_used_running_hash_is_dropped():
    running_hashes = RunningHashes()
    for number in range(5000):
        running_hash = RunningHash("sha256")
        running_hash.update(b"x")
        running_hashes.put(str(number), running_hash)
    assert running_hashes.pop("0", 1, "sha256") is None
    kept = running_hashes.pop("4999", 1, "sha256")
    assert kept.digest() == Digest.of(b"x")
    assert running_hashes.pop("4999", 1, "sha256") is None


def test_running_hash_of_another_size_is_not_used():
    running_hashes = RunningHashes()
    running_hash = RunningHash("sha256")
    running_hash.update(b"xx")
    running_hashes.put("a", running_hash)
    assert running_hashes.pop("a", 1, "sha256") is None
    assert running_hashes.pop("a", 2, "sha256") is None
    assert running_hashes.pop("a", 0, "sha512").digest() == Digest.of(b"", "sha512")
