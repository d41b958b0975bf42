"""The factory of our channel: what all connections of one listener share.

One line for each request, in Apache's combined format.
"""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, TextIO

from twisted.internet.defer import Deferred, DeferredSemaphore, succeed
from twisted.logger import Logger
from twisted.web.resource import getChildForRequest
from twisted.web.server import Site
from zope.interface import Interface, implementer

from twisted_registry.http.connection import HTTPConnection
from twisted_registry.http.interfaces import Limits
from twisted_registry.http.output import make_file_reader

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IAddress, IDelayedCall
    from twisted.python.threadpool import ThreadPool
    from twisted.web.resource import IResource

    # @@EMPTY
    from twisted.web.server import Request

    from twisted_registry.http.parser import RequestHead
    from twisted_registry.http.request import StreamingRequest

log = Logger()

# How late a deadline may be noticed, in seconds; never early.
_DEADLINE_CHECK_INTERVAL_S = 1
# Threads that send files over TLS at a time: more would only wait for processors, and the pool is
# that of others, too.
_MAX_TLS_SEND_THREADS = 4


class HTTPSite(Site):
    """Serves a Resource tree over :class:`~twisted_registry.http.connection.HTTPConnection`.

    :param resource: the root.
    :param reactor: the clock of everything here; its thread pool reads files where the kernel
        can not send them.
    :param limits: sizes and times.
    :param access_log: an IAccessLog, told of every request when it is over.
    :param threadpool: another pool to read files on.
    :ivar turns: of threads that send files over TLS.
    :ivar heads: requests that were read before, for the parsers.
    :ivar counted: told how many connections there are, each time that this changes.
    """

    #: Twisted would log the start and the end of a factory, by its address in memory.
    noisy = False

    def __init__(
        self,
        resource: IResource,
        reactor: Any,
        limits: Limits | None = None,
        access_log: IAccessLog | None = None,
        threadpool: ThreadPool | None = None,
    ) -> None:
        super().__init__(resource, reactor=reactor)
        self.clock = reactor
        self.limits = Limits() if limits is None else limits
        self.access_log = access_log
        self.read_file = make_file_reader(reactor, threadpool)
        self.tls_send_slots = DeferredSemaphore(_MAX_TLS_SEND_THREADS)
        self.draining = False
        self.heads: dict[bytes, RequestHead] = {}
        self.on_connection_count: Callable[[int], object] | None = None
        self.connections: set[HTTPConnection] = set()
        self._deadline_call: IDelayedCall | None = None
        self._cached_date = (-1, b"")
        self._drain_waiters: list[Deferred[None]] = []
        self._disconnect_waiters: list[Deferred[None]] = []

    def buildProtocol(self, addr: IAddress | None) -> HTTPConnection:  # type: ignore[override]
        """A channel for a new connection."""
        del addr
        return HTTPConnection(self)

    def acceptableProtocols(self) -> list[bytes]:
        """What to offer in ALPN."""
        return [b"http/1.1"]

    def getResourceFor(self, request: StreamingRequest) -> IResource:
        """The Resource that a request is for."""
        request.sitepath = []
        found: IResource = getChildForRequest(self.resource, request)
        return found

    def startFactory(self) -> None:
        """A listener opened."""
        self.draining = False

    def stopFactory(self) -> None:
        """The last listener closed: end what is idle, finish what is under way."""
        self._begin_to_drain()

    def drain(self) -> Deferred[None]:
        """Take no further requests: idle connections close, busy ones after their answer.

        :return: fires with None when no request is under way any more.
        """
        self._begin_to_drain()
        if not any(channel.busy for channel in self.connections):
            return succeed(None)
        done: Deferred[None] = Deferred(self._drain_waiters.remove)
        self._drain_waiters.append(done)
        return done

    def disconnect(self) -> Deferred[None]:
        """Close all connections, with what has been answered on its way to the clients.

        :return: fires with None when none is left.
        """
        for channel in list(self.connections):
            channel.disconnect()
        if not self.connections:
            return succeed(None)
        done: Deferred[None] = Deferred(self._disconnect_waiters.remove)
        self._disconnect_waiters.append(done)
        return done

    def abort(self) -> None:
        """Reset all connections, whatever they are doing."""
        for channel in list(self.connections):
            channel.abort()

    def date(self) -> bytes:
        """Now, as a Date field says it."""
        now = int(self.clock.seconds())
        second, text = self._cached_date
        if second != now:
            text = formatdate(now, usegmt=True).encode()
            self._cached_date = (now, text)
        return text

    def log(self, request: StreamingRequest) -> None:  # type: ignore[override]
        """A request is over, answered or not."""
        if self.access_log is not None:
            try:
                self.access_log.log(request)
            except Exception:  # noqa: BLE001 (a full disk must not break the answers)
                log.failure("The access log failed")

    # What a channel calls

    def connection_opened(self, channel: HTTPConnection) -> None:
        """A connection is there."""
        self.connections.add(channel)
        self._report_connection_count()
        if self._deadline_call is None:
            self._deadline_call = self.clock.callLater(
                _DEADLINE_CHECK_INTERVAL_S, self._check_deadlines
            )

    def connection_closed(self, channel: HTTPConnection) -> None:
        """A connection is gone."""
        self.connections.discard(channel)
        self._report_connection_count()
        if not self.connections and self._deadline_call is not None:
            self._deadline_call.cancel()
            self._deadline_call = None
        self.connection_idle()
        if not self.connections:
            left, self._disconnect_waiters = self._disconnect_waiters, []
            for done in left:
                done.callback(None)

    def connection_idle(self) -> None:
        """A connection may have become idle."""
        if self._drain_waiters and not any(channel.busy for channel in self.connections):
            drained, self._drain_waiters = self._drain_waiters, []
            for done in drained:
                done.callback(None)

    def _report_connection_count(self) -> None:
        if self.on_connection_count is not None:
            self.on_connection_count(len(self.connections))

    def _begin_to_drain(self) -> None:
        self.draining = True
        for channel in list(self.connections):
            channel.drain()

    def _check_deadlines(self) -> None:
        """One pass over all deadlines, rather than a delayed call for each connection."""
        now = self.clock.seconds()
        self._deadline_call = self.clock.callLater(
            _DEADLINE_CHECK_INTERVAL_S, self._check_deadlines
        )
        late = [channel for channel in self.connections if channel.deadline <= now]
        for channel in late:
            channel.deadline_expired()


# What could end the line or the field, or steer a terminal.
_ESCAPES: dict[int, str] = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0x100))}
_ESCAPES[ord('"')] = '\\"'
_ESCAPES[ord("\\")] = "\\\\"


class IAccessLog(Interface):
    """Something that wants to know of every request when it is over."""

    def log(request: Request) -> None:  # noqa: N805 (zope's methods have no self)
        """A request was answered, or its client left: then ``code`` is 499 unless an answer
        had begun, or the status with which the channel refused it.

        ``code``, ``sentLength``, ``duration`` (seconds), ``user`` and everything that
        the client sent can be asked for.
        """


@implementer(IAccessLog)
class AccessLog:
    """Writes to a text stream, one ``write`` for each line.

    The time of a line is that of the request's site. The user is ``request.user``, which the
    API sets to the name that it has verified; what a client merely says is not logged.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._cached_time = (-1, "")

    def log(self, request: Any) -> None:
        """Write the line of ``request``."""
        self._stream.write(
            f"{_address(request)} - {_user(request)} [{self._now(request)}]"
            f' "{_quoted(request.method)} {_quoted(request.uri)} {_quoted(request.clientproto)}"'
            f" {request.code} {request.sentLength or '-'}"
            f' "{_header(request, b"referer")}" "{_header(request, b"user-agent")}"\n'
        )

    def _now(self, request: Any) -> str:
        now = int(request.site.clock.seconds())
        second, text = self._cached_time
        if second != now:
            text = datetime.fromtimestamp(now, UTC).strftime("%d/%b/%Y:%H:%M:%S +0000")
            self._cached_time = (now, text)
        return text


def _address(request: Any) -> str:
    """The client's host; a Unix socket has none."""
    return getattr(request.getClientAddress(), "host", None) or "-"


def _quoted(value: bytes) -> str:
    return value.decode("latin-1").translate(_ESCAPES)


def _user(request: Any) -> str:
    """The name stands without quotes and so may hold no space either."""
    user: bytes = getattr(request, "user", b"")
    return _quoted(user).replace(" ", "\\x20") or "-"


def _header(request: Any, name: bytes) -> str:
    value = request.getHeader(name)
    return "-" if value is None else _quoted(value)
