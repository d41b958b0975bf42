"""Bytes on their way in (distribution specification, "Pushing blobs").

An upload is a folder with the bytes so far. One writer at a time holds it; whatever was written
when a client leaves stays, so that it can go on, after a restart as well. The digest is compared
before the bytes move under their name, so that no name ever shows anything else.

Digests of uploads that are still growing.

hashlib can not save its state. So the process that takes an upload keeps the running hash in
memory, and a checkpoint beside the upload (the digest of everything so far) lets any other
process, or this one after a restart, close the upload without a second read as long as no
bytes were added without it. Whoever has neither reads the bytes once, at the end.

Uploads that nobody goes on with.

When an upload was last touched is told by the newest of its files, which an upload that still
grows keeps young; where the store tells no times, by its ``startedat``; where there is no file at
all, by its folder. An upload of which nothing tells a time is kept.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import uuid4

from attrs import field, frozen

from twisted_registry.oci.digest import CANONICAL, Digest, hasher
from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.oci.names import is_upload_id
from twisted_registry.repository import catalog, layout
from twisted_registry.repository.errors import translate_storage_errors
from twisted_registry.repository.links import put_link
from twisted_registry.repository.streaming import stream_body
from twisted_registry.storage.interfaces import (
    Move,
    OffsetInvalid,
    PathNotFound,
    Remove,
    WriterBusy,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from twisted.internet.interfaces import IReactorTime
    from twisted.web.iweb import IBodyProducer

    from twisted_registry.repository.blobs import Blobs
    from twisted_registry.storage.interfaces import Change, Entry, IStorageDriver, IWriter

#: Uploads whose running hash a process keeps; the one longest untouched is dropped.
_MAX_HASHES = 4096


class RunningHash:
    """A hash of the first ``size`` bytes of an upload.

    ``update`` runs on the thread that stores, one call at a time.

    :ivar content_id: identifies the bytes to their writer: another history of the upload may be
        as long.
    """

    def __init__(self, algorithm: str, size: int = 0, content_id: str = "") -> None:
        self.algorithm = algorithm
        self.size = size
        self.content_id = content_id
        self._hasher = hasher(algorithm)

    def update(self, data: bytes) -> None:
        """Take more bytes."""
        self._hasher.update(data)
        self.size += len(data)

    def digest(self) -> Digest:
        """The digest of everything so far."""
        return Digest.from_hasher(self._hasher)


@frozen
class Checkpoint:
    """The digest of an upload's first ``size`` bytes, as kept beside it.

    :ivar content_id: identifies the bytes to their writer.
    """

    size: int
    digest: Digest
    content_id: str = ""

    def to_bytes(self) -> bytes:
        """The content of the file."""
        document = {"size": self.size, "digest": str(self.digest)}
        if self.content_id:
            document["mark"] = self.content_id
        return json.dumps(document).encode("ascii")

    @classmethod
    def from_bytes(cls, content: bytes) -> Checkpoint | None:
        """Read the file; None if it is torn."""
        try:
            document = json.loads(content)
            digest = Digest.parse(document["digest"])
            return cls(int(document["size"]), digest, str(document.get("mark", "")))
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            return None


class RunningHashes:
    """The tallies of one process, by upload id."""

    def __init__(self) -> None:
        self._hashes: OrderedDict[str, RunningHash] = OrderedDict()

    def pop(self, upload_id: str, size: int, algorithm: str) -> RunningHash | None:
        """A tally of exactly the upload's ``size`` bytes, or None if there is none.

        It is the caller's until :meth:`put`: two writers never share one.
        """
        running_hash = self._hashes.pop(upload_id, None)
        if size == 0:
            return RunningHash(algorithm)
        return running_hash if running_hash is not None and running_hash.size == size else None

    def put(self, upload_id: str, running_hash: RunningHash) -> None:
        """Keep a tally for the next request to the same upload."""
        self._hashes[upload_id] = running_hash
        if len(self._hashes) > _MAX_HASHES:
            self._hashes.popitem(last=False)


#: Bytes. A smaller upload is neither synced nor given a checkpoint when a request ends: to read it
#: again costs less, and after a power cut it may have to be sent again.
MIN_CHECKPOINT_BYTES = 1024 * 1024


@frozen(eq=False)
class UploadOutOfOrder(RegistryError):
    """These bytes do not follow those that are stored, or somebody else is writing.

    :ivar size: bytes stored, from which to go on.
    """

    size: int = field(default=0, kw_only=True)


class Uploads:
    """The uploads of one repository."""

    def __init__(
        self,
        driver: IStorageDriver,
        clock: IReactorTime,
        name: str,
        blobs: Blobs,
        running_hashes: RunningHashes,
    ) -> None:
        self.driver = driver
        self.clock = clock
        self.name = name
        self.blobs = blobs
        self.running_hashes = running_hashes

    @translate_storage_errors
    async def start(self) -> Upload:
        """Begin an upload."""
        upload = Upload(self, str(uuid4()), 0)
        now = datetime.fromtimestamp(self.clock.seconds(), UTC)
        await self.driver.put(
            layout.upload_started(self.name, upload.id),
            now.strftime("%Y-%m-%dT%H:%M:%SZ").encode("ascii"),
            durable=False,
        )
        return upload

    @translate_storage_errors
    async def find(self, upload_id: str) -> Upload:
        """Look up an upload.

        :raises RegistryError: BLOB_UPLOAD_UNKNOWN.
        """
        if is_upload_id(upload_id):
            size = await self._stored(layout.upload_data(self.name, upload_id))
            if size or await self.is_started(upload_id):
                return Upload(self, upload_id, size or 0)
        raise _upload_unknown(upload_id)

    def resume(self, upload_id: str, size: int) -> Upload:
        """An upload as its client knows it; whether it is so shows when it is written to.

        :param size: how many bytes the client says are stored.
        :raises RegistryError: BLOB_UPLOAD_UNKNOWN for what can not be an upload's id.
        """
        if not is_upload_id(upload_id):
            raise _upload_unknown(upload_id)
        return Upload(self, upload_id, size)

    async def is_started(self, upload_id: str) -> bool:
        """Whether an upload without bytes was begun and has not ended.

        An upload that has ended must not begin anew: a process that knows the digest of the
        first bytes would believe it of others. So its ``startedat`` is the first that goes, and
        if a crash or a failure keeps the rest from being removed, no bytes can follow. A power
        cut may bring ``startedat`` back, and takes all that processes know; but then a
        checkpoint, which is on the disk, beside no bytes tells that they have moved.
        """
        started = await self._stored(layout.upload_started(self.name, upload_id))
        if started is None:
            return False
        return await self._stored(layout.upload_checkpoint(self.name, upload_id)) is None

    @translate_storage_errors
    async def store_blob(self, digest: Digest, body: IBodyProducer) -> int:
        """Take a whole blob in one request (end-4b), and return its size.

        Nothing stays behind if it does not come whole or has another digest.
        """
        upload = Upload(self, str(uuid4()), 0, is_single_request=True)
        try:
            return await upload.finish(digest, body)
        except BaseException:
            await upload.discard()
            raise

    async def _stored(self, path: str) -> int | None:
        try:
            return (await self.driver.stat(path)).size
        except PathNotFound:
            return None


class Upload:
    """One upload.

    :ivar size: bytes stored when it was looked up, or after what was done through this object.
    :ivar secret: whether nobody was told its id, so that one request is all that it sees.
    """

    def __init__(
        self,
        uploads: Uploads,
        id: str,  # noqa: A002 - what clients and the layout call it
        size: int,
        *,
        is_single_request: bool = False,
    ) -> None:
        self.uploads = uploads
        self.id = id
        self.size = size
        self.is_single_request = is_single_request

    @translate_storage_errors
    async def append(
        self, body: IBodyProducer, *, start: int | None = None, algorithm: str = CANONICAL
    ) -> int:
        """Take more bytes (end-5), and return how many there are now.

        :param body: what to append; it is asked to start when nothing stands against it.
        :param start: the offset that the client believes to be next; None takes any.
        :param algorithm: which digest to compute along the way.
        :raises UploadOutOfOrder: if ``start`` is not the end, or another request is writing.
        """
        writer, running_hash = await self._open(start, algorithm)
        try:
            await stream_body(body, writer)
        finally:
            # Also when the client has left: what came stays, and can be continued.
            self.size = await self._close_and_checkpoint(writer, running_hash)
        return self.size

    @translate_storage_errors
    async def finish(
        self, digest: Digest, body: IBodyProducer | None = None, *, start: int | None = None
    ) -> int:
        """Take the last bytes if there are any, check the digest, store the blob (end-6).

        :param digest: what the client says the whole is.
        :returns: the blob's size.
        :raises RegistryError: DIGEST_INVALID, and the upload is gone, as in Distribution.
        :raises UploadOutOfOrder: as :meth:`append`.
        """
        # Whoever brings all bytes at once says beforehand what they will be called.
        whole = body is not None and self.size == 0
        destination = layout.blob(digest) if whole else None
        writer, running_hash = await self._open(start, digest.algorithm, destination)
        closing = _Commit(self, digest, running_hash)
        # Whether nothing is left that another request could go on with.
        over = self.is_single_request
        try:
            if body is not None:
                await stream_body(body, writer)
            async with self.uploads.blobs.presence.gate.protect_push(self.uploads.name, digest):
                self.size = await self._conclude(writer, closing)
        except PathNotFound as error:
            # Cancelled by another request while this one was under way.
            over = True
            raise _upload_unknown(self.id) from error
        finally:
            if over or closing.decided:
                await writer.close()
            else:
                await self._close_and_checkpoint(writer, running_hash)
        if closing.found != digest:
            raise RegistryError(
                ErrorCode.DIGEST_INVALID,
                detail={"digest": str(digest), "found": str(closing.found), "size": self.size},
            )
        self.uploads.blobs.publish_push(digest, self.size)
        return self.size

    async def _conclude(self, writer: IWriter, closing: _Commit) -> int:
        try:
            return await writer.finalize(closing.changes)
        except _DigestUnknown:
            closing.found = await self._stored_digest(closing.digest.algorithm, writer)
            return await writer.finalize(closing.changes)

    @translate_storage_errors
    async def discard(self) -> None:
        """Remove the upload; no error if it is gone already (end-14)."""
        self.uploads.running_hashes.pop(self.id, 0, CANONICAL)
        # In this order: see is_fresh().
        for path in self._started, layout.upload(self.uploads.name, self.id):
            with suppress(PathNotFound):
                await self.uploads.driver.delete(path)

    @property
    def _started(self) -> str:
        return layout.upload_started(self.uploads.name, self.id)

    @property
    def _data(self) -> str:
        return layout.upload_data(self.uploads.name, self.id)

    @property
    def _checkpoint(self) -> str:
        return layout.upload_checkpoint(self.uploads.name, self.id)

    async def _open(
        self, start: int | None, algorithm: str, destination: str | None = None
    ) -> tuple[IWriter, RunningHash | None]:
        # The tally is taken for the size that we believe in; the writer checks that belief.
        expected = self.size if start is None else start
        if expected != self.size:
            raise self._out_of_order(self.size)
        running_hash = self.uploads.running_hashes.pop(self.id, expected, algorithm)
        # Where nothing is stored yet, it must be an upload that has begun, and not ended.
        begins = expected == 0 and not self.is_single_request
        try:
            writer = await self.uploads.driver.writer(
                self._data,
                expected,
                None if running_hash is None else running_hash.update,
                destination=destination,
                present=self._started if begins else None,
                absent=self._checkpoint if begins else None,
            )
        except PathNotFound as error:
            raise _upload_unknown(self.id) from error
        except OffsetInvalid as error:
            if not error.size:
                await self.uploads.find(self.id)
            raise self._out_of_order(error.size) from error
        except WriterBusy as error:
            size = (await self.uploads.find(self.id)).size
            raise self._out_of_order(size, "another request is writing to it") from error
        if running_hash is not None and running_hash.content_id != writer.content_id:
            # As many bytes, and others: another machine has written them.
            running_hash = None
        return writer, running_hash

    async def _close_and_checkpoint(self, writer: IWriter, running_hash: RunningHash | None) -> int:
        """Free the writer, and keep what is known of the bytes if it is known of all of them.

        :returns: how many bytes are stored.
        """
        try:
            if writer.size < MIN_CHECKPOINT_BYTES:
                size = await writer.close()
            else:
                size = await writer.flush()
                if running_hash is not None and running_hash.size == size:
                    # After the flush: bytes that a power cut damages must not have a checkpoint.
                    await self.uploads.driver.put(
                        self._checkpoint,
                        Checkpoint(size, running_hash.digest(), writer.content_id).to_bytes(),
                        durable=False,
                    )
            if running_hash is not None and 0 < running_hash.size == size:
                running_hash.content_id = writer.content_id
                self.uploads.running_hashes.put(self.id, running_hash)
            return size
        finally:
            await writer.close()

    def _out_of_order(self, size: int, detail: str = "not the end of what is stored") -> Exception:
        return UploadOutOfOrder(ErrorCode.RANGE_INVALID, detail=detail, size=size)

    async def _stored_digest(self, algorithm: str, writer: IWriter) -> Digest:
        """The digest of what is stored: as a checkpoint tells, or by reading everything."""
        checkpoint = None
        with suppress(PathNotFound):
            checkpoint = Checkpoint.from_bytes(
                await self.uploads.driver.get(self._checkpoint, 1024)
            )
        if (
            checkpoint is not None
            and (checkpoint.size, checkpoint.content_id) == (writer.size, writer.content_id)
            and checkpoint.digest.algorithm == algorithm
        ):
            return checkpoint.digest
        reader = await self.uploads.driver.open(self._data)
        running_hashes = hasher(algorithm)
        await reader.feed(running_hashes.update)
        return Digest.from_hasher(running_hashes)


class _DigestUnknown(Exception):
    """The digest of an upload was not computed along the way."""


class _Commit:
    """Decides, on the thread that stores, what becomes of an upload that is whole.

    :ivar digest: what the client says the whole is.
    :ivar found: what it is, once that is known.
    :ivar decided: whether the changes that end the upload were handed out.
    """

    def __init__(
        self,
        upload: Upload,
        digest: Digest,
        running_hash: RunningHash | None,
        found: Digest | None = None,
    ) -> None:
        self.upload = upload
        self.digest = digest
        self.running_hash = running_hash
        self.found = found
        self.decided = False

    def changes(self, size: int) -> Sequence[Change]:
        """What to change: the bytes get their name and a link, or go; the upload goes.

        :raises _DigestUnknown: if the digest is to be found out first.
        """
        running_hash, upload = self.running_hash, self.upload
        if self.found is None:
            if running_hash is None or (running_hash.size, running_hash.algorithm) != (
                size,
                self.digest.algorithm,
            ):
                raise _DigestUnknown
            self.found = running_hash.digest()
        name = upload.uploads.name
        changes: list[Change] = []
        if not upload.is_single_request:
            # First: see Uploads.is_fresh().
            changes.append(Remove(layout.upload_started(name, upload.id)))
        if self.found == self.digest:
            changes += (
                Move(layout.upload_data(name, upload.id), layout.blob(self.digest)),
                put_link(layout.layer_link(name, self.digest), self.digest),
            )
        changes.append(Remove(layout.upload(name, upload.id)))
        self.decided = True
        return changes


def _upload_unknown(upload_id: str) -> RegistryError:
    return RegistryError(ErrorCode.BLOB_UPLOAD_UNKNOWN, detail={"id": upload_id})


#: Uploads that are asked of the store at once.
_PAGE_SIZE = 1000
#: Bytes of a ``startedat``.
_MAX_STARTEDAT_BYTES = 1024


class AbandonedUpload:
    """An upload that was not touched for long.

    :ivar repository: the name of its repository.
    :ivar touched: when it was, in seconds since the epoch.
    :ivar before: the time before which it had to be touched last to be called abandoned.
    """

    def __init__(
        self,
        driver: IStorageDriver,
        repository: str,
        id: str,  # noqa: A002 - what the layout calls it
        last_activity: float,
        before: float,
    ) -> None:
        self.driver = driver
        self.repository = repository
        self.id = id
        self.last_activity = last_activity
        self.before = before

    @translate_storage_errors
    async def remove(self) -> bool:
        """Remove it, and return whether it is gone.

        It stays if somebody writes to it, or has gone on with it since it was found.
        """
        path = layout.upload_data(self.repository, self.id)
        writer = None
        try:
            # A writer makes the file if there is none; then nothing can be under way.
            with suppress(PathNotFound):
                await self.driver.stat(path)
                writer = await self.driver.writer(path)
        except WriterBusy:
            return False
        try:
            last_activity = await _last_activity(self.driver, self.repository, self.id)
            if last_activity is None or last_activity >= self.before:
                return False
            with suppress(PathNotFound):
                await self.driver.delete(layout.upload(self.repository, self.id))
            return True
        finally:
            if writer is not None:
                await writer.close()


async def find_abandoned_uploads(
    driver: IStorageDriver, before: float
) -> AsyncIterator[AbandonedUpload]:
    """Find the uploads of all repositories that were last touched before a time.

    :param before: seconds since the epoch.
    """
    async for name in catalog.walk_repositories(driver, markers=layout.UPLOAD_MARKERS):
        last = ""
        while True:
            entries = await _list_uploads(driver, name, last)
            for entry in entries:
                if not entry.is_folder or not is_upload_id(entry.path):
                    continue
                last_activity = await _last_activity(driver, name, entry.path)
                if last_activity is not None and last_activity < before:
                    yield AbandonedUpload(driver, name, entry.path, last_activity, before)
            if len(entries) < _PAGE_SIZE:
                break
            last = entries[-1].path


@translate_storage_errors
async def _list_uploads(driver: IStorageDriver, name: str, after: str) -> Sequence[Entry]:
    try:
        return await driver.list(layout.uploads(name), after, _PAGE_SIZE)
    except PathNotFound:
        return ()


@translate_storage_errors
async def _last_activity(driver: IStorageDriver, name: str, upload_id: str) -> float | None:
    """When an upload was last touched; None if it is gone or nothing tells."""
    try:
        entries = await driver.list(layout.upload(name, upload_id))
    except PathNotFound:
        return None
    times = [entry.modified / 1e9 for entry in entries if entry.modified is not None]
    if times:
        return max(times)
    with suppress(PathNotFound, ValueError):
        content = await driver.get(layout.upload_started(name, upload_id), _MAX_STARTEDAT_BYTES)
        started = datetime.fromisoformat(content.decode("ascii").strip())
        return started.astimezone(UTC).timestamp()
    with suppress(PathNotFound):
        folder = await driver.stat(layout.upload(name, upload_id))
        return None if folder.modified is None else folder.modified / 1e9
    return None
