"""One blob from a store into another: hashed on the way, named only when it is whole."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from attrs import define, field
from twisted.internet.defer import CancelledError

from twisted_registry.repository import layout
from twisted_registry.repository.failures import translate_storage_errors
from twisted_registry.repository.running import RunningHash
from twisted_registry.storage.interfaces import (
    Move,
    OffsetInvalid,
    PathNotFound,
    StorageError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted_registry.digest import Digest
    from twisted_registry.storage.interfaces import Change, IStorageDriver
    from twisted_registry.storage.streams import IReader, IWriter

#: How often the bytes of a blob are read that are not those of its digest: the way may be bad, and
#: not the store.
_ATTEMPTS = 2


class BlobDamaged(Exception):
    """The source has not the bytes of this digest; the text says what it has."""


class BlobMissing(Exception):
    """The source has no such blob (any more)."""


class _DigestMismatch(Exception):
    """What was read has another digest."""


@define(eq=False, repr=False)
class BlobCopier:
    """Copies blobs.

    :ivar finished: bytes of the blobs that were copied.
    """

    source: IStorageDriver
    destination: IStorageDriver
    finished_bytes: int = field(init=False, default=0)
    _writers: set[IWriter] = field(init=False, factory=set)

    @property
    def copied_bytes(self) -> int:
        """Bytes that were copied, those of blobs that are under way included."""
        return self.finished_bytes + sum(writer.size for writer in self._writers)

    async def copy(self, digest: Digest) -> int:
        """Copy a blob, replacing what the destination has under its name; return its size.

        :raises BlobMissing: if there is none.
        :raises BlobDamaged: if the source has other bytes under its name, or can not read them.
        :raises RegistryError: if the destination can not take it.
        """
        for _ in range(_ATTEMPTS):
            try:
                reader: IReader = await self.source.open(layout.blob(digest))
            except PathNotFound as error:
                raise BlobMissing from error
            except StorageError as error:
                raise BlobDamaged(str(error)) from error
            try:
                size = await self._store(digest, reader)
            except _DigestMismatch as error:
                found = error
            else:
                self.finished_bytes += size
                return size
            finally:
                reader.close()
        raise BlobDamaged(str(found))

    @translate_storage_errors
    async def delete_interrupted(self) -> None:
        """Remove what copies that were interrupted have left at the destination."""
        with suppress(PathNotFound):
            await self.destination.delete(layout.INCOMING)

    @translate_storage_errors
    async def _store(self, digest: Digest, reader: IReader) -> int:
        running_hash = RunningHash(digest.algorithm)
        writer = await self._writer(digest, running_hash)
        self._writers.add(writer)
        try:
            await _copy_stream(reader, writer)
            return await writer.finalize(_MoveIfVerified(digest, running_hash).changes)
        finally:
            self._writers.remove(writer)
            # After the end it does nothing; otherwise nothing stays of what was begun.
            await writer.cancel()

    async def _writer(self, digest: Digest, running_hash: RunningHash) -> IWriter:
        path, destination = layout.incoming(digest), layout.blob(digest)
        try:
            return await self.destination.writer(path, 0, running_hash.update, destination=destination)
        except OffsetInvalid:
            # An earlier copy was killed here.
            await self.destination.delete(path)
            return await self.destination.writer(path, 0, running_hash.update, destination=destination)


async def _copy_stream(reader: IReader, writer: IWriter) -> None:
    """Let a reader write itself into a writer.

    :raises BlobDamaged: if it can not be read.
    """
    try:
        await reader.deliver(writer)
    except CancelledError:
        # If the writer has stopped it, that tells why.
        await writer.flush()
        raise
    except StorageError as error:
        raise BlobDamaged(str(error)) from error


@define(eq=False)
class _MoveIfVerified:
    """Names the bytes, if they are those of the digest."""

    digest: Digest
    running_hash: RunningHash

    def changes(self, size: int) -> Sequence[Change]:
        """What to change.

        :raises _DigestMismatch: if there is another name for them.
        """
        found = self.running_hash.digest()
        if found != self.digest or self.running_hash.size != size:
            raise _DigestMismatch(f"its bytes are those of {found}")
        return [Move(layout.incoming(self.digest), layout.blob(self.digest))]
