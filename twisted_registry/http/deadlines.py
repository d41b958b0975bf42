"""What a connection waits for, and how long.

A connection has one deadline. It is set anew when there is progress, or something else to wait for.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from twisted_registry.http.interfaces import Limits

WAIT_NONE: Final = 0  # the application works, which has no deadline
WAIT_HEAD: Final = 1  # the rest of a request's head
WAIT_IDLE: Final = 2  # the first byte of a request
WAIT_BODY: Final = 3  # more of a body that the application reads
WAIT_OUTPUT: Final = 4  # the peer to accept data
WAIT_HALF_CLOSED: Final = 5  # the application, for a peer that may have left
WAIT_CLOSE: Final = 6  # the peer to close
#: Fields of the limits that are exceeded when the deadline of such a wait ends a request.
LIMITS_BY_WAIT: Final = {
    WAIT_HEAD: "header_seconds",
    WAIT_BODY: "body_seconds",
    WAIT_OUTPUT: "body_seconds",
}
#: While waiting for these a connection can be closed in favour of another one.
IDLE_WAITS: Final = frozenset({WAIT_HEAD, WAIT_IDLE, WAIT_CLOSE})


def timeouts(limits: Limits, *, is_plain_socket: bool) -> tuple[float, ...]:
    """Return the seconds of each wait; its constant is the index.

    :param is_plain_socket: whether the kernel delivers what the connection has accepted; other
        transports still have to send it when they are closed.
    """
    return (
        math.inf,
        limits.header_seconds,
        limits.idle_seconds,
        limits.body_seconds,
        limits.body_seconds,
        limits.half_closed_seconds,
        limits.linger_seconds if is_plain_socket else limits.body_seconds,
    )


class MinimumRate:
    """The seconds for which the sender of a body may still keep the server waiting.

    They begin with a window. Waiting uses them up, and each byte gives some back, up to the window:
    so a sender may pause for the window if it was fast enough before, and one that is always as
    fast as the rate never runs out. Time in which the server reads nothing is not counted.
    """

    def __init__(self, bytes_per_second: float, window_s: float) -> None:
        """Begin with the whole window.

        :param bytes_per_second: the lowest average rate, above 0.
        :param window_s: the longest pause, in seconds.
        """
        self._bytes_per_second = bytes_per_second
        self._window_s = self._left_s = window_s
        self._waiting_since: float | None = None
        self._bytes_read = 0

    def update(self, now: float, bytes_read: int, *, waiting: bool) -> float:
        """Return the seconds that are left.

        :param now: in seconds.
        :param bytes_read: the bytes of the body that have been read since its beginning.
        :param waiting: whether the server waits for the sender from now on.
        """
        left = self._left_s
        if self._waiting_since is not None:
            left -= now - self._waiting_since
        left += (bytes_read - self._bytes_read) / self._bytes_per_second
        self._left_s = min(left, self._window_s)
        self._waiting_since, self._bytes_read = now if waiting else None, bytes_read
        return self._left_s
