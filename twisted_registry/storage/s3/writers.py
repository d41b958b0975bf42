"""The writers of this process: how one begins, and what the others of it know of its file."""

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
from twisted_registry.storage.s3.files import FileLookup, StoredFile, at_once
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
    from collections.abc import Callable

    from twisted.internet.defer import Deferred

    from twisted_registry.storage.s3.files import Copier, KeyMapping
    from twisted_registry.storage.s3.interfaces import IS3Client
    from twisted_registry.storage.s3.sinks import DeferredGenerator, ISink
    from twisted_registry.storage.s3.writer import ChangesFor
    from twisted_registry.storage.threads import Threads

#: Bytes that a part of a multipart upload must have, unless it is the last.
MIN_PART_BYTES: Final = 5 * 1024 * 1024
#: Uploads at once that are parts of multipart uploads, and can not hold less than one.
_MAX_PART_UPLOADS: Final = 6


@define(eq=False)
class OpenWriters:
    """The writers of one process.

    :ivar budget: of the memory that they share.
    :ivar chunk: bytes of the pieces of an upload.
    :ivar conclude: makes the changes that end a file.
    """

    _client: IS3Client
    _keys: KeyMapping
    _lookup: FileLookup
    _copier: Copier
    _threads: Threads
    _budget: MemoryBudget
    _chunk: int
    _apply_changes: Callable[[ObjectWriter, ChangesFor], Deferred[int]]
    _slots: PartUploadSlots = field(factory=lambda: PartUploadSlots(_MAX_PART_UPLOADS), init=False)
    #: None while one is being opened
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
    ) -> DeferredGenerator:
        """Fire with a writer; see ``IStorageDriver.writer``."""
        if path in self._open:
            raise WriterBusy(path)
        self._open[path] = None
        try:
            if present is not None or absent is not None:
                yield self._check_preconditions(path, present, absent)
            if destination is not None and offset == 0:
                yield self._require_absent(path)
                parts = PartSink(self._client, self._keys.object_key(destination), MIN_PART_BYTES)
                new = partial(self._make_piece_sink, path, PieceList(), is_saved=False)
                sink: ISink = AdaptiveSink(parts, new, self._slots)
            else:
                sink = yield self._resume_piece_sink(path, offset)
        except BaseException:
            del self._open[path]
            raise
        free = partial(self._open.pop, path)
        writer = self._open[path] = ObjectWriter(
            self._apply_changes, path, sink, self._threads, self._budget, self._chunk, free, observe
        )
        return writer

    def sink(self, path: str) -> PieceSink | PartSink | None:
        """Where the writer of a path puts its bytes, if there is one.

        :raises StorageError: if some of them are not there yet.
        """
        writer = self._open.get(path)
        if writer is None:
            return None
        if not writer.is_settled:
            raise StorageError(path, "is being written")
        return writer.sink.current

    def find_unfinished(self, path: str) -> StoredFile | None:
        """What was stored of a file that is neither moved nor deleted, if it has a writer."""
        writer = self._open.get(path)
        sink = None if writer is None else writer.sink.current
        if not isinstance(sink, PieceSink) or not sink.has_pieces:
            return None
        return self.found(path, sink)

    def found(self, path: str, sink: PieceSink) -> StoredFile:
        """What a sink knows of its file."""
        return StoredFile(path, ObjectInfo(self._keys.object_key(path), 0, ""), sink.piece_list)

    def removed(self, path: str) -> None:
        """A file or folder was deleted: what is being written there must not come back."""
        for other, writer in self._open.items():
            sink = None if writer is None else writer.sink.current
            if isinstance(sink, PieceSink) and (other == path or other.startswith(f"{path}/")):
                sink.removed()

    @inlineCallbacks
    def _require_absent(self, path: str) -> DeferredGenerator:
        info = yield self._client.head_object(self._keys.object_key(path)).addErrback(
            none_if_missing
        )
        if info is not None:
            size = unfinished_size(info.metadata)
            size = info.size if size is None else size
            if size:
                raise OffsetInvalid(path, f"ends at {size}", size=size)

    @inlineCallbacks
    def _check_preconditions(
        self, path: str, present: str | None, absent: str | None
    ) -> DeferredGenerator:
        wanted = [(one, there) for one, there in ((present, True), (absent, False)) if one]

        def look(one: str) -> Deferred[ObjectInfo | None]:
            return self._client.head_object(self._keys.object_key(one)).addErrback(none_if_missing)

        found = yield at_once(len(wanted), [partial(look, one) for one, _ in wanted])
        for info, (_, there) in zip(found, wanted, strict=True):
            if (info is not None) != there:
                raise PathNotFound(path, "may not be written by what lies beside it")

    @inlineCallbacks
    def _resume_piece_sink(self, path: str, offset: int | None) -> DeferredGenerator:
        found: StoredFile | None = None
        try:
            found, _ = yield self._lookup.read(path, 0)
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
            # A whole object that is to grow: the one piece of it, so far.
            name = uuid4().hex
            key = self._keys.pieces(path) + name
            yield self._copier.copy(found.info, key)
            info = yield self._client.head_object(key)
            piece_list = PieceList((Piece(name, size, info.etag),))
        return self._make_piece_sink(path, piece_list, is_saved=found is not None)

    def _make_piece_sink(self, path: str, piece_list: PieceList, *, is_saved: bool) -> PieceSink:
        key, prefix = self._keys.object_key(path), self._keys.pieces(path)
        return PieceSink(self._client, key, prefix, piece_list, is_saved, MIN_PART_BYTES)
