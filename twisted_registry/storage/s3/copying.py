"""Copies inside the store: of an object, and of the pieces of an unfinished file into one.

No byte passes through us, but for pieces at the end that are too small to be parts: less than a
part of them, all together.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import define, frozen
from twisted.internet.defer import (
    Deferred,
    DeferredList,
    DeferredSemaphore,
    inlineCallbacks,
    maybeDeferred,
)
from twisted.logger import Logger

from twisted_registry.storage.s3.objects import ObjectInfo, Part
from twisted_registry.storage.s3.rereading import read_piece

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted_registry.storage.s3.interfaces import IS3Client
    from twisted_registry.storage.s3.plan import Piece, PieceList
    from twisted_registry.storage.s3.sinks import DeferredGenerator

log = Logger()


@frozen
class CopyOptions:
    """When and how an object is copied in parts.

    :ivar threshold: bytes; larger objects are.
    :ivar part: bytes of a part.
    :ivar at_once: parts that are copied at the same time.
    """

    threshold: int = 32 * 1024 * 1024
    part: int = 32 * 1024 * 1024
    at_once: int = 100


@define(eq=False)
class Copier:
    """Copies objects of one bucket.

    :ivar least: bytes that the store takes as a part of a multipart upload.
    """

    _client: IS3Client
    _options: CopyOptions
    _min_part_bytes: int

    def copy(self, source: ObjectInfo, destination: str) -> Deferred[Any]:
        """Copy an object to another key, in one step for whoever looks there."""
        if source.size <= self._options.threshold:
            return self._client.copy_object(source.key, destination, etag=source.etag)
        size = source.size
        starts = range(0, size, self._options.part)

        def one(start: int, upload_id: str, number: int) -> Deferred[Part]:
            length = min(self._options.part, size - start)
            return self._client.upload_part_copy(
                destination, upload_id, number, source.key, (start, length), etag=source.etag
            ).addCallback(partial(Part, number, size=length))

        return self._multipart_copy(destination, [partial(one, start) for start in starts])

    def join_pieces(self, piece_list: PieceList, prefix: str, destination: str) -> Deferred[Any]:
        """Make one object of the pieces of an unfinished file.

        :param prefix: of the keys of the pieces.
        """
        pieces = piece_list.pieces
        if len(pieces) == 1:
            (only,) = pieces
            return self.copy(ObjectInfo(prefix + only.name, only.size, only.etag), destination)
        tail = piece_list.tail(self._min_part_bytes)
        if len(tail) == len(pieces):
            return self._rewrite(pieces, prefix, destination)
        if len(tail) == 1:
            tail = ()  # the last part may be small

        def copied(piece: Piece, upload_id: str, number: int) -> Deferred[Part]:
            return self._client.upload_part_copy(
                destination, upload_id, number, prefix + piece.name, etag=piece.etag
            ).addCallback(partial(Part, number, size=piece.size))

        part_makers: list[_PartMaker]
        part_makers = [partial(copied, piece) for piece in pieces[: len(pieces) - len(tail)]]
        if tail:
            part_makers.append(partial(self._upload_tail, tail, prefix, destination))
        return self._multipart_copy(destination, part_makers)

    @inlineCallbacks
    def _rewrite(self, pieces: Sequence[Piece], prefix: str, destination: str) -> DeferredGenerator:
        content = yield self._read(pieces, prefix)
        yield self._client.put_object(destination, content)

    @inlineCallbacks
    def _upload_tail(
        self, pieces: Sequence[Piece], prefix: str, destination: str, upload_id: str, number: int
    ) -> DeferredGenerator:
        content = yield self._read(pieces, prefix)
        part = yield self._client.upload_part(destination, upload_id, number, content)
        return part

    @inlineCallbacks
    def _read(self, pieces: Sequence[Piece], prefix: str) -> DeferredGenerator:
        content = []
        for piece in pieces:
            found = yield read_piece(self._client, prefix, piece)
            content.append(found)
        return content

    @inlineCallbacks
    def _multipart_copy(self, destination: str, part_makers: Sequence[_PartMaker]) -> DeferredGenerator:
        upload_id = yield self._client.create_multipart_upload(destination)
        try:
            parts = yield at_once(
                self._options.at_once,
                [partial(make, upload_id, number) for number, make in enumerate(part_makers, 1)],
            )
            yield self._client.complete_multipart_upload(destination, upload_id, parts)
        except BaseException:
            aborting = self._client.abort_multipart_upload(destination, upload_id)
            aborting.addErrback(
                lambda failure: log.warn(
                    "an upload to {key} that failed could not be aborted: {error}",
                    key=destination,
                    error=failure.getErrorMessage(),
                )
            )
            raise


if TYPE_CHECKING:
    _PartMaker = Callable[[str, int], Deferred[Part]]


@inlineCallbacks
def at_once(limit: int, calls: Sequence[Callable[[], Deferred[Any]]]) -> DeferredGenerator:
    """Fire with the answers to all calls, at most ``limit`` of which are under way.

    After an error no further call is made, and the error comes out when those under way ended.
    """
    semaphore = DeferredSemaphore(limit)
    failed = False

    def run(call: Callable[[], Deferred[Any]]) -> Deferred[Any] | None:
        return None if failed else maybeDeferred(call).addErrback(note)

    def note(failure: Any) -> Any:
        nonlocal failed
        failed = True
        return failure

    answers = yield DeferredList([semaphore.run(run, call) for call in calls], consumeErrors=True)
    for succeeded, answer in answers:
        if not succeeded:
            answer.raiseException()
    return [answer for _, answer in answers]
