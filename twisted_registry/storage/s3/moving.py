"""How files get other names, in a store that can not rename."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define
from twisted.internet.defer import inlineCallbacks

from twisted_registry.storage.interfaces import MoveRefused, StorageError
from twisted_registry.storage.s3.errors import PreconditionFailed
from twisted_registry.storage.s3.sinks import PartSink, PieceSink

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted_registry.storage.s3.copying import Copier
    from twisted_registry.storage.s3.files import FileLookup, StoredFile
    from twisted_registry.storage.s3.interfaces import IS3Client
    from twisted_registry.storage.s3.keys import KeyMapping
    from twisted_registry.storage.s3.removing import ObjectDeleter
    from twisted_registry.storage.s3.sinks import DeferredGenerator
    from twisted_registry.storage.s3.writers import OpenWriters


@define(eq=False)
class FileMover:
    """Copies and moves files."""

    _client: IS3Client
    _keys: KeyMapping
    _lookup: FileLookup
    _copier: Copier
    _deleter: ObjectDeleter
    _writers: OpenWriters

    @inlineCallbacks
    def copy(self, source: str, destination: str) -> DeferredGenerator:
        """Copy a file, whole or not, to a whole one."""
        found = self._writers.find_unfinished(source)
        if found is None:
            found = yield self._lookup.find(source)
        yield self._copy(found, destination)

    @inlineCallbacks
    def move(
        self,
        source: str,
        destination: str,
        *,
        keep_source: bool = False,
        still: Callable[[], bool] | None = None,
    ) -> DeferredGenerator:
        """Copy a file and delete it; one that was begun under its later name is only published.

        :param leave: whether the source is deleted afterwards in any case.
        :param still: whether it may be deleted, once the copy is there.
        """
        sink = self._writers.sink(source)
        if isinstance(sink, PartSink):
            if sink.destination != self._keys.object_key(destination):
                raise StorageError(source, f"was begun as another file than {destination}")
            yield sink.publish()
            return
        if isinstance(sink, PieceSink) and not sink.is_gone:
            found = self._writers.found(source, sink)
        else:
            found = yield self._lookup.find(source)
        if source != destination:
            yield self._copy(found, destination)
            if still is not None and not still():
                yield self._client.delete_object(self._keys.object_key(destination))
                raise MoveRefused(source)
            if not keep_source:
                yield self._remove(found)
            if isinstance(sink, PieceSink):
                sink.mark_moved()

    @inlineCallbacks
    def _copy(self, found: StoredFile, destination: str) -> DeferredGenerator:
        key = self._keys.object_key(destination)
        try:
            if found.piece_list is None:
                yield self._copier.copy(found.info, key)
            elif found.piece_list.pieces:
                yield self._copier.join_pieces(found.piece_list, self._keys.pieces(found.path), key)
            else:
                yield self._client.put_object(key, b"")
        except PreconditionFailed as error:
            raise StorageError(found.path, "was changed while it was copied") from error

    @inlineCallbacks
    def _remove(self, found: StoredFile) -> DeferredGenerator:
        key = self._keys.object_key(found.path)
        if found.piece_list is None:
            yield self._client.delete_object(key)
        else:
            prefix = self._keys.pieces(found.path)
            yield self._deleter.keys([key, *(prefix + name for name in found.piece_list.names)])
