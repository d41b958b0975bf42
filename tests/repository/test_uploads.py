"""Uploads: order, digests and writers."""

from __future__ import annotations

import uuid

import pytest

from tests.repository.trash_kit import WORLDS
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
from tests.repository.worlds import Body, ClientGone, SlowBody, begin, done, result_of
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.repository import layout
from twisted_registry.repository.uploads import UploadOutOfOrder

# Complete uploads.


def test_upload_in_chunks(world):
    upload_id = start(world)
    assert find(world, upload_id).size == 0
    assert append(world, upload_id, A) == 10
    assert find(world, upload_id).size == 10
    assert append(world, upload_id, B, start=10) == 20
    assert finish(world, upload_id, BOTH) == 20
    assert world.read(layout.blob_data(BOTH)) == A + B
    assert size_of(world, BOTH) == 20
    assert not is_known(world, upload_id)
    assert not world.paths(folder(upload_id))
    assert reads(world) == 0
    # The running hash of a finished upload is dropped.
    assert world.repo().store.running_hashes.pop(upload_id, 20, "sha256") is None
    world.check()


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_last_chunk_may_arrive_with_the_digest(world, algorithm):
    digest = Digest.of(A + B, algorithm)
    upload_id = start(world)
    append(world, upload_id, A, algorithm=algorithm)
    assert finish(world, upload_id, digest, B, start=10) == 20
    assert size_of(world, digest) == 20
    assert reads(world) == 0
    world.check()


def test_upload_in_one_request(world):
    assert done(world.repo().uploads.store_blob(BOTH, Body(A, B))) == 20
    assert size_of(world, BOTH) == 20
    assert not [path for path in world.paths() if "_uploads" in path]


def test_empty_upload_is_a_blob(world):
    nothing = Digest.of(b"")
    upload_id = start(world)
    assert finish(world, upload_id, nothing) == 0
    assert size_of(world, nothing) == 0
    upload_id = start(world)
    assert append(world, upload_id) == 0
    assert finish(world, upload_id, nothing, b"") == 0
    assert done(world.repo().uploads.store_blob(Digest.of(b"", "sha512"), Body())) == 0
    world.check()


def test_startedat_has_the_format_of_rfc_3339(world):
    world.clock.advance(1_700_000_000)
    upload_id = start(world)
    assert world.read(layout.upload_started("a/b", upload_id)) == b"2023-11-14T22:13:20Z"


def test_uploads_belong_to_their_repository(world):
    upload_id = start(world)
    with pytest.raises(RegistryError) as caught:
        done(world.repo("a").uploads.find(upload_id))
    assert caught.value.code is ErrorCode.BLOB_UPLOAD_UNKNOWN


@pytest.mark.parametrize(
    "text", ["", "x", "..", "a/b", "../../x", "6B4479EE-79C9-48E5-ACE5-0E23C8383F7A"]
)
def test_invalid_id_never_reaches_the_store(world, text):
    assert not is_known(world, text)
    assert world.driver.calls == []


def test_unknown_id_is_refused(world):
    assert not is_known(world, str(uuid.uuid4()))


def test_upload_of_distribution_can_be_continued(world):
    upload_id = str(uuid.uuid4())
    world.write(layout.upload_data("a/b", upload_id), A)
    assert find(world, upload_id).size == 10
    append(world, upload_id, B)
    assert finish(world, upload_id, BOTH) == 20
    assert reads(world) == 1


# Out of order.


@pytest.mark.parametrize("offset", [0, 9, 11, 10**12])
def test_bytes_out_of_order_are_refused_and_nothing_is_lost(world, offset):
    upload_id = start(world)
    append(world, upload_id, A)
    for attempt in (
        lambda body: find(world, upload_id).append(body, start=offset),
        lambda body: find(world, upload_id).finish(BOTH, body, start=offset),
        lambda body: find(world, upload_id).finish(BOTH, None, start=offset),
    ):
        body = Body(B)
        with pytest.raises(UploadOutOfOrder) as caught:
            done(attempt(body))
        assert (caught.value.code, caught.value.size) == (ErrorCode.RANGE_INVALID, 10)
        assert caught.value.http_status == 416
        assert not body.started
    append(world, upload_id, B, start=10)
    assert finish(world, upload_id, BOTH) == 20


def test_outdated_upload_object_is_refused(world):
    upload_id = start(world)
    stale = find(world, upload_id)
    append(world, upload_id, A)
    with pytest.raises(UploadOutOfOrder) as caught:
        done(stale.append(Body(B)))
    assert caught.value.size == 10
    append(world, upload_id, B)
    assert finish(world, upload_id, BOTH) == 20


def test_second_writer_is_refused(world):
    upload_id = start(world)
    body = SlowBody()
    first = begin(find(world, upload_id).append(body))
    body.arrive(A)
    world.settle()
    for attempt in (
        lambda: find(world, upload_id).append(Body(B)),
        lambda: find(world, upload_id).finish(BOTH),
    ):
        with pytest.raises(UploadOutOfOrder) as caught:
            done(attempt())
        assert caught.value.size == 10
    body.arrive(B)
    body.end()
    assert result_of(first) == 20
    assert finish(world, upload_id, BOTH) == 20
    world.check()


# Digests.


def test_wrong_digest_ends_the_upload_and_stores_nothing(world):
    upload_id = start(world)
    append(world, upload_id, A)
    wrong = Digest.of(b"other")
    with pytest.raises(RegistryError) as caught:
        finish(world, upload_id, wrong)
    assert caught.value.code is ErrorCode.DIGEST_INVALID
    assert caught.value.detail == {
        "digest": str(wrong),
        "found": str(Digest.of(A)),
        "size": 10,
    }
    assert not is_known(world, upload_id)
    assert world.paths() == []


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_wrong_digest_in_one_request_leaves_nothing(world, algorithm):
    with pytest.raises(RegistryError) as caught:
        done(world.repo().uploads.store_blob(Digest.of(b"other", algorithm), Body(A)))
    assert caught.value.code is ErrorCode.DIGEST_INVALID
    assert world.paths() == []


@pytest.mark.parametrize("while_writing", ["sha256", "sha512"])
@pytest.mark.parametrize("at_the_end", ["sha256", "sha512"])
def test_digest_of_another_algorithm_reads_the_bytes_once(world, while_writing, at_the_end):
    upload_id = start(world)
    append(world, upload_id, A, algorithm=while_writing)
    append(world, upload_id, B)
    assert finish(world, upload_id, Digest.of(A + B, at_the_end)) == 20
    assert reads(world) == (while_writing != at_the_end)
    upload_id = start(world)
    append(world, upload_id, A, algorithm=while_writing)
    with pytest.raises(RegistryError):
        finish(world, upload_id, Digest.of(B, at_the_end))
    world.check()


# Deleting the bytes of an upload.


@pytest.mark.parametrize("kind", WORLDS)
def test_of_several_requests_that_delete_the_bytes_one_is_told_how_many(kind):
    world = WORLDS[kind]()
    upload_id = start(world)
    append(world, upload_id, A, B)
    uploads = [find(world, upload_id) for _ in range(3)]
    assert [done(upload.delete_bytes()) for upload in uploads] == [20, 0, 0]
    for upload in uploads:
        done(upload.discard())
    assert not is_known(world, upload_id)


@pytest.mark.parametrize("kind", WORLDS)
def test_bytes_that_have_become_a_blob_are_not_deleted(kind):
    world = WORLDS[kind]()
    upload_id = start(world)
    append(world, upload_id, A, B)
    upload = find(world, upload_id)
    assert finish(world, upload_id, BOTH) == 20
    assert done(upload.delete_bytes()) == 0
    assert size_of(world, BOTH) == 20


def test_bytes_that_are_being_written_are_not_deleted(world):
    upload_id = start(world)
    append(world, upload_id, A)
    upload, body = find(world, upload_id), SlowBody()
    writing = begin(find(world, upload_id).append(body))
    assert done(upload.delete_bytes()) == 0
    body.arrive(B)
    body.end()
    assert result_of(writing) == 20


def test_an_upload_without_bytes_has_none_to_delete(world):
    assert done(find(world, start(world)).delete_bytes()) == 0


@pytest.mark.parametrize("body", [Body(A, error=ClientGone()), Body(B, A)])
def test_the_size_after_a_failure_is_that_of_the_bytes_that_remain(world, body):
    upload_id = start(world)
    append(world, upload_id, A)
    upload = find(world, upload_id)
    with pytest.raises((ClientGone, RegistryError)):
        done(upload.finish(BOTH, body))
    # The client can continue after a disconnect; a wrong digest deletes the upload.
    assert upload.size == (20 if body.error else 0)
    assert is_known(world, upload_id) is bool(body.error)
