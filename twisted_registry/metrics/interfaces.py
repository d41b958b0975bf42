"""Interfaces for measurements: what the API reports of every request, and what workers count."""

from __future__ import annotations

from typing import Final

from attrs import frozen
from zope.interface import Interface

# zope's methods have no self.
# ruff: noqa: N805

#: First bytes of a line with the counts of a worker, on the pipe that also carries its log. No
#: JSON document begins with them.
COUNTS_PREFIX: Final = b"counts "


@frozen
class FinishedRequest:
    """One request that was answered, or whose client disconnected.

    :ivar handler: the name of the endpoint, as in Distribution's metrics.
    :ivar method: the request method as the client sent it.
    :ivar status: the status of the response; 499 if the client disconnected before it began.
    :ivar duration_s: seconds from the end of the request's headers to the end of the response.
    :ivar sent_bytes: size of the response body.
    :ivar received_bytes: size of the request body, as far as it was received.
    """

    handler: str
    method: str
    status: int
    duration_s: float
    sent_bytes: int
    received_bytes: int = 0


class IMetricsObserver(Interface):
    """Receives the start and the end of every request."""

    def request_started(handler: str) -> None:
        """Note that a request has begun; must neither block nor raise."""

    def request_finished(request: FinishedRequest) -> None:
        """Note that a request has ended; must neither block nor raise."""

    def limit_hit(limit: str) -> None:
        """Note that a request was refused because of a limit; must neither block nor raise.

        :param limit: the name of the limit, see ``RegistryError.limit``.
        """


class INotificationsObserver(Interface):
    """Receives what becomes of notifications; its methods must neither block nor raise."""

    def events_stored(endpoint: str, count: int) -> None:
        """Note that events wait for an endpoint."""

    def events_dropped(endpoint: str, count: int) -> None:
        """Note that events were dropped because too many wait."""

    def attempt_ended(endpoint: str, status: int, accepted: bool) -> None:  # noqa: FBT001
        """Note that an event was sent, or could not be.

        :param status: of the response; 0 without one.
        """


class ICountsReceiver(Interface):
    """Receives the counts of other processes."""

    def update(pid: int, report: bytes) -> None:
        """Replace the counts of a process.

        :param report: everything that the process has counted since it started.
        """

    def process_ended(pid: int) -> None:
        """Note that a process has ended."""
