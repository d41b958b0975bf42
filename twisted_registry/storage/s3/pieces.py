"""Unfinished files as lists of pieces, from which any process can continue.

Objects cannot be appended to, and the parts of a multipart upload cannot be read before it is
completed. A file that is still being written is therefore a list of pieces. Each piece is an
object with a unique name. The list is the object under the key of the file; its metadata marks it
and has the size of the file. Replacing the list is atomic, and every process can read and continue
the file.

The finished object consists of parts. A piece never crosses the end of a part, so that each part
is one piece, or a few small ones that are read and stored again. All parts except the last have the
size of the first, because some stores (Cloudflare R2) refuse others.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final
from zlib import crc32

from attrs import evolve, frozen

from twisted_registry.storage.s3.errors import PieceListDamaged

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Minimum size of a part of a multipart upload, except the last.
MIN_PART_BYTES: Final = 5 * 1024 * 1024
#: Maximum size of a part.
_MAX_PART_BYTES: Final = 5 * 1024 * 1024 * 1024
#: Maximum number of parts of an object.
MAX_PARTS: Final = 10_000
#: Number of parts that have the same size; later ones have twice the configured size.
_EQUAL_PARTS: Final = 5_000
#: Maximum size of a piece list; one of ten thousand pieces has a tenth of it.
MAX_PIECE_LIST_BYTES: Final = 16 * 1024 * 1024
_UNFINISHED: Final = re.compile(r"unfinished (\d{1,19})")


@frozen
class Piece:
    """A part of an unfinished file.

    :ivar name: of its object, after the prefix of the file's pieces. Empty for a part of a
        multipart upload, which is no object yet.
    :ivar size: bytes.
    :ivar etag: of its object or part.
    :ivar crc: CRC-32 of a piece that may be read again to be joined with others; otherwise None.
    """

    name: str
    size: int
    etag: str
    crc: int | None = None


@frozen
class NextPart:
    """The part of the finished object to which the next bytes of a file belong.

    :ivar number: from 1.
    :ivar first_bytes: size of the first part.
    :ivar chunk_bytes: configured size of parts.
    :ivar tail: the pieces of the part that are stored.
    """

    number: int
    first_bytes: int
    chunk_bytes: int
    tail: tuple[Piece, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of the part, if it is not the last."""
        return part_bytes(self.number, self.first_bytes, self.chunk_bytes)

    @property
    def is_first(self) -> bool:
        """Whether the file begins with the next bytes."""
        return self.number == 1 and not self.tail

    @property
    def missing(self) -> int:
        """Bytes that complete the part."""
        return self.size - size_of(self.tail)

    def beginning_with(self, size: int) -> NextPart:
        """Return the part as it is if the file begins with a piece of ``size`` bytes here."""
        if not self.is_first:
            return self
        return evolve(self, first_bytes=_first_bytes(size, self.chunk_bytes))

    def following(self) -> NextPart:
        """Return the part after this one."""
        return evolve(self, number=self.number + 1, tail=())


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
        return size_of(self.pieces)

    @property
    def content_id(self) -> str:
        """Identifies the content: the unique name of the last piece, which has one predecessor."""
        return self.pieces[-1].name if self.pieces else ""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all objects that belong to the file."""
        return (*(piece.name for piece in self.pieces if piece.name), *self.superseded)

    @property
    def metadata(self) -> str:
        """Metadata of the object that holds the list."""
        return f"unfinished {self.size}"

    def first_bytes(self, chunk_bytes: int) -> int:
        """Return the size of the parts of the finished object."""
        return _first_bytes(self.pieces[0].size, chunk_bytes) if self.pieces else chunk_bytes

    def parts(self, chunk_bytes: int) -> tuple[list[tuple[Piece, ...]], tuple[Piece, ...]]:
        """Group the pieces by the parts of the finished object.

        :returns: the complete parts, and the pieces of the last part if it is not complete.
        """
        first_bytes = self.first_bytes(chunk_bytes)
        parts: list[tuple[Piece, ...]] = []
        rest: list[Piece] = []
        size = 0
        for piece in self.pieces:
            rest.append(piece)
            size += piece.size
            if size >= part_bytes(len(parts) + 1, first_bytes, chunk_bytes):
                parts.append(tuple(rest))
                rest.clear()
                size = 0
        return parts, tuple(rest)

    def next_part(self, chunk_bytes: int) -> NextPart:
        """Return the part to which the next bytes of the file belong."""
        parts, rest = self.parts(chunk_bytes)
        return NextPart(len(parts) + 1, self.first_bytes(chunk_bytes), chunk_bytes, rest)

    def with_piece(self, piece: Piece, replaced: tuple[Piece, ...] = ()) -> PieceList:
        """Return the list with a piece added, in place of the last ``replaced`` pieces."""
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


def size_of(pieces: Sequence[Piece]) -> int:
    """Return the number of bytes of some pieces."""
    return sum(piece.size for piece in pieces)


def _first_bytes(size: int, chunk_bytes: int) -> int:
    """Return the size of the first part of a file whose first piece has ``size`` bytes.

    It is less than ``chunk_bytes`` if the piece is smaller, because a client sends small chunks or
    memory was short: parts that small pieces are joined to should be small.
    """
    return min(max(size, MIN_PART_BYTES), chunk_bytes)


def part_bytes(number: int, first_bytes: int, chunk_bytes: int) -> int:
    """Return the size of a part of a finished object, except the last part.

    The first 5,000 parts are equal. Later ones are larger, so that the file has room for more.

    :param number: of the part, from 1.
    :param first_bytes: size of the first part.
    :param chunk_bytes: configured size.
    """
    return first_bytes if number <= _EQUAL_PARTS else min(2 * chunk_bytes, _MAX_PART_BYTES)


def with_checksum(text: bytes) -> bytes:
    """Return a piece list with its checksum. A damaged list could name other pieces."""
    return b"%b\n%08x" % (text, crc32(text))


def unfinished_size(metadata: str) -> int | None:
    """Return the size of an unfinished file from an object's metadata; None for other objects."""
    match = _UNFINISHED.fullmatch(metadata)
    return None if match is None else int(match[1])


def _parse_piece(name: object, size: int, etag: object, crc: int | None) -> Piece:
    return Piece(str(name), int(size), str(etag), None if crc is None else int(crc))


def crc_of(blocks: Sequence[bytes]) -> int:
    """Return the CRC-32 of blocks of bytes."""
    crc = 0
    for block in blocks:
        crc = crc32(block, crc)
    return crc
