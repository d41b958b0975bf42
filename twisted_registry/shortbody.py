"""Bodies of answers that have to be short: kept in memory, and never more of one than is sane."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss

if TYPE_CHECKING:
    from twisted.python.failure import Failure


class BodyTooLong(Exception):
    """There is more than was asked for; the text says so."""


async def read_limited_body(response: Any, limit: int) -> bytes:
    """The body of an answer that nothing has read yet; the connection ends if nobody waits for it.

    :param response: an ``IResponse``, or treq's of a request with ``unbuffered``.
    :param limit: bytes.
    :raises BodyTooLong: if it has more.
    """
    kept = _LimitedBodyProtocol(limit)
    response.deliverBody(kept)
    return await kept.done


@define(eq=False)
class _LimitedBodyProtocol(Protocol):
    """Keeps a short body."""

    limit: int
    done: Deferred[bytes] = field(init=False)
    _pieces: list[bytes] = field(init=False, factory=list)
    _length: int = field(init=False, default=0)

    @done.default
    def _ended_when_nobody_waits(self) -> Deferred[bytes]:
        return Deferred(lambda _: self._end())

    def dataReceived(self, data: bytes) -> None:
        """Keep a piece."""
        self._length += len(data)
        if self._length > self.limit:
            self._end()
        else:
            self._pieces.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell who waits."""
        if self.done.called:
            return
        if self._length > self.limit:
            self.done.errback(BodyTooLong(f"it is longer than {self.limit} bytes"))
        elif reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(b"".join(self._pieces))
        else:
            self.done.errback(reason)

    def _end(self) -> None:
        transport: Any = self.transport
        # One of twisted.web's own, which ends the connection below.
        end = getattr(transport, "abortConnection", None) or transport.stopProducing
        end()
