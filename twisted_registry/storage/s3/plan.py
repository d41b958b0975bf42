"""What an unfinished file consists of.

Objects can not be appended to, and the parts of a multipart upload can not be read before it is
completed. So a file that is still being written is a list of pieces, each an object with a name
that nobody else will ever use, and the list itself is the object under the file's key, marked by
a note that tells the file's size to whoever looks at it. Replacing the list is one step.
"""

from __future__ import annotations

import json
import re
from typing import Final
from zlib import crc32

from attrs import frozen

#: Bytes that a list can have: some ten thousand pieces have a tenth of it.
MAX_PIECE_LIST_BYTES: Final = 16 * 1024 * 1024
_UNFINISHED: Final = re.compile(r"unfinished (\d{1,19})")


class PieceListDamaged(ValueError):
    """What should be a list of pieces is none."""


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
