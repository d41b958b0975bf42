"""What one connection may cost before it has proved anything."""

from __future__ import annotations

from attrs import frozen


MIB = 1024 * 1024


@frozen
class Limits:
    """Sizes in bytes and times in seconds of the HTTP edge.

    :ivar url_bytes: a longer request target is answered 414.
    :ivar header_bytes: header fields of one request together (and its trailer fields); 431.
    :ivar header_count: number of header fields of one request; 431.
    :ivar header_seconds: from the first byte of a request to the end of its head; 408.
    :ivar idle_seconds: between two requests, and before the first.
    :ivar body_seconds: without a byte of a body that is wanted (408), or of an answer taken.
    :ivar content_bytes: a body collected for a Resource that does not stream; 413.
    :ivar linger_bytes: of a body that nobody took, read and dropped so that the sender gets to
        see the answer: more than a chunk that we ask for has (5 MiB, over a bucket).
    :ivar linger_seconds: given to a peer to take note of the end of a connection.
    :ivar half_closed_seconds: a peer that closed its sending side after a whole request may
        have left or may be waiting; an answer that has not begun by then is not waited for.
    """

    url_bytes: int = 8192
    header_bytes: int = 16384
    header_count: int = 100
    header_seconds: float = 20
    idle_seconds: float = 60
    body_seconds: float = 60
    content_bytes: int = MIB
    linger_bytes: int = 8 * MIB
    linger_seconds: float = 5
    half_closed_seconds: float = 2
