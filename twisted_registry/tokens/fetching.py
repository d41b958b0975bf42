"""Short JSON documents of other servers: fetched in time, and never more of one than is sane."""

# treq types none of its functions.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.web.http_headers import Headers

from twisted_registry.quiet import make_agent
from twisted_registry.shortbody import read_limited_body

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime
    from twisted.web.iweb import IAgent

#: Seconds.
_TIMEOUT_S = 10.0
#: Bytes. A set of keys has a few thousand.
_MAX_DOCUMENT_BYTES = 256 * 1024


class FetchError(Exception):
    """The document could not be had; the text says why."""


class JSONFetcher:
    """Fetches documents."""

    def __init__(self, reactor: Any, agent: IAgent | None = None) -> None:
        """Fetch them with ``agent``, or one that checks certificates as browsers do."""
        self._clock: IReactorTime = reactor
        self._client = HTTPClient(agent or make_agent(reactor, _TIMEOUT_S))

    async def json(self, url: str) -> Any:
        """A document. Redirects are not followed.

        :raises FetchError: if it does not come, or is not JSON.
        """
        waiting: Deferred[bytes] = Deferred.fromCoroutine(self._content(url))
        waiting.addTimeout(_TIMEOUT_S, self._clock)
        try:
            return json.loads(await waiting)
        except FetchError:
            raise
        except Exception as error:
            raise FetchError(f"{url}: {type(error).__name__}: {error}") from error

    async def _content(self, url: str) -> bytes:
        response = await self._client.get(
            url,
            headers=Headers({"Accept": ["application/json"]}),
            allow_redirects=False,
            unbuffered=True,
        )
        content = await read_limited_body(response, _MAX_DOCUMENT_BYTES)
        if response.code != 200:
            raise FetchError(f"{url}: answered {response.code}")
        return content
