"""Bytes on their way in (distribution specification, "Pushing blobs").

An upload is a folder with the bytes so far. One writer at a time holds it; whatever was written
when a client leaves stays, so that it can go on, after a restart as well. The digest is compared
before the bytes move under their name, so that no name ever shows anything else.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import uuid4

from attrs import field, frozen

from twisted_registry.digest import CANONICAL, Digest, hasher
from twisted_registry.errors import ErrorCode, RegistryError
from twisted_registry.reference import is_upload_id
from twisted_registry.repository import layout
from twisted_registry.repository.failures import translate_storage_errors
from twisted_registry.repository.links import put_link
from twisted_registry.repository.running import Checkpoint, RunningHashes, RunningHash
from twisted_registry.repository.streaming import stream_body
from twisted_registry.storage.interfaces import (
    Move,
    OffsetInvalid,
    PathNotFound,
    Remove,
    WriterBusy,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.internet.interfaces import IReactorTime
    from twisted.web.iweb import IBodyProducer

    from twisted_registry.repository.blobs import Blobs
    from twisted_registry.storage.interfaces import Change, IStorageDriver
    from twisted_registry.storage.streams import IWriter

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
        if running_hash is not None and running_hash.mark != writer.mark:
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
                        Checkpoint(size, running_hash.digest(), writer.mark).to_bytes(),
                        durable=False,
                    )
            if running_hash is not None and 0 < running_hash.size == size:
                running_hash.mark = writer.mark
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
            and (checkpoint.size, checkpoint.mark) == (writer.size, writer.mark)
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
        self, upload: Upload, digest: Digest, running_hash: RunningHash | None, found: Digest | None = None
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
            if running_hash is None or (running_hash.size, running_hash.algorithm) != (size, self.digest.algorithm):
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
