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
from twisted_registry.storage.s3.budget import Budget, Slots
from twisted_registry.storage.s3.copying import at_once
from twisted_registry.storage.s3.errors import NotFound
from twisted_registry.storage.s3.failures import nothing
from twisted_registry.storage.s3.files import Files, Found
from twisted_registry.storage.s3.knownsink import KnownSink
from twisted_registry.storage.s3.objects import ObjectInfo
from twisted_registry.storage.s3.plan import Piece, Plan, noted_size
from twisted_registry.storage.s3.sinks import PartSink, PieceSink
from twisted_registry.storage.s3.writer import ObjectWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred

    from twisted_registry.storage.s3.copying import Copier
    from twisted_registry.storage.s3.interfaces import IS3Client
    from twisted_registry.storage.s3.keys import Keys
    from twisted_registry.storage.s3.sinks import ISink, Steps
    from twisted_registry.storage.s3.writer import Decide
    from twisted_registry.storage.threads import Threads

#: Bytes that a part of a multipart upload must have, unless it is the last.
LEAST_PART: Final = 5 * 1024 * 1024
#: Uploads at once that are parts of multipart uploads, and can not hold less than one.
_SLOTS: Final = 6


@define(eq=False)
class Writers:
    """The writers of one process.

    :ivar budget: of the memory that they share.
    :ivar chunk: bytes of the pieces of an upload.
    :ivar conclude: makes the changes that end a file.
    """

    _client: IS3Client
    _keys: Keys
    _files: Files
    _copier: Copier
    _threads: Threads
    _budget: Budget
    _chunk: int
    _conclude: Callable[[ObjectWriter, Decide], Deferred[int]]
    _slots: Slots = field(factory=lambda: Slots(_SLOTS), init=False)
    #: None while one is being opened
    _open: dict[str, ObjectWriter | None] = field(factory=dict, init=False)

    @inlineCallbacks
    def begin(
        self,
        path: str,
        offset: int | None,
        observe: Callable[[bytes], object] | None,
        destination: str | None,
        present: str | None,
        absent: str | None,
    ) -> Steps:
        """Fire with a writer; see ``IStorageDriver.writer``."""
        if path in self._open:
            raise WriterBusy(path)
        self._open[path] = None
        try:
            if present is not None or absent is not None:
                yield self._look_beside(path, present, absent)
            if destination is not None and offset == 0:
                yield self._insist_on_nothing(path)
                parts = PartSink(self._client, self._keys.of(destination), LEAST_PART)
                new = partial(self._new_sink, path, Plan(), is_saved=False)
                sink: ISink = KnownSink(parts, new, self._slots)
            else:
                sink = yield self._piece_sink(path, offset)
        except BaseException:
            del self._open[path]
            raise
        free = partial(self._open.pop, path)
        writer = self._open[path] = ObjectWriter(
            self._conclude, path, sink, self._threads, self._budget, self._chunk, free, observe
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

    def unfinished(self, path: str) -> Found | None:
        """What was stored of a file that is neither moved nor deleted, if it has a writer."""
        writer = self._open.get(path)
        sink = None if writer is None else writer.sink.current
        if not isinstance(sink, PieceSink) or not sink.is_there:
            return None
        return self.found(path, sink)

    def found(self, path: str, sink: PieceSink) -> Found:
        """What a sink knows of its file."""
        return Found(path, ObjectInfo(self._keys.of(path), 0, ""), sink.plan)

    def removed(self, path: str) -> None:
        """A file or folder was deleted: what is being written there must not come back."""
        for other, writer in self._open.items():
            sink = None if writer is None else writer.sink.current
            if isinstance(sink, PieceSink) and (other == path or other.startswith(f"{path}/")):
                sink.removed()

    @inlineCallbacks
    def _insist_on_nothing(self, path: str) -> Steps:
        info = yield self._client.head_object(self._keys.of(path)).addErrback(nothing)
        if info is not None:
            size = noted_size(info.note)
            size = info.size if size is None else size
            if size:
                raise OffsetInvalid(path, f"ends at {size}", size=size)

    @inlineCallbacks
    def _look_beside(self, path: str, present: str | None, absent: str | None) -> Steps:
        wanted = [(one, there) for one, there in ((present, True), (absent, False)) if one]

        def look(one: str) -> Deferred[ObjectInfo | None]:
            return self._client.head_object(self._keys.of(one)).addErrback(nothing)

        found = yield at_once(len(wanted), [partial(look, one) for one, _ in wanted])
        for info, (_, there) in zip(found, wanted, strict=True):
            if (info is not None) != there:
                raise PathNotFound(path, "may not be written by what lies beside it")

    @inlineCallbacks
    def _piece_sink(self, path: str, offset: int | None) -> Steps:
        found: Found | None = None
        try:
            found, _ = yield self._files.read(path, 0)
        except NotFound:
            pass
        except StorageError:
            found = yield self._files.find(path)
        size = 0 if found is None else found.size
        if offset is not None and offset != size:
            raise OffsetInvalid(path, f"ends at {size}", size=size)
        plan = Plan()
        if found is not None and found.plan is not None:
            plan = found.plan
        elif found is not None and size:
            # A whole object that is to grow: the one piece of it, so far.
            name = uuid4().hex
            key = self._keys.pieces(path) + name
            yield self._copier.copy(found.info, key)
            info = yield self._client.head_object(key)
            plan = Plan((Piece(name, size, info.etag),))
        return self._new_sink(path, plan, is_saved=found is not None)

    def _new_sink(self, path: str, plan: Plan, *, is_saved: bool) -> PieceSink:
        key, prefix = self._keys.of(path), self._keys.pieces(path)
        return PieceSink(self._client, key, prefix, plan, is_saved, LEAST_PART)
