"""The open writers of this process: how they are opened, and what they know of their files."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING
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
from twisted_registry.storage.s3.files import FileLookup, StoredFile, gather_limited
from twisted_registry.storage.s3.interfaces import ObjectInfo
from twisted_registry.storage.s3.pieces import Piece, PieceList, unfinished_size
from twisted_registry.storage.s3.writer import ObjectWriter, UploadTools

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.defer import Deferred

    from twisted_registry.storage.interfaces import IWriter
    from twisted_registry.storage.s3.files import KeyMapping
    from twisted_registry.storage.s3.interfaces import DeferredGenerator


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
        try:
            if present is not None or absent is not None:
                yield self._check_preconditions(path, present, absent)
            piece_list, is_saved = PieceList(), False
            if destination is None or offset != 0:
                destination = None
                piece_list, is_saved = yield self._continue(path, offset)
            else:
                yield self._require_empty(path)
        except BaseException:
            del self._open[path]
            raise
        keys = self._keys
        writer = self._open[path] = ObjectWriter(
            self._tools,
            path,
            keys.object_key(path),
            keys.pieces_prefix(path),
            "" if destination is None else keys.object_key(destination),
            piece_list,
            is_saved,
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
        """Return the file of an open writer, unless it was moved, deleted or is empty.

        Its list of pieces may be newer than that in the store.
        """
        writer = self._open.get(path)
        if writer is None or writer.destination or writer.is_gone or not writer.piece_list.pieces:
            return None
        return self.stored_file(writer)

    def stored_file(self, writer: ObjectWriter) -> StoredFile:
        """Return the unfinished file of a writer."""
        return StoredFile(writer.path, ObjectInfo(writer.key, 0, ""), writer.piece_list)

    def mark_removed(self, path: str) -> None:
        """Mark the writers of a deleted file or folder, so that they do not save their files."""
        for other, writer in self._open.items():
            if writer is not None and (other == path or other.startswith(f"{path}/")):
                writer.mark_removed()

    @inlineCallbacks
    def _require_empty(self, path: str) -> DeferredGenerator[None]:
        """Check that a file is missing or empty."""
        info: ObjectInfo | None = yield self._tools.client.head_object(
            self._keys.object_key(path)
        ).addErrback(none_if_missing)
        if info is not None:
            size = unfinished_size(info.metadata)
            size = info.size if size is None else size
            if size:
                raise OffsetInvalid(path, f"ends at {size}", size=size)

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
            len(conditions), [partial(head, name) for name, _ in conditions]
        )
        for info, (name, wanted) in zip(infos, conditions, strict=True):
            if (info is not None) != wanted:
                state = "is missing" if wanted else "exists"
                raise PathNotFound(path, f"cannot be written: {name} {state}")

    @inlineCallbacks
    def _continue(self, path: str, offset: int | None) -> DeferredGenerator[tuple[PieceList, bool]]:
        """Fire with the pieces of a file, and whether it exists.

        :param offset: required size of the file; None accepts any.
        """
        found: StoredFile | None = None
        try:
            found, _ = yield self._lookup.read_file(path, 0)
        except NotFound:
            pass
        except StorageError:
            found = yield self._lookup.find(path)
        size = 0 if found is None else found.size
        if offset is not None and offset != size:
            raise OffsetInvalid(path, f"ends at {size}", size=size)
        if found is not None and found.piece_list is not None:
            return found.piece_list, True
        if found is None or not size:
            return PieceList(), found is not None
        # A complete object becomes the first piece of the unfinished file.
        name = uuid4().hex
        key = self._keys.pieces_prefix(path) + name
        yield self._tools.copier.copy(found.info, key)
        info: ObjectInfo = yield self._tools.client.head_object(key)
        return PieceList((Piece(name, size, info.etag),)), True
