"""Short JSON documents of other servers: fetched in time, and never more of one than is sane."""

# treq types none of its functions.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from attrs import define, field
from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.web.client import Agent, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime
    from twisted.python.failure import Failure
    from twisted.web.iweb import IAgent

#: Seconds.
_PATIENCE = 10.0
#: Bytes. A set of keys has a few thousand.
_LIMIT = 256 * 1024


class FetchFailed(Exception):
    """The document could not be had; the text says why."""


class Fetcher:
    """Fetches documents."""

    def __init__(self, reactor: Any, agent: IAgent | None = None) -> None:
        """Fetch them with ``agent``, or one that checks certificates as browsers do."""
        self._clock: IReactorTime = reactor
        self._client = HTTPClient(agent or Agent(reactor, connectTimeout=_PATIENCE))

    async def json(self, url: str) -> Any:
        """A document. Redirects are not followed.

        :raises FetchFailed: if it does not come, or is not JSON.
        """
        waiting: Deferred[bytes] = Deferred.fromCoroutine(self._content(url))
        waiting.addTimeout(_PATIENCE, self._clock)
        try:
            return json.loads(await waiting)
        except FetchFailed:
            raise
        except Exception as error:
            raise FetchFailed(f"{url}: {type(error).__name__}: {error}") from error

    async def _content(self, url: str) -> bytes:
        response = await self._client.get(
            url,
            headers=Headers({"Accept": ["application/json"]}),
            allow_redirects=False,
            unbuffered=True,
        )
        kept = _Kept()
        response.deliverBody(kept)
        content = await kept.done
        if response.code != 200:
            raise FetchFailed(f"{url}: answered {response.code}")
        return content


@define(eq=False)
class _Kept(Protocol):
    """Keeps a short body."""

    done: Deferred[bytes] = field(init=False)
    _pieces: list[bytes] = field(init=False, factory=list)
    _left: int = field(init=False, default=_LIMIT)

    @done.default
    def _ended_when_nobody_waits(self) -> Deferred[bytes]:
        return Deferred(lambda _: self._end())

    def dataReceived(self, data: bytes) -> None:
        """Keep a piece."""
        self._left -= len(data)
        if self._left < 0:
            self._end()
        else:
            self._pieces.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell who waits."""
        if self.done.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(b"".join(self._pieces))
        elif self._left < 0:
            self.done.errback(FetchFailed(f"it is longer than {_LIMIT} bytes"))
        else:
            self.done.errback(reason)

    def _end(self) -> None:
        transport: Any = self.transport
        # One of twisted.web's own, which ends the connection below.
        end = getattr(transport, "abortConnection", None) or transport.stopProducing
        end()
