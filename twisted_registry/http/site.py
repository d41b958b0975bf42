"""Factory of HTTP connections, with what they share; access log in Apache's combined format."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, TextIO

from twisted.internet.defer import Deferred, DeferredSemaphore, succeed
from twisted.logger import Logger
from twisted.web.resource import getChildForRequest
from twisted.web.server import Site
from zope.interface import implementer

from twisted_registry.http.connection import HTTPConnection
from twisted_registry.http.connection_limits import ConnectionLimiter
from twisted_registry.http.framing import plain_error_body
from twisted_registry.http.interfaces import IAccessLog, Limits
from twisted_registry.http.output import make_file_reader
from twisted_registry.http.parser import HeadCache
from twisted_registry.http.proxies import TrustedProxies, private_proxies
from twisted_registry.http.redaction import redact_target
from twisted_registry.http.request import StreamingRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IAddress, IDelayedCall
    from twisted.web.resource import IResource

    from twisted_registry.http.interfaces import MakeErrorBody

log = Logger()

# A deadline is noticed up to so many seconds late, and never early.
_DEADLINE_CHECK_INTERVAL_S = 1
#: Seconds for the first request of a connection that is new when the site drains.
_FIRST_REQUEST_S = 1
# The time between two warnings that headers of proxies are ignored.
_IGNORED_HEADERS_INTERVAL_S = 3600
# Threads that send files over TLS at a time: more would only wait for processors, and the pool has
# other users.
_MAX_TLS_SEND_THREADS = 4
# Escapes in the access log: characters that could end the line or the field, or control a terminal.
_ESCAPES: dict[int, str] = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0x100))}
_ESCAPES[ord('"')] = '\\"'
_ESCAPES[ord("\\")] = "\\\\"


class HTTPSite(Site):
    """Serves a Resource tree over :class:`~twisted_registry.http.connection.HTTPConnection`.

    :param resource: the root of the tree.
    :param reactor: the clock of all connections. Its thread pool reads files where ``sendfile``
        does not work.
    :param limits: sizes and times.
    :param access_log: logs every request when it ends.
    :param make_error_body: makes the bodies of errors that no Resource answers; plain text if left
        out.
    :param trusted_proxies: whose headers about clients are believed, and whose connections
        ``Limits.connections_per_address`` does not limit. None to believe those on private
        addresses, and to limit all.
    :ivar tls_send_slots: limits the threads that send files over TLS.
    :ivar head_cache: shared by the parsers of all connections.
    :ivar read_file: see :func:`~twisted_registry.http.output.make_file_reader`.
    :ivar draining: whether every response is the last one of its connection.
    :ivar connections: the open connections.
    :ivar begin_request: begins a request whose head is complete; may be set, and then calls
        ``request.begin()``.
    :ivar on_connection_count: called with the number of connections when it changes; may be set.
    :ivar on_limit: called with the name of a field of ``limits`` when a request or connection
        exceeds it; may be set.
    """

    #: Otherwise Twisted logs the start and the stop of the factory.
    noisy = False

    def __init__(
        self,
        resource: IResource,
        reactor: Any,
        limits: Limits | None = None,
        access_log: IAccessLog | None = None,
        make_error_body: MakeErrorBody = plain_error_body,
        trusted_proxies: TrustedProxies | None = None,
    ) -> None:
        super().__init__(resource, reactor=reactor)
        self.clock = reactor
        self.limits = Limits() if limits is None else limits
        self.access_log = access_log
        self.make_error_body = make_error_body
        self.trusted_proxies = private_proxies() if trusted_proxies is None else trusted_proxies
        self.read_file = make_file_reader(reactor)
        self.tls_send_slots = DeferredSemaphore(_MAX_TLS_SEND_THREADS)
        self.head_cache = HeadCache(self.limits)
        self.draining = False
        self.connections: set[HTTPConnection] = set()
        self.on_limit: Callable[[str], object] = lambda _: None
        self._limiter = ConnectionLimiter(
            self.limits,
            reactor,
            self.connections,
            TrustedProxies() if trusted_proxies is None else trusted_proxies,
            self._limit_hit,
        )
        self.begin_request: Callable[[StreamingRequest], object] = StreamingRequest.begin
        self.on_connection_count: Callable[[int], object] = lambda _: None
        self._deadline_call: IDelayedCall | None = None
        self._cached_date = (-1, b"")
        self._next_ignored_headers_warning = -math.inf
        self._drain_waiters: list[Deferred[None]] = []
        self._disconnect_waiters: list[Deferred[None]] = []

    # Called by Twisted

    def buildProtocol(self, addr: IAddress | None) -> HTTPConnection:  # type: ignore[override]
        """Return the protocol of a new connection."""
        del addr
        return HTTPConnection(self)

    def acceptableProtocols(self) -> list[bytes]:
        """Return what to offer in ALPN."""
        return [b"http/1.1"]

    def startFactory(self) -> None:
        """Accept requests, after a listener was opened."""
        self.draining = False

    def stopFactory(self) -> None:
        """Drain, after the last listener was closed."""
        self._begin_to_drain()

    # Called by the application

    def drain(self) -> Deferred[None]:
        """Accept no further requests: close idle connections now, busy ones after their response.

        A new connection gets a second or two for its first request: unlike that of an idle one, its
        client does not expect that it is closed without a response.

        :returns: fires with None when no connection is busy or new.
        """
        self._begin_to_drain()
        if self._is_drained():
            return succeed(None)
        done: Deferred[None] = Deferred(self._drain_waiters.remove)
        self._drain_waiters.append(done)
        return done

    def disconnect(self) -> Deferred[None]:
        """Close all connections. Complete responses still reach their clients.

        :returns: fires with None when no connection is left.
        """
        for connection in list(self.connections):
            connection.disconnect()
        if not self.connections:
            return succeed(None)
        done: Deferred[None] = Deferred(self._disconnect_waiters.remove)
        self._disconnect_waiters.append(done)
        return done

    def abort(self) -> None:
        """Reset all connections."""
        for connection in list(self.connections):
            connection.abort()

    # Called by connections and requests

    def getResourceFor(self, request: StreamingRequest) -> IResource:
        """Return the Resource of a request."""
        request.sitepath = []
        resource: IResource = getChildForRequest(self.resource, request)
        return resource

    def date(self) -> bytes:
        """Return the current time as the value of a Date field."""
        now = int(self.clock.seconds())
        second, text = self._cached_date
        if second != now:
            text = formatdate(now, usegmt=True).encode()
            self._cached_date = (now, text)
        return text

    def headers_ignored(self, peer: str) -> None:
        """Warn, once an hour, that the headers of a proxy are ignored; it may be misconfigured.

        :param peer: the IP address of the proxy, or of a client that has forged them.
        """
        now = self.clock.seconds()
        if now >= self._next_ignored_headers_warning:
            self._next_ignored_headers_warning = now + _IGNORED_HEADERS_INTERVAL_S
            log.warn(
                "X-Forwarded and Forwarded headers are ignored: peer={peer}; if it is a proxy, add"
                " it to http.trustedproxies",
                peer=peer or "unix",
            )

    def log(self, request: StreamingRequest) -> None:  # type: ignore[override]
        """Write a request that has ended to the access log."""
        if self.access_log is not None:
            try:
                self.access_log.log(request)
            except Exception:  # noqa: BLE001 (a full disk must not break responses)
                log.failure("The access log failed")

    def _limit_hit(self, name: str) -> None:
        self.on_limit(name)

    def connection_opened(self, connection: HTTPConnection) -> None:
        """Add a connection; it is aborted if there are too many."""
        self.connections.add(connection)
        self._limiter.opened(connection)
        self.on_connection_count(len(self.connections))
        if self._deadline_call is None:
            self._deadline_call = self.clock.callLater(
                _DEADLINE_CHECK_INTERVAL_S, self._check_deadlines
            )

    def connection_closed(self, connection: HTTPConnection) -> None:
        """Remove a connection."""
        self.connections.discard(connection)
        self._limiter.closed(connection)
        self.on_connection_count(len(self.connections))
        if not self.connections and self._deadline_call is not None:
            self._deadline_call.cancel()
            self._deadline_call = None
        self.connection_idle()
        if not self.connections:
            _fire_all(self._disconnect_waiters)

    def connection_idle(self) -> None:
        """Check whether all connections are idle, after one may have become idle."""
        if self._drain_waiters and self._is_drained():
            _fire_all(self._drain_waiters)

    def _is_drained(self) -> bool:
        return not any(connection.busy or connection.is_new for connection in self.connections)

    def _begin_to_drain(self) -> None:
        self.draining = True
        first_request_due = self.clock.seconds() + _FIRST_REQUEST_S
        for connection in list(self.connections):
            if connection.is_new:
                connection.deadline = min(connection.deadline, first_request_due)
            else:
                connection.close_if_idle()

    def _check_deadlines(self) -> None:
        # One pass over all deadlines costs less than a delayed call for each connection.
        now = self.clock.seconds()
        self._deadline_call = self.clock.callLater(
            _DEADLINE_CHECK_INTERVAL_S, self._check_deadlines
        )
        for connection in [each for each in self.connections if each.deadline <= now]:
            connection.deadline_expired()


def _fire_all(waiters: list[Deferred[None]]) -> None:
    while waiters:
        waiters.pop(0).callback(None)


@implementer(IAccessLog)
class AccessLog:
    """Writes a line for each request to a text stream, with one ``write`` per line.

    The first field is the address at the other end of the socket, as in Distribution. If trusted
    proxies report another client, its address is a last field in quotes, as in nginx's format
    ``main``. The time is that of the clock of the request's site. The user is ``request.user``,
    which the application sets to an authenticated name; unverified names are not logged. The
    target is without secrets. A traced request ends with ``trace_id=`` and the id of its trace.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._cached_time = (-1, "")

    def log(self, request: Any) -> None:
        """Write the line of ``request``."""
        client = request.client_info
        reported = f' "{client.address or "-"}"' if client.address != client.peer else ""
        trace = f" trace_id={request.trace_id}" if request.trace_id else ""
        self._stream.write(
            f"{client.peer or '-'} - {_user(request)} [{self._timestamp(request)}]"
            f' "{_escape(request.method)} {_target(request.uri)} {_escape(request.clientproto)}"'
            f" {request.code} {request.sentLength or '-'}"
            f' "{_referer(request)}" "{_header(request, b"user-agent")}"{reported}{trace}\n'
        )

    def _timestamp(self, request: Any) -> str:
        now = int(request.site.clock.seconds())
        second, text = self._cached_time
        if second != now:
            text = datetime.fromtimestamp(now, UTC).strftime("%d/%b/%Y:%H:%M:%S +0000")
            self._cached_time = (now, text)
        return text


def _escape(value: bytes) -> str:
    return value.decode("latin-1").translate(_ESCAPES)


def _target(value: bytes) -> str:
    return _escape(redact_target(value))


def _referer(request: Any) -> str:
    value = request.getHeader(b"referer")
    return "-" if value is None else _target(value)


def _user(request: Any) -> str:
    # The field is not quoted, so spaces have to be escaped as well.
    user: bytes = getattr(request, "user", b"")
    return _escape(user).replace(" ", "\\x20") or "-"


def _header(request: Any, name: bytes) -> str:
    value = request.getHeader(name)
    return "-" if value is None else _escape(value)
