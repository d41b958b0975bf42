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
    from twisted_registry.storage.s3.files import Files, Found
    from twisted_registry.storage.s3.interfaces import IS3Client
    from twisted_registry.storage.s3.keys import Keys
    from twisted_registry.storage.s3.removing import Remover
    from twisted_registry.storage.s3.sinks import Steps
    from twisted_registry.storage.s3.writers import Writers


@define(eq=False)
class Mover:
    """Copies and moves files."""

    _client: IS3Client
    _keys: Keys
    _files: Files
    _copier: Copier
    _remover: Remover
    _writers: Writers

    @inlineCallbacks
    def copy(self, source: str, destination: str) -> Steps:
        """Copy a file, whole or not, to a whole one."""
        found = self._writers.unfinished(source)
        if found is None:
            found = yield self._files.find(source)
        yield self._copy(found, destination)

    @inlineCallbacks
    def move(
        self,
        source: str,
        destination: str,
        *,
        leave: bool = False,
        still: Callable[[], bool] | None = None,
    ) -> Steps:
        """Copy a file and delete it; one that was begun under its later name is only published.

        :param leave: whether the source is deleted afterwards in any case.
        :param still: whether it may be deleted, once the copy is there.
        """
        sink = self._writers.sink(source)
        if isinstance(sink, PartSink):
            if sink.destination != self._keys.of(destination):
                raise StorageError(source, f"was begun as another file than {destination}")
            yield sink.publish()
            return
        if isinstance(sink, PieceSink) and not sink.is_gone:
            found = self._writers.found(source, sink)
        else:
            found = yield self._files.find(source)
        if source != destination:
            yield self._copy(found, destination)
            if still is not None and not still():
                yield self._client.delete_object(self._keys.of(destination))
                raise MoveRefused(source)
            if not leave:
                yield self._remove(found)
            if isinstance(sink, PieceSink):
                sink.moved()

    @inlineCallbacks
    def _copy(self, found: Found, destination: str) -> Steps:
        key = self._keys.of(destination)
        try:
            if found.plan is None:
                yield self._copier.copy(found.info, key)
            elif found.plan.pieces:
                yield self._copier.join(found.plan, self._keys.pieces(found.path), key)
            else:
                yield self._client.put_object(key, b"")
        except PreconditionFailed as error:
            raise StorageError(found.path, "was changed while it was copied") from error

    @inlineCallbacks
    def _remove(self, found: Found) -> Steps:
        key = self._keys.of(found.path)
        if found.plan is None:
            yield self._client.delete_object(key)
        else:
            prefix = self._keys.pieces(found.path)
            yield self._remover.keys([key, *(prefix + name for name in found.plan.names)])
