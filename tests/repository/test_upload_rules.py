"""Uploads: order, digests, writers, restarts, and clients and stores that fail in the middle."""

from __future__ import annotations

import uuid

import pytest
from domain import (
    Body,
    ClientGone,
    Pauses,
    SlowBody,
    World,
    begin,
    dies_at,
    done,
    fails_at,
    result_of,
)
from twisted.internet.defer import CancelledError

from twisted_registry.digest import Digest
from twisted_registry.errors import ErrorCode, RegistryError
from twisted_registry.repository import layout, uploads
from twisted_registry.repository.running import Checkpoint, RunningDigests, Tally
from twisted_registry.repository.uploads import UploadOutOfOrder

A, B = b"a" * 10, b"b" * 10
BOTH = Digest.of(A + B)


def start(world):
    return done(world.repo().uploads.start()).id


def find(world, upload_id, registry=None):
    return done(world.repo(registry=registry).uploads.find(upload_id))


def is_known(world, upload_id):
    try:
        find(world, upload_id)
    except RegistryError as error:
        if error.code is not ErrorCode.BLOB_UPLOAD_UNKNOWN:
            raise
        return False
    return True


def append(world, upload_id, *pieces, **options):
    return done(find(world, upload_id).append(Body(*pieces), **options))


def finish(world, upload_id, digest, *pieces, **options):
    body = Body(*pieces) if pieces else None
    return done(find(world, upload_id).finish(digest, body, **options))


def size_of(world, digest, name="a/b"):
    return done(world.repo(name).blobs.presence.blob(name, digest))


def reads(world):
    """How often the bytes of an upload were read again."""
    return sum(action == "open" for action, _ in world.driver.calls)


def folder(upload_id):
    return layout.upload("a/b", upload_id)


# The plain way.


def test_in_chunks(world):
    upload_id = start(world)
    assert find(world, upload_id).size == 0
    assert append(world, upload_id, A) == 10
    assert find(world, upload_id).size == 10
    assert append(world, upload_id, B, start=10) == 20
    assert finish(world, upload_id, BOTH) == 20
    assert world.read(layout.blob(BOTH)) == A + B
    assert size_of(world, BOTH) == 20
    assert not is_known(world, upload_id)
    assert not world.paths(folder(upload_id))
    assert reads(world) == 0
    # Nothing is remembered of what has ended.
    assert not world.registry._running._tallies
    world.check()


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_the_last_chunk_may_come_with_the_digest(world, algorithm):
    digest = Digest.of(A + B, algorithm)
    upload_id = start(world)
    append(world, upload_id, A, algorithm=algorithm)
    assert finish(world, upload_id, digest, B, start=10) == 20
    assert size_of(world, digest) == 20
    assert reads(world) == 0
    world.check()


def test_all_at_once(world):
    assert done(world.repo().uploads.store(BOTH, Body(A, B))) == 20
    assert size_of(world, BOTH) == 20
    assert not [path for path in world.paths() if "_uploads" in path]


def test_nothing_at_all_is_a_blob(world):
    nothing = Digest.of(b"")
    upload_id = start(world)
    assert finish(world, upload_id, nothing) == 0
    assert size_of(world, nothing) == 0
    upload_id = start(world)
    assert append(world, upload_id) == 0
    assert finish(world, upload_id, nothing, b"") == 0
    assert done(world.repo().uploads.store(Digest.of(b"", "sha512"), Body())) == 0
    world.check()


def test_when_it_began_is_written_in_the_form_of_rfc_3339(world):
    world.clock.advance(1_700_000_000)
    upload_id = start(world)
    assert world.read(layout.upload_started("a/b", upload_id)) == b"2023-11-14T22:13:20Z"


def test_uploads_belong_to_their_repository(world):
    upload_id = start(world)
    with pytest.raises(RegistryError) as caught:
        done(world.repo("a").uploads.find(upload_id))
    assert caught.value.code is ErrorCode.BLOB_UPLOAD_UNKNOWN


@pytest.mark.parametrize("text", ["", "x", "..", "a/b", "../../x", str(uuid.uuid4()).upper()])
def test_what_is_no_id_never_reaches_the_store(world, text):
    assert not is_known(world, text)
    assert world.driver.calls == []


def test_an_id_that_nobody_was_given(world):
    assert not is_known(world, str(uuid.uuid4()))


def test_an_upload_of_distribution_without_our_files_goes_on(world):
    upload_id = str(uuid.uuid4())
    world.write(layout.upload_data("a/b", upload_id), A)
    assert find(world, upload_id).size == 10
    append(world, upload_id, B)
    assert finish(world, upload_id, BOTH) == 20
    assert reads(world) == 1


# Out of order.


@pytest.mark.parametrize("offset", [0, 9, 11, 10**12])
def test_bytes_that_do_not_follow_are_refused_and_nothing_is_lost(world, offset):
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


def test_a_view_that_is_out_of_date_is_refused(world):
    upload_id = start(world)
    stale = find(world, upload_id)
    append(world, upload_id, A)
    with pytest.raises(UploadOutOfOrder) as caught:
        done(stale.append(Body(B)))
    assert caught.value.size == 10
    append(world, upload_id, B)
    assert finish(world, upload_id, BOTH) == 20


def test_a_second_writer_is_refused_while_the_first_goes_on(world):
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


def test_another_digest_ends_the_upload_and_shows_nothing(world):
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
def test_another_digest_at_once_leaves_nothing(world, algorithm):
    with pytest.raises(RegistryError) as caught:
        done(world.repo().uploads.store(Digest.of(b"other", algorithm), Body(A)))
    assert caught.value.code is ErrorCode.DIGEST_INVALID
    assert world.paths() == []


@pytest.mark.parametrize("while_writing", ["sha256", "sha512"])
@pytest.mark.parametrize("at_the_end", ["sha256", "sha512"])
def test_a_digest_of_another_algorithm_takes_one_more_read(world, while_writing, at_the_end):
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


# Restarts.


@pytest.fixture
def all_are_large(monkeypatch):
    """Every upload is so large that it is synced and gets a checkpoint."""
    monkeypatch.setattr(uploads, "CHECKPOINT_SIZE", 1)


def test_a_small_upload_is_read_again_rather_than_synced(world):
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
def test_after_a_restart_the_checkpoint_closes_an_upload(world):
    upload_id = start(world)
    append(world, upload_id, A)
    world.restart()
    assert finish(world, upload_id, Digest.of(A)) == 10
    assert reads(world) == 0


def test_after_a_restart_more_bytes_make_the_checkpoint_void(world):
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


def test_bytes_that_another_process_added_are_seen(world):
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
def test_a_torn_checkpoint_is_none(world, torn):
    assert Checkpoint.from_bytes(torn) is None
    upload_id = start(world)
    append(world, upload_id, A)
    world.write(layout.upload_checkpoint("a/b", upload_id), torn)
    world.restart()
    assert finish(world, upload_id, Digest.of(A)) == 10
    assert reads(world) == 1


def test_a_checkpoint_that_lies_about_the_size_is_void(world):
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


# Clients that leave.


def test_what_came_before_the_client_left_stays(world):
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


def test_after_the_client_left_a_restart_does_not_matter(world):
    upload_id = start(world)
    append(world, upload_id, A)
    with pytest.raises(ClientGone):
        done(find(world, upload_id).append(Body(B[:3], error=ClientGone())))
    world.restart()
    append(world, upload_id, B[3:], start=13)
    assert finish(world, upload_id, BOTH) == 20
    world.check()


def test_a_client_that_leaves_all_at_once_leaves_nothing(world):
    with pytest.raises(ClientGone):
        done(world.repo().uploads.store(BOTH, Body(A, error=ClientGone())))
    assert world.paths() == []


@pytest.mark.parametrize("way", ["append", "finish", "store"])
def test_cancelling_stops_the_body_and_frees_the_writer(world, way):
    upload_id = start(world)
    body = SlowBody()
    work = {
        "append": lambda: find(world, upload_id).append(body),
        "finish": lambda: find(world, upload_id).finish(BOTH, body),
        "store": lambda: world.repo().uploads.store(BOTH, body),
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
def test_cancelling_while_the_store_works_frees_the_writer(world, action):
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
    # Whatever ran on has come to its end: the upload can be found and written, or it is whole.
    assert under_way.called
    under_way.addErrback(lambda _: None)
    if is_known(world, upload_id):
        size = find(world, upload_id).size
        append(world, upload_id, (A + B)[size:], start=size)
        assert finish(world, upload_id, BOTH) == 20
    world.check()


@pytest.mark.usefixtures("all_are_large")
@pytest.mark.parametrize("way", ["append", "finish"])
def test_no_checkpoint_is_written_of_bytes_that_a_power_cut_may_damage(world, way):
    upload_id = start(world)
    body = Body(A, error=ClientGone())
    upload = find(world, upload_id)
    with pytest.raises(ClientGone):
        done(upload.append(body) if way == "append" else upload.finish(BOTH, body))
    writes = [(action, path.rpartition("/")[2]) for action, path in world.driver.writes()]
    assert writes.index(("flush", "data")) < writes.index(("put", "checkpoint"))
    assert find(world, upload_id).size == 10


# Stores that fail.


def push(world, upload_id):
    append(world, upload_id, A)
    finish(world, upload_id, BOTH, B)


def calls_of_a_push():
    world = World()
    push(world, start(world))
    return [action for action, _ in world.driver.calls]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("full", [False, True])
def test_whatever_call_fails_the_client_is_told_and_can_go_on(when, full):
    actions = calls_of_a_push()
    assert len(actions) > 10
    for number, action in enumerate(actions):
        if (action, when) == ("writer", "after"):
            # A writer that was not handed out holds no lock: the driver's own tests.
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
def test_a_crash_at_any_call_leaves_nothing_partial_and_the_push_can_be_completed(hook):
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


def test_a_link_that_can_not_be_written_ends_the_upload(world):
    # Its bytes have moved already: nothing is left to resume, and nobody may begin it again.
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


# An upload that has ended stays ended: what is known of its bytes would else be told of others.


def test_a_chunk_that_comes_after_the_end_of_an_empty_upload_does_not_begin_it_anew(world):
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
    """Two processes; the first knows the digest of A's bytes, the second ends the upload.

    A chunk that raced with the end would write B under the same id, and the first process would
    move it to the name of A.
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
        assert world.read(layout.blob(Digest.of(A))) == A
    world.check()


def moved_and_stopped(world, known_by="append"):
    """One process knows the digest of A; another moves A to its name, and stops right there."""
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
    assert world.read(layout.blob(Digest.of(A))) == A
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
def test_an_upload_whose_bytes_have_moved_does_not_begin_anew(world, known_by):
    """Bytes written to the same id now would come under the digest of A."""
    cannot_begin(world, moved_and_stopped(world, known_by))


@pytest.mark.usefixtures("all_are_large")
def test_nor_does_it_when_a_power_cut_brings_back_that_it_began(world):
    """A checkpoint that is left beside no bytes would be believed of others."""
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


def test_an_upload_that_is_cancelled_under_a_writer_does_not_come_back(world):
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


def test_two_closing_requests_at_once_give_one_blob(world):
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


# What a process remembers.


def test_a_hash_that_has_not_seen_all_is_not_believed(world):
    # What a driver promises of a failure in the middle: stored, but perhaps not observed.
    world.driver.observes = False
    assert done(world.repo().uploads.store(Digest.of(A), Body(A))) == 10
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


def test_running_digests_forget_the_one_longest_untouched():
    running = RunningDigests()
    for number in range(5000):
        tally = Tally("sha256")
        tally.update(b"x")
        running.keep(str(number), tally)
    assert running.take("0", 1, "sha256") is None
    kept = running.take("4999", 1, "sha256")
    assert kept.digest() == Digest.of(b"x")
    assert running.take("4999", 1, "sha256") is None


def test_a_tally_of_another_size_is_no_use():
    running = RunningDigests()
    tally = Tally("sha256")
    tally.update(b"xx")
    running.keep("a", tally)
    assert running.take("a", 1, "sha256") is None
    assert running.take("a", 2, "sha256") is None
    assert running.take("a", 0, "sha512").digest() == Digest.of(b"", "sha512")
