"""Where the chunks of a writer go: into pieces beside the file, or into parts of its new name.

A file whose later name is known from the start can be a multipart upload to that name: nobody
sees it before it is completed, and it needs no copy then. Every other one is pieces and a plan of
them (:mod:`~twisted_registry.storage.s3.piece_list`), which can be read and continued by anybody.

Small pieces that are read again, to be stored as a part of something larger.

Their digest was computed when they came, so nobody else would notice if other bytes came back.

What an unfinished file consists of.

Objects can not be appended to, and the parts of a multipart upload can not be read before it is
completed. So a file that is still being written is a list of pieces, each an object with a name
that nobody else will ever use, and the list itself is the object under the file's key, marked by
a note that tells the file's size to whoever looks at it. Replacing the list is one step.

The sink of a file whose later name is known: it decides late where the bytes go.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from uuid import uuid4
from zlib import crc32

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, DeferredLock, inlineCallbacks, succeed
from zope.interface import Attribute, Interface, implementer

from twisted_registry.storage.interfaces import PathNotFound, StorageError
from twisted_registry.storage.s3.errors import PieceListDamaged

if TYPE_CHECKING:
    # @@EMPTY
    from collections.abc import Callable

    from twisted_registry.storage.s3.interfaces import IS3Client, Part
    from twisted_registry.storage.s3.writer import PartUploadSlots

#: How often a piece is read whose bytes are not what they were.
_MAX_READS: Final = 3


@inlineCallbacks
def read_piece(client: IS3Client, prefix: str, piece: Piece) -> DeferredGenerator:
    """Fire with the bytes of a piece.

    :param prefix: of the keys of the pieces.
    :raises StorageError: if what comes is not what was stored, again and again.
    """
    key = prefix + piece.name
    for _ in range(_MAX_READS):
        _, found = yield client.read_object(key, piece.size)
        if len(found) == piece.size and piece.crc in (None, crc_of([found])):
            return found
    raise StorageError(key, "comes back as other bytes than were stored")


def crc_of(content: Sequence[bytes]) -> int:
    """The CRC-32 that :class:`~twisted_registry.storage.s3.sinks.Piece` keeps.

    :param content: blocks of bytes, in order.
    """
    found = 0
    for data in content:
        found = crc32(data, found)
    return found


#: Bytes that a list can have: some ten thousand pieces have a tenth of it.
MAX_PIECE_LIST_BYTES: Final = 16 * 1024 * 1024
_UNFINISHED: Final = re.compile(r"unfinished (\d{1,19})")


@frozen
class Piece:
    """A stretch of an unfinished file.

    :ivar name: of its object, behind the prefix of the file's pieces.
    :ivar size: bytes.
    :ivar etag: what the store knows the object's content by.
    :ivar crc: the CRC-32 of a piece that may have to be read again, to be joined with others;
        None if nobody noted it.
    """

    name: str
    size: int
    etag: str
    crc: int | None = None


@frozen
class PieceList:
    """An unfinished file.

    :ivar pieces: what it consists of, in order.
    :ivar spent: names of objects whose bytes are in other pieces by now.
    """

    pieces: tuple[Piece, ...] = ()
    superseded: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return sum(piece.size for piece in self.pieces)

    @property
    def mark(self) -> str:
        """Names the bytes: a piece's name is its own, and tells which pieces came before it."""
        return self.pieces[-1].name if self.pieces else ""

    @property
    def names(self) -> tuple[str, ...]:
        """Of all objects that belong to it."""
        return (*(piece.name for piece in self.pieces), *self.superseded)

    @property
    def metadata(self) -> str:
        """What marks the object that holds it."""
        return f"unfinished {self.size}"

    def tail(self, min_part_bytes: int) -> tuple[Piece, ...]:
        """The pieces at the end that are smaller than ``min_part_bytes`` bytes."""
        count = 0
        for piece in reversed(self.pieces):
            if piece.size >= min_part_bytes:
                break
            count += 1
        return self.pieces[len(self.pieces) - count :]

    def with_piece(self, piece: Piece, replaced: tuple[Piece, ...] = ()) -> PieceList:
        """The plan with one more piece, that also holds the bytes of the last few."""
        kept = self.pieces[: len(self.pieces) - len(replaced)]
        return PieceList((*kept, piece), self.superseded + tuple(old.name for old in replaced))

    def to_bytes(self) -> bytes:
        """The content of the object that holds it, with its CRC-32 on a line of its own."""
        pieces = [[piece.name, piece.size, piece.etag, piece.crc] for piece in self.pieces]
        document = {"pieces": pieces, "spent": self.superseded}
        return with_checksum(json.dumps(document, separators=(",", ":")).encode())

    @classmethod
    def from_bytes(cls, content: bytes) -> PieceList:
        """Read the content of an object that a note marks.

        :raises PieceListDamaged: if it is not what :meth:`to_bytes` makes.
        """
        text, _, _ = content.rpartition(b"\n")
        if content != with_checksum(text):
            raise PieceListDamaged("its checksum is not that of its bytes")
        try:
            document = json.loads(text)
            pieces = tuple(_piece(*fields) for fields in document["pieces"])
            return cls(pieces, tuple(str(name) for name in document["spent"]))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise PieceListDamaged(str(error)) from error


def with_checksum(text: bytes) -> bytes:
    """A list with its checksum: what is changed on its way would name other bytes."""
    return b"%b\n%08x" % (text, crc32(text))


def unfinished_size(metadata: str) -> int | None:
    """The size of the unfinished file that an object's note speaks of, or None if of none."""
    match = _UNFINISHED.fullmatch(metadata)
    return None if match is None else int(match[1])


def _piece(name: object, size: int, etag: object, crc: int | None) -> Piece:
    return Piece(str(name), int(size), str(etag), None if crc is None else int(crc))


# zope's methods have no self, and their bodies are their docstrings.
# ruff: noqa: N805
# mypy: disable-error-code="empty-body"


#: Pieces that were joined into others and wait for the end of the upload, as a rule.
_MAX_SUPERSEDED_PIECES: Final = 1000
#: The answer of a function with ``inlineCallbacks``.
DeferredGenerator: TypeAlias = Generator[Deferred[Any], Any, Any]


class ISink(Interface):
    """Takes the chunks of one file, in order."""

    current: PieceSink | PartSink = Attribute("The sink itself, or the one that it has chosen.")
    size: int = Attribute("Bytes that were accepted.")
    mark: str = Attribute("Names them: no other bytes of this file have the same.")
    tail: int = Attribute("Bytes at the end that the next chunk is joined with, if that helps.")
    min_bytes: int = Attribute("Bytes that every chunk but the last must have.")
    min_part_bytes: int = Attribute("Bytes from which on a chunk needs no joining.")
    is_resumable: bool = Attribute("Whether a later writer can go on with what was saved.")
    saved: bool = Attribute("Whether a later writer finds all that was accepted.")

    def store(content: Sequence[bytes], size: int, *, last: bool) -> Deferred[object]:
        """Store a chunk of ``size`` bytes, and fire with what :meth:`accept` wants to know.

        :param last: whether no other will follow.
        """

    def accept(stored: Any) -> bool:
        """Count a chunk that was stored as one of the file. False if we hold its bytes still."""

    def save() -> Deferred[None]:
        """Let a later writer find what was accepted."""

    def remove() -> Deferred[None]:
        """Take the file and all that belongs to it away."""

    def clean_up() -> Deferred[None]:
        """Free what no later writer can use, when nothing is under way any more."""


@frozen
class _StoredPiece:
    """A piece that was stored, and those whose bytes it took in."""

    piece: Piece
    replaced: tuple[Piece, ...]


@implementer(ISink)
@define(eq=False)
class PieceSink:
    """Pieces beside the file, and a plan of them under its key.

    Each piece has a name that is made up for it. So of two writers of one file, on two machines,
    neither ever changes the bytes that the other knows of.

    :ivar key: of the file.
    :ivar prefix: of the keys of its pieces.
    :ivar plan: what was found.
    :ivar saved: whether that is what the store has under the key.
    :ivar least: bytes that the store takes as a part of a multipart upload.
    """

    _client: IS3Client
    _key: str
    _prefix: str
    piece_list: PieceList
    saved: bool
    min_part_bytes: int
    min_bytes: int = 1
    is_resumable: bool = True
    _removed: bool = field(init=False, default=False)
    _moved: bool = field(init=False, default=False)
    _unaccepted: list[str] = field(init=False, factory=list)

    @property
    def current(self) -> PieceSink:
        """This one."""
        return self

    @property
    def has_pieces(self) -> bool:
        """Whether what is known here is more than what the store tells of the file."""
        return bool(self.piece_list.pieces) and not self.is_gone

    @property
    def is_gone(self) -> bool:
        """Whether the file was moved or deleted."""
        return self._moved or self._removed

    @property
    def size(self) -> int:
        """Bytes that were accepted."""
        return self.piece_list.size

    @property
    def mark(self) -> str:
        """Names them."""
        return self.piece_list.mark

    @property
    def tail(self) -> int:
        """Bytes in pieces that are too small to be parts."""
        return sum(piece.size for piece in self.piece_list.tail(self.min_part_bytes))

    def store(self, content: Sequence[bytes], size: int, *, last: bool) -> Deferred[object]:  # noqa: ARG002
        """Store a piece, with the small ones before it once that makes it large enough."""
        tail = self.piece_list.tail(self.min_part_bytes)
        joined = tail if self.tail + size >= self.min_part_bytes else ()
        name = uuid4().hex
        self._unaccepted.append(name)
        answer: Deferred[object] = self._store(name, content, size, joined)
        return answer

    @inlineCallbacks
    def _store(
        self, name: str, content: Sequence[bytes], size: int, joined: tuple[Piece, ...]
    ) -> DeferredGenerator:
        before: list[bytes] = []
        for piece in joined:
            found = yield read_piece(self._client, self._prefix, piece)
            before.append(found)
        size += sum(piece.size for piece in joined)
        whole = [*before, *content]
        crc = crc_of(whole) if size < self.min_part_bytes else None
        etag = yield self._client.put_object(self._prefix + name, whole)
        return _StoredPiece(Piece(name, size, etag, crc), joined)

    def accept(self, stored: _StoredPiece) -> bool:
        """Count a piece."""
        self._unaccepted.remove(stored.piece.name)
        self.piece_list = self.piece_list.with_piece(stored.piece, stored.replaced)
        self.saved = False
        return True

    @inlineCallbacks
    def save(self) -> DeferredGenerator:
        """Write the plan."""
        if self._removed:
            raise PathNotFound(self._key, "was removed while it was being written")
        piece_list = self.piece_list
        yield self._client.put_object(
            self._key, piece_list.to_bytes(), metadata=piece_list.metadata
        )
        self.saved = piece_list is self.piece_list
        if self.saved and len(piece_list.superseded) > _MAX_SUPERSEDED_PIECES:
            # Whoever still knows the list before this one fails, as it would at its end.
            yield self._client.delete_objects(
                [self._prefix + name for name in piece_list.superseded]
            )
            self.piece_list = PieceList(piece_list.pieces)

    def removed(self) -> None:
        """Somebody has removed the file: it must not come back."""
        self._removed = True

    def mark_moved(self) -> None:
        """The file has another name now, and its pieces are gone."""
        self.saved = self._moved = True

    @inlineCallbacks
    def remove(self) -> DeferredGenerator:
        """Delete plan and pieces."""
        if not self._moved:
            yield self._client.delete_objects(
                [self._key, *(self._prefix + name for name in self.piece_list.names)]
            )

    @inlineCallbacks
    def clean_up(self) -> DeferredGenerator:
        """Delete what was stored and did not count."""
        names = [
            *self._unaccepted,
            *(self.piece_list.names if self._removed and not self._moved else ()),
        ]
        self._unaccepted.clear()
        if names:
            yield self._client.delete_objects([self._prefix + name for name in names])


@implementer(ISink)
@define(eq=False)
class PartSink:
    """Parts of a multipart upload to the file's later name; a small file waits in memory.

    :ivar destination: the key of that name.
    :ivar least: bytes that the store takes as a part.
    """

    _client: IS3Client
    destination: str
    min_part_bytes: int
    is_resumable: bool = False
    tail: int = 0
    mark: str = ""
    saved: bool = True
    is_gone: bool = False
    size: int = field(init=False, default=0)
    _create_lock: DeferredLock = field(init=False, factory=DeferredLock)
    _upload_id: str = field(init=False, default="")
    _number: int = field(init=False, default=0)
    _parts: list[Part] = field(init=False, factory=list)
    _held: Sequence[bytes] = field(init=False, default=())

    @property
    def current(self) -> PartSink:
        """This one."""
        return self

    @property
    def min_bytes(self) -> int:
        """Bytes that every part but the last must have."""
        return self.min_part_bytes

    def store(self, content: Sequence[bytes], size: int, *, last: bool) -> Deferred[object]:
        """Store a part, or keep the only one."""
        if last and not self._number:
            self._held = content
            return succeed(size)
        self._number += 1
        answer: Deferred[object] = self._store(content, self._number)
        return answer

    @inlineCallbacks
    def _store(self, content: Sequence[bytes], number: int) -> DeferredGenerator:
        yield self._create_lock.run(self._begin)
        part = yield self._client.upload_part(self.destination, self._upload_id, number, content)
        return part

    @inlineCallbacks
    def _begin(self) -> DeferredGenerator:
        if not self._upload_id:
            self._upload_id = yield self._client.create_multipart_upload(self.destination)

    def accept(self, stored: Part | int) -> bool:
        """Count a part."""
        if isinstance(stored, int):
            self.size += stored
            return False
        self._parts.append(stored)
        self.size += stored.size
        return True

    @inlineCallbacks
    def publish(self) -> DeferredGenerator:
        """Let everybody see the file under its later name, in one step."""
        if self._parts:
            yield self._client.complete_multipart_upload(
                self.destination, self._upload_id, self._parts
            )
            self._upload_id = ""
        else:
            yield self._client.put_object(self.destination, self._held)
            self._held = ()

    def save(self) -> Deferred[None]:
        """Do nothing: only a whole file can be kept, by :meth:`publish`."""
        return succeed(None)

    def remove(self) -> Deferred[None]:
        """Do nothing: nothing is there before :meth:`publish`."""
        return succeed(None)

    @inlineCallbacks
    def clean_up(self) -> DeferredGenerator:
        """Forget what was not published."""
        upload_id, self._upload_id = self._upload_id, ""
        if upload_id or self._held:
            self.size = 0
        self._held = ()
        if upload_id:
            yield self._client.abort_multipart_upload(self.destination, upload_id)


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
