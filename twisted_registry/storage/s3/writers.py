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
from twisted_registry.storage.s3.files import FileLookup, StoredFile, gather_limited
from twisted_registry.storage.s3.interfaces import ObjectInfo
from twisted_registry.storage.s3.sinks import (
    AdaptiveSink,
    PartSink,
    Piece,
    PieceList,
    PieceSink,
    unfinished_size,
)
from twisted_registry.storage.s3.writer import MemoryBudget, ObjectWriter, PartUploadSlots

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.defer import Deferred

    from twisted_registry.storage.interfaces import IWriter
    from twisted_registry.storage.s3.files import Copier, KeyMapping
    from twisted_registry.storage.s3.interfaces import DeferredGenerator, IS3Client
    from twisted_registry.storage.s3.sinks import ISink
    from twisted_registry.storage.s3.writer import ChangesFor
    from twisted_registry.storage.threads import Threads

#: Minimum size of a part of a multipart upload, except the last.
MIN_PART_BYTES: Final = 5 * 1024 * 1024
#: Maximum number of writers that upload parts, which cannot hold less than one part in memory.
_MAX_PART_UPLOADS: Final = 6


@define(eq=False)
class OpenWriters:
    """The open writers of one process, by path.

    :ivar budget: memory that they share.
    :ivar chunk_bytes: size of the chunks that a writer stores.
    :ivar apply_changes: makes the changes that finish a file.
    """

    _client: IS3Client
    _keys: KeyMapping
    _lookup: FileLookup
    _copier: Copier
    _threads: Threads
    _budget: MemoryBudget
    _chunk_bytes: int
    _apply_changes: Callable[[ObjectWriter, ChangesFor], Deferred[int]]
    _slots: PartUploadSlots = field(factory=lambda: PartUploadSlots(_MAX_PART_UPLOADS), init=False)
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
            if destination is not None and offset == 0:
                yield self._require_empty(path)
                parts = PartSink(self._client, self._keys.object_key(destination), MIN_PART_BYTES)
                make_pieces = partial(self._make_piece_sink, path, PieceList(), is_saved=False)
                sink: ISink = AdaptiveSink(parts, make_pieces, self._slots)
            else:
                sink = yield self._resume_piece_sink(path, offset)
        except BaseException:
            del self._open[path]
            raise
        writer = self._open[path] = ObjectWriter(
            self._apply_changes,
            path,
            sink,
            self._threads,
            self._budget,
            self._chunk_bytes,
            partial(self._open.pop, path),
            observe,
        )
        return writer

    def sink_of(self, path: str) -> PieceSink | PartSink | None:
        """Return the sink of the writer of a path; None if there is no writer.

        :raises StorageError: if the writer has bytes that are not stored yet.
        """
        writer = self._open.get(path)
        if writer is None:
            return None
        if not writer.is_settled:
            raise StorageError(path, "is being written")
        return writer.sink.current

    def find_unfinished(self, path: str) -> StoredFile | None:
        """Return the file of an open writer, unless it was moved, deleted or is empty."""
        writer = self._open.get(path)
        sink = None if writer is None else writer.sink.current
        if not isinstance(sink, PieceSink) or not sink.has_pieces:
            return None
        return self.stored_file(path, sink)

    def stored_file(self, path: str, sink: PieceSink) -> StoredFile:
        """Return the unfinished file of a sink."""
        return StoredFile(path, ObjectInfo(self._keys.object_key(path), 0, ""), sink.piece_list)

    def mark_removed(self, path: str) -> None:
        """Mark the writers of a deleted file or folder, so that they do not save their files."""
        for other, writer in self._open.items():
            sink = None if writer is None else writer.sink.current
            if isinstance(sink, PieceSink) and (other == path or other.startswith(f"{path}/")):
                sink.mark_removed()

    @inlineCallbacks
    def _require_empty(self, path: str) -> DeferredGenerator[None]:
        """Check that a file is missing or empty."""
        info: ObjectInfo | None = yield self._client.head_object(
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
            return self._client.head_object(self._keys.object_key(name)).addErrback(none_if_missing)

        infos: Sequence[ObjectInfo | None] = yield gather_limited(
            len(conditions), [partial(head, name) for name, _ in conditions]
        )
        for info, (name, wanted) in zip(infos, conditions, strict=True):
            if (info is not None) != wanted:
                state = "is missing" if wanted else "exists"
                raise PathNotFound(path, f"cannot be written: {name} {state}")

    @inlineCallbacks
    def _resume_piece_sink(self, path: str, offset: int | None) -> DeferredGenerator[PieceSink]:
        """Fire with the sink that appends to a file, which is created if it does not exist.

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
        piece_list = PieceList()
        if found is not None and found.piece_list is not None:
            piece_list = found.piece_list
        elif found is not None and size:
            # A complete object becomes the first piece of the unfinished file.
            name = uuid4().hex
            key = self._keys.pieces_prefix(path) + name
            yield self._copier.copy(found.info, key)
            info: ObjectInfo = yield self._client.head_object(key)
            piece_list = PieceList((Piece(name, size, info.etag),))
        return self._make_piece_sink(path, piece_list, is_saved=found is not None)

    def _make_piece_sink(self, path: str, piece_list: PieceList, *, is_saved: bool) -> PieceSink:
        key, prefix = self._keys.object_key(path), self._keys.pieces_prefix(path)
        return PieceSink(self._client, key, prefix, piece_list, is_saved, MIN_PART_BYTES)
