"""The open writers of this process: how they are opened, and what they know of their files."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from attrs import define, field
from twisted.internet.defer import inlineCallbacks

from twisted_registry.storage.interfaces import (
    OffsetInvalid,
    PathNotFound,
    StorageError,
    WriterBusy,
)
from twisted_registry.storage.s3.errors import NotFound, none_if_missing
from twisted_registry.storage.s3.files import gather_limited
from twisted_registry.storage.s3.pieces import Piece, PieceList
from twisted_registry.storage.s3.writer import ObjectWriter, UploadTools

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.defer import Deferred

    from twisted_registry.storage.interfaces import IWriter
    from twisted_registry.storage.s3.files import FileLookup, KeyMapping, StoredFile
    from twisted_registry.storage.s3.interfaces import DeferredGenerator, ObjectInfo

#: Maximum size of a piece list that is read by one request; one of 700 pieces has as much.
_MAX_QUICK_LIST_BYTES: Final = 64 * 1024


@define(eq=False)
class OpenWriters:
    """The open writers of one process, by path.

    :ivar tools: what they share.
    """

    _tools: UploadTools
    _keys: KeyMapping
    _lookup: FileLookup
    #: None while a writer is being opened
    _open: dict[str, ObjectWriter | None] = field(factory=dict, init=False)

    @inlineCallbacks
    def open_writer(
        self,
        path: str,
        offset: int | None,
        observe: Callable[[bytes], object] | None,
        destination: str | None,
        present: str | None,
        absent: str | None,
    ) -> DeferredGenerator[IWriter]:
        """Fire with a writer; see :meth:`IStorageDriver.writer`."""
        if path in self._open:
            raise WriterBusy(path)
        self._open[path] = None
        is_direct = destination is not None and offset == 0
        try:
            yield self._check_preconditions(path, present, absent)
            found: StoredFile | None = yield self._find(path, offset, is_new=is_direct)
            piece_list: PieceList = yield self._pieces_of(found)
        except BaseException:
            del self._open[path]
            raise
        keys = self._keys
        writer = self._open[path] = ObjectWriter(
            self._tools,
            path,
            keys.object_key(path),
            keys.pieces_prefix(path),
            keys.object_key(destination) if is_direct and destination else "",
            piece_list,
            found is not None,
            partial(self._open.pop, path),
            observe,
        )
        return writer

    def settled_writer(self, path: str) -> ObjectWriter | None:
        """Return the writer of a path, or None.

        :raises StorageError: if the writer has bytes that are not stored yet.
        """
        writer = self._open.get(path)
        if writer is not None and not writer.is_settled:
            raise StorageError(path, "is being written")
        return writer

    def find_unfinished(self, path: str) -> StoredFile | None:
        """Return the file of an open writer, unless it was moved, deleted or is empty."""
        writer = self._open.get(path)
        if writer is None or writer.destination or writer.is_gone or not writer.piece_list.pieces:
            return None
        return writer.stored_file

    def mark_removed(self, path: str) -> None:
        """Mark the writers of a deleted file or folder, so that they do not save their files."""
        for other, writer in self._open.items():
            if writer is not None and (other == path or other.startswith(f"{path}/")):
                writer.mark_removed()

    @inlineCallbacks
    def _check_preconditions(
        self, path: str, present: str | None, absent: str | None
    ) -> DeferredGenerator[None]:
        """Check that the file ``present`` exists, and that ``absent`` does not."""
        conditions = [(name, wanted) for name, wanted in ((present, True), (absent, False)) if name]

        def head(name: str) -> Deferred[ObjectInfo | None]:
            return self._tools.client.head_object(self._keys.object_key(name)).addErrback(
                none_if_missing
            )

        infos: Sequence[ObjectInfo | None] = yield gather_limited(
            2, [partial(head, name) for name, _ in conditions]
        )
        for info, (name, wanted) in zip(infos, conditions, strict=True):
            if (info is not None) != wanted:
                state = "is missing" if wanted else "exists"
                raise PathNotFound(path, f"cannot be written: {name} {state}")

    @inlineCallbacks
    def _find(
        self, path: str, offset: int | None, *, is_new: bool
    ) -> DeferredGenerator[StoredFile | None]:
        """Fire with the file that a writer continues, or None if there is none.

        :param offset: required size of the file; None accepts any.
        :param is_new: whether the file is expected to be missing.
        """
        found: StoredFile | None
        try:
            if is_new:
                found = yield self._lookup.find(path)
            else:
                found, _ = yield self._lookup.read_file(path, _MAX_QUICK_LIST_BYTES)
        except NotFound:
            found = None
        size = 0 if found is None else found.size
        if offset is not None and offset != size:
            raise OffsetInvalid(path, f"ends at {size}", size=size)
        return found

    @inlineCallbacks
    def _pieces_of(self, found: StoredFile | None) -> DeferredGenerator[PieceList]:
        """Fire with the pieces of a file. A complete file is copied, and is the first piece."""
        if found is None or not found.size:
            return PieceList()
        if found.piece_list is not None:
            return found.piece_list
        name = uuid4().hex
        key = self._keys.pieces_prefix(found.path) + name
        yield self._tools.copier.copy(found.info, key)
        info: ObjectInfo = yield self._tools.client.head_object(key)
        return PieceList((Piece(name, found.size, info.etag),))
