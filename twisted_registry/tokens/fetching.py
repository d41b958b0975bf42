"""Short JSON documents of other servers: fetched in time, and never more of one than is sane."""

# treq types none of its functions.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.web.http_headers import Headers

from twisted_registry.quiet import quiet_agent
from twisted_registry.shortbody import short_body

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime
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
        self._client = HTTPClient(agent or quiet_agent(reactor, _PATIENCE))

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
        content = await short_body(response, _LIMIT)
        if response.code != 200:
            raise FetchFailed(f"{url}: answered {response.code}")
        return content
