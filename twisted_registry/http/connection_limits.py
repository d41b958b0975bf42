"""Limits on the number of connections, in all and from one address.

A connection above a limit takes the place of the ones that have waited longest for a request. If
none waits, it is refused: what is being answered is never cut off. Both are logged once a minute.
"""

from __future__ import annotations

from heapq import nsmallest
from ipaddress import ip_network
from math import inf
from typing import TYPE_CHECKING, Final

from twisted.logger import Logger

from twisted_registry.http.proxies import host_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.http.connection import HTTPConnection
    from twisted_registry.http.interfaces import Limits
    from twisted_registry.http.proxies import TrustedProxies

log = Logger()

#: A search for idle connections visits all of them, so it makes room for this part of the limit.
_EVICTED_PART: Final = 32
#: The time without a search after one that found nothing.
_SEARCH_PAUSE_S: Final = 1.0
_LOG_INTERVAL_S: Final = 60.0
#: One client has at least so many bits of an IPv6 address for itself (RFC 6177).
_IPV6_CLIENT_BITS: Final = 64


class ConnectionLimiter:
    """Closes idle connections, or refuses new ones, above the limits."""

    def __init__(
        self, limits: Limits, clock: IReactorTime, connections: set[HTTPConnection],
        proxies: TrustedProxies, on_limit: Callable[[str], object] = lambda _: None,
    ) -> None:  # fmt: skip
        """Limit the connections of a site.

        :param connections: the open ones; the site adds and removes them.
        :param proxies: have connections of many clients, so those of one are not limited.
        :param on_limit: called with the name of a limit for each connection above it.
        """
        self._limit = limits.connections
        self._limit_per_address = limits.connections_per_address
        self._clock = clock
        self._connections = connections
        self._proxies = proxies
        self._on_limit = on_limit
        self._by_client: dict[str, set[HTTPConnection]] = {}
        self._leaving: set[HTTPConnection] = set()  # evicted or refused, but still open
        self._next_search = self._next_log = -inf

    def opened(self, connection: HTTPConnection) -> None:
        """Make room for a new connection, or abort it."""
        if self._limit_per_address and (client := self._client_of(connection)):
            others = self._by_client.setdefault(client, set())
            others.add(connection)
            if self._exceeds(others, self._limit_per_address):
                self._make_room(connection, others, self._limit_per_address, client)
        if self._limit and self._exceeds(self._connections, self._limit):
            self._make_room(connection, self._connections, self._limit, "")

    def closed(self, connection: HTTPConnection) -> None:
        """Forget a connection."""
        self._leaving.discard(connection)
        if self._limit_per_address and (client := self._client_of(connection)):
            others = self._by_client.get(client, set())
            others.discard(connection)
            if not others:
                self._by_client.pop(client, None)

    def _client_of(self, connection: HTTPConnection) -> str:
        """Return the address, or the network of one client; empty if it is not limited."""
        host = host_of(connection.peer)
        if not host or self._proxies.trusts(host):
            return ""
        if ":" not in host:
            return host
        address = host.partition("%")[0]
        return str(ip_network((address, _IPV6_CLIENT_BITS), strict=False))

    def _exceeds(self, connections: set[HTTPConnection], limit: int) -> bool:
        count = len(connections)
        return count > limit and count - len(self._leaving & connections) > limit

    def _make_room(
        self,
        new: HTTPConnection,
        connections: set[HTTPConnection],
        limit: int,
        client: str,
    ) -> None:
        """Evict idle connections, or abort the new one if there are none.

        :param client: the address if the limit is that of one address.
        """
        if new in self._leaving:
            return
        self._on_limit("connections_per_address" if client else "connections")
        evicted = self._find_idle(new, connections, max(1, limit // _EVICTED_PART))
        self._log(limit, client, is_refused=not evicted)
        self._leaving.update(evicted)
        for connection in evicted:
            connection.evict()
        if not evicted:
            self._leaving.add(new)
            new.abort()

    def _find_idle(
        self, new: HTTPConnection, connections: Iterable[HTTPConnection], count: int
    ) -> list[HTTPConnection]:
        """Return the connections that have been idle for longest."""
        now = self._clock.seconds()
        is_total = connections is self._connections
        if is_total and now < self._next_search:
            return []
        idle = [
            (since, index, each)
            for index, each in enumerate(connections)
            if (since := each.idle_since) < inf and each is not new and each not in self._leaving
        ]
        if is_total and not idle:
            self._next_search = now + _SEARCH_PAUSE_S
        return [each for _, _, each in nsmallest(count, idle)]

    def _log(self, limit: int, client: str, *, is_refused: bool) -> None:
        now = self._clock.seconds()
        if now < self._next_log:
            return
        self._next_log = now + _LOG_INTERVAL_S
        log.warn(
            "too many connections{of}: limit={limit}; {action}",
            of=f" of {client}" if client else "",
            limit=limit,
            action="none is idle, so new ones are refused" if is_refused
            else "those that were idle for longest are closed",
        )  # fmt: skip
