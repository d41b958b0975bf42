"""Where the chunks of a writer are stored: pieces beside the file, or parts of its later name.

Objects cannot be appended to, and the parts of a multipart upload cannot be read before it is
completed. A file that is still being written is therefore a list of pieces. Each piece is an
object with a unique name. The list is the object under the key of the file; its metadata marks it
and has the size of the file. Replacing the list is atomic, and every process can read and continue
the file.

A file whose later name is known from the start can be a multipart upload to that name instead. It
is invisible until it is completed, and needs no copy then.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4
from zlib import crc32

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, DeferredLock, inlineCallbacks, succeed
from zope.interface import Attribute, Interface, implementer

from twisted_registry.storage.interfaces import PathNotFound, StorageError
from twisted_registry.storage.s3.errors import PieceListDamaged

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted_registry.storage.s3.interfaces import DeferredGenerator, IS3Client, Part
    from twisted_registry.storage.s3.writer import PartUploadSlots

# zope's methods have no self, and their bodies are their docstrings.
# ruff: noqa: N805
# mypy: disable-error-code="empty-body"

#: Maximum size of a piece list; one of ten thousand pieces has a tenth of it.
MAX_PIECE_LIST_BYTES: Final = 16 * 1024 * 1024
#: Superseded pieces to keep until the end of the upload, in case an older list is still in use.
MAX_SUPERSEDED_PIECES: Final = 1000
#: How often a piece with a wrong checksum is read: it may have been damaged on its way.
_MAX_READS: Final = 3
_UNFINISHED: Final = re.compile(r"unfinished (\d{1,19})")


@frozen
class Piece:
    """A part of an unfinished file.

    :ivar name: of its object, after the prefix of the file's pieces.
    :ivar size: bytes.
    :ivar etag: of its object.
    :ivar crc: CRC-32 of a piece that may be read again to be joined with others; otherwise None.
    """

    name: str
    size: int
    etag: str
    crc: int | None = None


@frozen
class PieceList:
    """The pieces of an unfinished file.

    :ivar pieces: in order.
    :ivar superseded: names of objects whose bytes are part of later pieces.
    """

    pieces: tuple[Piece, ...] = ()
    superseded: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return sum(piece.size for piece in self.pieces)

    @property
    def content_id(self) -> str:
        """Identifies the content: the unique name of the last piece, which has one predecessor."""
        return self.pieces[-1].name if self.pieces else ""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all objects that belong to the file."""
        return (*(piece.name for piece in self.pieces), *self.superseded)

    @property
    def metadata(self) -> str:
        """Metadata of the object that holds the list."""
        return f"unfinished {self.size}"

    def tail(self, min_part_bytes: int) -> tuple[Piece, ...]:
        """Return the last pieces, as far as they are smaller than ``min_part_bytes``."""
        count = 0
        for piece in reversed(self.pieces):
            if piece.size >= min_part_bytes:
                break
            count += 1
        return self.pieces[len(self.pieces) - count :]

    def with_piece(self, piece: Piece, replaced: tuple[Piece, ...] = ()) -> PieceList:
        """Return the list with one more piece, which contains the bytes of the last few."""
        kept = self.pieces[: len(self.pieces) - len(replaced)]
        return PieceList((*kept, piece), self.superseded + tuple(old.name for old in replaced))

    def to_bytes(self) -> bytes:
        """Return the content of the object that holds the list: JSON, and a line with its CRC-32.

        The key ``spent`` has the superseded names.
        """
        pieces = [[piece.name, piece.size, piece.etag, piece.crc] for piece in self.pieces]
        document = {"pieces": pieces, "spent": self.superseded}
        return with_checksum(json.dumps(document, separators=(",", ":")).encode())

    @classmethod
    def from_bytes(cls, content: bytes) -> PieceList:
        """Parse the content of an object whose metadata marks a piece list.

        :raises PieceListDamaged: if :meth:`to_bytes` cannot have made it.
        """
        text, _, _ = content.rpartition(b"\n")
        if content != with_checksum(text):
            raise PieceListDamaged("its checksum is wrong")
        try:
            document = json.loads(text)
            pieces = tuple(_parse_piece(*fields) for fields in document["pieces"])
            return cls(pieces, tuple(str(name) for name in document["spent"]))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise PieceListDamaged(str(error)) from error


def with_checksum(text: bytes) -> bytes:
    """Return a piece list with its checksum. A damaged list could name other pieces."""
    return b"%b\n%08x" % (text, crc32(text))


def unfinished_size(metadata: str) -> int | None:
    """Return the size of an unfinished file from an object's metadata; None for other objects."""
    match = _UNFINISHED.fullmatch(metadata)
    return None if match is None else int(match[1])


def _parse_piece(name: object, size: int, etag: object, crc: int | None) -> Piece:
    return Piece(str(name), int(size), str(etag), None if crc is None else int(crc))


@inlineCallbacks
def read_piece(client: IS3Client, prefix: str, piece: Piece) -> DeferredGenerator[bytes]:
    """Fire with the bytes of a piece that is to be stored again as part of another.

    The digest of the file was computed from the bytes that the client sent, so nothing else would
    detect a damaged piece.

    :param prefix: of the keys of the pieces.
    :raises StorageError: if the bytes are not those that were stored.
    """
    key = prefix + piece.name
    for _ in range(_MAX_READS):
        content: bytes
        _, content = yield client.read_object(key, piece.size)
        if len(content) == piece.size and piece.crc in (None, crc_of([content])):
            return content
    raise StorageError(key, "is damaged: its size or checksum is wrong")


def crc_of(content: Sequence[bytes]) -> int:
    """Return the CRC-32 of blocks of bytes."""
    crc = 0
    for block in content:
        crc = crc32(block, crc)
    return crc


class ISink(Interface):
    """Stores the chunks of one file, in order."""

    current: PieceSink | PartSink = Attribute("The sink itself, or the sink that it has chosen.")
    size: int = Attribute("Accepted bytes.")
    content_id: str = Attribute("Identifies the accepted bytes among all contents of this file.")
    tail_bytes: int = Attribute("Bytes at the end that may be joined with the next chunk.")
    min_bytes: int = Attribute("Minimum size of a chunk, except the last.")
    min_part_bytes: int = Attribute("Size from which on a chunk is not joined with others.")
    is_resumable: bool = Attribute("Whether a later writer can continue what was saved.")
    is_saved: bool = Attribute("Whether a later writer finds all accepted bytes.")

    def store(content: Sequence[bytes], size: int, *, last: bool) -> Deferred[object]:
        """Store a chunk of ``size`` bytes, and fire with the argument of :meth:`accept`.

        :param last: whether no other chunk follows.
        """

    def accept(stored: Any) -> bool:
        """Append a stored chunk to the file. Returns False if its bytes are still in memory."""

    def save() -> Deferred[None]:
        """Make the accepted bytes available to later writers."""

    def remove() -> Deferred[None]:
        """Delete the file and everything that belongs to it."""

    def clean_up() -> Deferred[None]:
        """Release what no later writer can use. Called last, when no call is pending."""


@frozen
class _StoredPiece:
    """A piece that was stored, and the pieces whose bytes it contains."""

    piece: Piece
    replaced: tuple[Piece, ...]


@implementer(ISink)
@define(eq=False)
class PieceSink:
    """Stores pieces beside the file, and their list under its key.

    Every piece has a unique name. Two writers of one file on different machines therefore never
    overwrite pieces of each other.

    :ivar key: of the file.
    :ivar prefix: of the keys of its pieces.
    :ivar piece_list: the accepted pieces.
    :ivar is_saved: whether the list in the store is equal to it.
    :ivar min_part_bytes: minimum size of a part of a multipart upload.
    :ivar max_superseded: number of superseded pieces after which they are deleted early.
    """

    _client: IS3Client
    _key: str
    _prefix: str
    piece_list: PieceList
    is_saved: bool
    min_part_bytes: int
    max_superseded: int = MAX_SUPERSEDED_PIECES
    min_bytes: int = 1
    is_resumable: bool = True
    _removed: bool = field(init=False, default=False)
    _moved: bool = field(init=False, default=False)
    _unaccepted: list[str] = field(init=False, factory=list)

    @property
    def current(self) -> PieceSink:
        """This sink."""
        return self

    @property
    def has_pieces(self) -> bool:
        """Whether the list may be newer than that in the store."""
        return bool(self.piece_list.pieces) and not self.is_gone

    @property
    def is_gone(self) -> bool:
        """Whether the file was moved or deleted."""
        return self._moved or self._removed

    @property
    def size(self) -> int:
        """Accepted bytes."""
        return self.piece_list.size

    @property
    def content_id(self) -> str:
        """Identifies the accepted bytes."""
        return self.piece_list.content_id

    @property
    def tail_bytes(self) -> int:
        """Bytes in the last pieces that are too small to be parts."""
        return sum(piece.size for piece in self.piece_list.tail(self.min_part_bytes))

    @inlineCallbacks
    def store(
        self,
        content: Sequence[bytes],
        size: int,
        *,
        last: bool,  # noqa: ARG002
    ) -> DeferredGenerator[object]:
        """Store a piece. If it is large enough with the small ones before it, it contains them."""
        tail = self.piece_list.tail(self.min_part_bytes)
        joined = tail if self.tail_bytes + size >= self.min_part_bytes else ()
        name = uuid4().hex
        self._unaccepted.append(name)
        blocks: list[bytes] = []
        for piece in joined:
            block: bytes = yield read_piece(self._client, self._prefix, piece)
            blocks.append(block)
            size += piece.size
        blocks += content
        crc = crc_of(blocks) if size < self.min_part_bytes else None
        etag: str = yield self._client.put_object(self._prefix + name, blocks)
        return _StoredPiece(Piece(name, size, etag, crc), joined)

    def accept(self, stored: _StoredPiece) -> bool:
        """Append a piece to the list."""
        self._unaccepted.remove(stored.piece.name)
        self.piece_list = self.piece_list.with_piece(stored.piece, stored.replaced)
        self.is_saved = False
        return True

    @inlineCallbacks
    def save(self) -> DeferredGenerator[None]:
        """Store the list."""
        if self._removed:
            raise PathNotFound(self._key, "was removed while it was being written")
        piece_list = self.piece_list
        yield self._client.put_object(
            self._key, piece_list.to_bytes(), metadata=piece_list.metadata
        )
        self.is_saved = piece_list is self.piece_list
        if self.is_saved and len(piece_list.superseded) > self.max_superseded:
            # A process that still uses an older list fails now, as it would at the end.
            yield self._client.delete_objects(
                [self._prefix + name for name in piece_list.superseded]
            )
            self.piece_list = PieceList(piece_list.pieces)

    def mark_removed(self) -> None:
        """Record that the file was deleted, so that it is not saved again."""
        self._removed = True

    def mark_moved(self) -> None:
        """Record that the file was moved and its pieces were deleted."""
        self.is_saved = self._moved = True

    @inlineCallbacks
    def remove(self) -> DeferredGenerator[None]:
        """Delete the list and the pieces."""
        if not self._moved:
            yield self._client.delete_objects(
                [self._key, *(self._prefix + name for name in self.piece_list.names)]
            )

    @inlineCallbacks
    def clean_up(self) -> DeferredGenerator[None]:
        """Delete pieces that were stored but not accepted, and all pieces of a deleted file."""
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
    """Stores parts of a multipart upload to the file's later name, or keeps a small file in memory.

    :ivar destination: key of the later name.
    :ivar min_part_bytes: minimum size of a part, except the last.
    """

    _client: IS3Client
    destination: str
    min_part_bytes: int
    is_resumable: bool = False
    tail_bytes: int = 0
    content_id: str = ""
    is_saved: bool = True
    is_gone: bool = False
    size: int = field(init=False, default=0)
    _create_lock: DeferredLock = field(init=False, factory=DeferredLock)
    _upload_id: str = field(init=False, default="")
    _number: int = field(init=False, default=0)
    _parts: list[Part] = field(init=False, factory=list)
    _held: Sequence[bytes] = field(init=False, default=())

    @property
    def current(self) -> PartSink:
        """This sink."""
        return self

    @property
    def min_bytes(self) -> int:
        """Minimum size of a part, except the last."""
        return self.min_part_bytes

    def store(self, content: Sequence[bytes], size: int, *, last: bool) -> Deferred[object]:
        """Store a part. The only chunk of a file is kept in memory instead."""
        if last and not self._number:
            self._held = content
            return succeed(size)
        self._number += 1
        return self._store_part(content, self._number)

    @inlineCallbacks
    def _store_part(self, content: Sequence[bytes], number: int) -> DeferredGenerator[object]:
        yield self._create_lock.run(self._create_upload)
        part: Part = yield self._client.upload_part(
            self.destination, self._upload_id, number, content
        )
        return part

    @inlineCallbacks
    def _create_upload(self) -> DeferredGenerator[None]:
        if not self._upload_id:
            self._upload_id = yield self._client.create_multipart_upload(self.destination)

    def accept(self, stored: Part | int) -> bool:
        """Append a part, or count the bytes that are kept in memory."""
        if isinstance(stored, int):
            self.size += stored
            return False
        self._parts.append(stored)
        self.size += stored.size
        return True

    @inlineCallbacks
    def publish(self) -> DeferredGenerator[None]:
        """Create the file under its later name, atomically."""
        if self._parts:
            yield self._client.complete_multipart_upload(
                self.destination, self._upload_id, self._parts
            )
            self._upload_id = ""
        else:
            yield self._client.put_object(self.destination, self._held)
            self._held = ()

    def save(self) -> Deferred[None]:
        """Do nothing: only :meth:`publish` keeps the file."""
        return succeed(None)

    def remove(self) -> Deferred[None]:
        """Do nothing: there is no file before :meth:`publish`."""
        return succeed(None)

    @inlineCallbacks
    def clean_up(self) -> DeferredGenerator[None]:
        """Discard the file if it was not published."""
        upload_id, self._upload_id = self._upload_id, ""
        if upload_id or self._held:
            self.size = 0
        self._held = ()
        if upload_id:
            yield self._client.abort_multipart_upload(self.destination, upload_id)


@implementer(ISink)
@define(eq=False)
class AdaptiveSink:
    """Stores parts if a slot is free when the first chunk is stored, and pieces otherwise.

    A part cannot be small, so its writer must hold at least one part in memory; the slots limit
    the number of such writers. A file of one chunk is stored as one object and needs no slot.

    :ivar make_pieces: makes the other sink.
    """

    _parts: PartSink
    _make_pieces: Callable[[], PieceSink]
    _slots: PartUploadSlots
    _has_slot: bool = field(init=False, default=False)
    _chosen: PieceSink | PartSink | None = field(init=False, default=None)

    @property
    def current(self) -> PieceSink | PartSink:
        """The chosen sink; the sink of parts before the first chunk."""
        return self._chosen or self._parts

    @property
    def size(self) -> int:
        """Accepted bytes."""
        return self.current.size

    @property
    def content_id(self) -> str:
        """Identifies the accepted bytes."""
        return self.current.content_id

    @property
    def tail_bytes(self) -> int:
        """Bytes at the end that may be joined with the next chunk."""
        return self.current.tail_bytes

    @property
    def min_part_bytes(self) -> int:
        """Size from which on a chunk is not joined with others."""
        return self.current.min_part_bytes

    @property
    def min_bytes(self) -> int:
        """Minimum size of a chunk, except the last."""
        return 1 if self._chosen is None else self._chosen.min_bytes

    @property
    def is_resumable(self) -> bool:
        """Whether a later writer can continue what was saved."""
        return self.current.is_resumable

    @property
    def is_saved(self) -> bool:
        """Whether a later writer finds all accepted bytes."""
        return self.current.is_saved

    def store(self, content: Sequence[bytes], size: int, *, last: bool) -> Deferred[object]:
        """Store a chunk. The first one selects the sink."""
        if self._chosen is None and last:
            self._chosen = self._parts
        elif self._chosen is None:
            self._has_slot = size >= self._parts.min_part_bytes and self._slots.acquire()
            self._chosen = self._parts if self._has_slot else self._make_pieces()
        return self.current.store(content, size, last=last)

    def accept(self, stored: Any) -> bool:
        """Append a stored chunk."""
        return self.current.accept(stored)

    def save(self) -> Deferred[None]:
        """Make the accepted bytes available to later writers."""
        return self.current.save()

    def remove(self) -> Deferred[None]:
        """Delete the file."""
        return self.current.remove()

    def clean_up(self) -> Deferred[None]:
        """Release the slot, and what no later writer can use."""
        if self._has_slot:
            self._has_slot = False
            self._slots.release()
        return self.current.clean_up()
