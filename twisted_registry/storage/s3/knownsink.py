"""The sink of a file whose later name is known: it decides late where the bytes go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import define, field
from zope.interface import implementer

from twisted_registry.storage.s3.sinks import ISink, PartSink, PieceSink

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.defer import Deferred

    from twisted_registry.storage.s3.budget import PartUploadSlots


@implementer(ISink)
@define(eq=False)
class AdaptiveSink:
    """Parts, if there is a slot for them when the first must be stored; pieces otherwise.

    Parts can not be small, so whoever writes them must be let hold as much as one. A file that
    ends before that is one object, whatever it is.

    :ivar pieces: makes the other sink.
    """

    parts: PartSink
    _pieces: Callable[[], PieceSink]
    _slots: PartUploadSlots
    _has_slot: bool = field(init=False, default=False)
    chosen: PieceSink | PartSink | None = field(init=False, default=None)

    @property
    def current(self) -> PieceSink | PartSink:
        """The sink that was chosen, or would be."""
        return self.chosen or self.parts

    @property
    def size(self) -> int:
        """Bytes that were accepted."""
        return self.current.size

    @property
    def mark(self) -> str:
        """Names them."""
        return self.current.mark

    @property
    def tail(self) -> int:
        """Bytes that the next chunk is joined with."""
        return self.current.tail

    @property
    def min_part_bytes(self) -> int:
        """Bytes from which on a chunk needs no joining."""
        return self.current.min_part_bytes

    @property
    def min_bytes(self) -> int:
        """Bytes that every chunk but the last must have."""
        return 1 if self.chosen is None else self.chosen.min_bytes

    @property
    def is_resumable(self) -> bool:
        """Whether a later writer can go on."""
        return self.current.is_resumable

    @property
    def saved(self) -> bool:
        """Whether a later writer finds all that was accepted."""
        return self.current.saved

    def store(self, content: Sequence[bytes], size: int, *, last: bool) -> Deferred[object]:
        """Store a chunk; the first decides where."""
        if self.chosen is None and last:
            self.chosen = self.parts
        elif self.chosen is None:
            self._has_slot = size >= self.parts.min_part_bytes and self._slots.acquire()
            self.chosen = self.parts if self._has_slot else self._pieces()
        return self.current.store(content, size, last=last)

    def accept(self, stored: Any) -> bool:
        """Count a chunk."""
        return self.current.accept(stored)

    def save(self) -> Deferred[None]:
        """Let a later writer find what was accepted."""
        answer: Deferred[None] = self.current.save()
        return answer

    def remove(self) -> Deferred[None]:
        """Take the file away."""
        answer: Deferred[None] = self.current.remove()
        return answer

    def clean_up(self) -> Deferred[None]:
        """Free what no later writer can use."""
        if self._has_slot:
            self._has_slot = False
            self._slots.release()
        answer: Deferred[None] = self.current.clean_up()
        return answer
