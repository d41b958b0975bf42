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

from attrs import define, field, frozen

from twisted_registry.digest import CANONICAL, Digest, hasher
from twisted_registry.errors import ErrorCode, RegistryError
from twisted_registry.reference import is_upload_id
from twisted_registry.repository import layout
from twisted_registry.repository.failures import translated
from twisted_registry.repository.running import Checkpoint, RunningDigests, Tally
from twisted_registry.repository.streaming import stream
from twisted_registry.storage.interfaces import OffsetInvalid, PathNotFound, WriterBusy

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime
    from twisted.web.iweb import IBodyProducer

    from twisted_registry.repository.blobs import Blobs
    from twisted_registry.storage.interfaces import IStorageDriver, IWriter


@frozen(eq=False)
class UploadOutOfOrder(RegistryError):
    """These bytes do not follow those that are stored, or somebody else is writing.

    :ivar size: bytes stored, from which to go on.
    """

    size: int = field(default=0, kw_only=True)


@define(eq=False, repr=False)
class Uploads:
    """The uploads of one repository."""

    driver: IStorageDriver
    clock: IReactorTime
    name: str
    blobs: Blobs
    running: RunningDigests

    @translated
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

    @translated
    async def find(self, upload_id: str) -> Upload:
        """Look up an upload.

        :raises RegistryError: BLOB_UPLOAD_UNKNOWN.
        """
        if is_upload_id(upload_id):
            size = await self._stored(layout.upload_data(self.name, upload_id))
            if size or await self.is_fresh(upload_id):
                return Upload(self, upload_id, size or 0)
        raise _unknown(upload_id)

    async def is_fresh(self, upload_id: str) -> bool:
        """Whether an upload without bytes was begun and has not ended.

        A checkpoint beside no bytes is one of bytes that moved to their name, when a crash or a
        failure kept the rest from being removed. Such an upload must not begin anew: a process
        that knows the digest of the first bytes would believe it of others.
        """
        started = await self._stored(layout.upload_started(self.name, upload_id))
        if started is None:
            return False
        return await self._stored(layout.upload_checkpoint(self.name, upload_id)) is None

    @translated
    async def store(self, digest: Digest, body: IBodyProducer) -> int:
        """Take a whole blob in one request (end-4b), and return its size.

        Nothing stays behind if it does not come whole or has another digest.
        """
        upload = Upload(self, str(uuid4()), 0, secret=True)
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


@define(eq=False, repr=False)
class Upload:
    """One upload.

    :ivar size: bytes stored when it was looked up, or after what was done through this object.
    :ivar secret: whether nobody was told its id, so that one request is all that it sees.
    """

    uploads: Uploads
    id: str
    size: int
    secret: bool = False

    @translated
    async def append(
        self, body: IBodyProducer, *, start: int | None = None, algorithm: str = CANONICAL
    ) -> int:
        """Take more bytes (end-5), and return how many there are now.

        :param body: what to append; it is asked to start when nothing stands against it.
        :param start: the offset that the client believes to be next; None takes any.
        :param algorithm: which digest to compute along the way.
        :raises UploadOutOfOrder: if ``start`` is not the end, or another request is writing.
        """
        writer, tally = await self._open(start, algorithm)
        try:
            await stream(body, writer)
        finally:
            # Also when the client has left: what came stays, and can be continued.
            self.size = await self._let_go(writer, tally)
        return self.size

    @translated
    async def finish(
        self, digest: Digest, body: IBodyProducer | None = None, *, start: int | None = None
    ) -> int:
        """Take the last bytes if there are any, check the digest, store the blob (end-6).

        :param digest: what the client says the whole is.
        :returns: the blob's size.
        :raises RegistryError: DIGEST_INVALID, and the upload is gone, as in Distribution.
        :raises UploadOutOfOrder: as :meth:`append`.
        """
        writer, tally = await self._open(start, digest.algorithm)
        # Whether nothing is left that another request could go on with.
        over = self.secret
        try:
            if body is not None:
                await stream(body, writer)
            self.size = await writer.commit()
            found = await self._digest(digest.algorithm, tally)
            if found == digest:
                async with self.uploads.blobs.presence.gate.storing(self.uploads.name, digest):
                    await self.uploads.driver.move(
                        layout.upload_data(self.uploads.name, self.id), layout.blob(digest)
                    )
            over = True
        except PathNotFound as error:
            # Cancelled by another request while this one was under way.
            over = True
            raise _unknown(self.id) from error
        finally:
            if over:
                await writer.close()
            else:
                await self._let_go(writer, tally)
        if found != digest:
            await self.discard()
            raise RegistryError(
                ErrorCode.DIGEST_INVALID,
                detail={"digest": str(digest), "found": str(found), "size": self.size},
            )
        await self.uploads.blobs.add(digest, self.size)
        await self.discard()
        return self.size

    @translated
    async def discard(self) -> None:
        """Remove the upload; no error if it is gone already (end-14)."""
        self.uploads.running.take(self.id, 0, CANONICAL)
        with suppress(PathNotFound):
            await self.uploads.driver.delete(layout.upload(self.uploads.name, self.id))

    async def _open(self, start: int | None, algorithm: str) -> tuple[IWriter, Tally | None]:
        # The tally is taken for the size that we believe in; the writer checks that belief.
        expected = self.size if start is None else start
        if expected != self.size:
            raise self._out_of_order(self.size)
        tally = self.uploads.running.take(self.id, expected, algorithm)
        try:
            writer = await self.uploads.driver.writer(
                layout.upload_data(self.uploads.name, self.id),
                expected,
                None if tally is None else tally.update,
            )
        except OffsetInvalid as error:
            raise self._out_of_order(error.size) from error
        except WriterBusy as error:
            raise self._out_of_order(self.size, "another request is writing to it") from error
        if expected == 0 and not self.secret:
            await self._insist_on_fresh(writer)
        return writer, tally

    async def _insist_on_fresh(self, writer: IWriter) -> None:
        # Opening the writer has made the folder again if the upload ended since it was looked up.
        fresh = False
        try:
            fresh = await self.uploads.is_fresh(self.id)
            if not fresh:
                raise _unknown(self.id)
        finally:
            if not fresh:
                await writer.cancel()

    async def _let_go(self, writer: IWriter, tally: Tally | None) -> int:
        """Free the writer, and keep what is known of the bytes if it is known of all of them.

        :returns: how many bytes are stored, for good.
        """
        try:
            size = await writer.flush()
            if tally is not None and 0 < tally.size == size:
                # After the flush: bytes that a power cut damages must not have a checkpoint.
                # Before the tally: no process knows a digest of an upload that has none.
                await self.uploads.driver.put(
                    layout.upload_checkpoint(self.uploads.name, self.id),
                    Checkpoint(size, tally.digest()).to_bytes(),
                    durable=False,
                )
                self.uploads.running.keep(self.id, tally)
            return size
        finally:
            await writer.close()

    def _out_of_order(self, size: int, detail: str = "not the end of what is stored") -> Exception:
        return UploadOutOfOrder(ErrorCode.RANGE_INVALID, detail=detail, size=size)

    async def _digest(self, algorithm: str, tally: Tally | None) -> Digest:
        if tally is not None and tally.size == self.size and tally.algorithm == algorithm:
            return tally.digest()
        checkpoint = await self._checkpoint()
        if (
            checkpoint is not None
            and checkpoint.size == self.size
            and checkpoint.digest.algorithm == algorithm
        ):
            return checkpoint.digest
        reader = await self.uploads.driver.open(layout.upload_data(self.uploads.name, self.id))
        running = hasher(algorithm)
        await reader.feed(running.update)
        return Digest.from_hasher(running)

    async def _checkpoint(self) -> Checkpoint | None:
        with suppress(PathNotFound):
            return Checkpoint.from_bytes(
                await self.uploads.driver.get(
                    layout.upload_checkpoint(self.uploads.name, self.id), 1024
                )
            )
        return None


def _unknown(upload_id: str) -> RegistryError:
    return RegistryError(ErrorCode.BLOB_UPLOAD_UNKNOWN, detail={"id": upload_id})
