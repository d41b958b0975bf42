"""Small pieces that are read again, to be stored as a part of something larger.

Their digest was computed when they came, so nobody else would notice if other bytes came back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from zlib import crc32

from twisted.internet.defer import inlineCallbacks

from twisted_registry.storage.interfaces import StorageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted_registry.storage.s3.interfaces import IS3Client
    from twisted_registry.storage.s3.plan import Piece
    from twisted_registry.storage.s3.sinks import DeferredGenerator

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
    """The CRC-32 that :class:`~twisted_registry.storage.s3.plan.Piece` keeps.

    :param content: blocks of bytes, in order.
    """
    found = 0
    for data in content:
        found = crc32(data, found)
    return found
