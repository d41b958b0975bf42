"""The seam for measurements: what the edge tells of every request."""

from __future__ import annotations

from attrs import frozen
from zope.interface import Interface

# zope's methods have no self.
# ruff: noqa: N805


@frozen
class FinishedRequest:
    """One request that was answered, or whose client left.

    :ivar handler: the route's name, as Distribution's metrics call it.
    :ivar status: 499 if the client left before there was an answer.
    :ivar seconds: from the headers to the end of the answer.
    :ivar sent: bytes of the answer's body.
    :ivar received: bytes of the request's body as its head told them, 0 without one; None if the
        head did not tell.
    """

    handler: str
    method: str
    status: int
    seconds: float
    sent: int
    received: int | None = 0


class IMetricsObserver(Interface):
    """Hears of requests."""

    def request_started(handler: str) -> None:
        """Note that a request is under way; must neither block nor raise."""

    def request_finished(request_finished: FinishedRequest) -> None:
        """Note that it is over; must neither block nor raise."""
