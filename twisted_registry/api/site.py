"""The factory of our channel: what all connections of one listener share."""

from __future__ import annotations

from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, DeferredSemaphore, succeed
from twisted.logger import Logger
from twisted.web.resource import getChildForRequest
from twisted.web.server import Site

from twisted_registry.api.channel import RegistryChannel
from twisted_registry.api.filepump import file_reader
from twisted_registry.api.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IAddress, IDelayedCall
    from twisted.python.threadpool import ThreadPool
    from twisted.web.resource import IResource

    from twisted_registry.api.accesslog import IAccessLog
    from twisted_registry.api.head import Head
    from twisted_registry.api.request import RegistryRequest

log = Logger()

# How late a deadline may be noticed, in seconds; never early.
_SWEEP_SECONDS = 1
# Threads that send files over TLS at a time: more would only wait for processors, and the pool is
# that of others, too.
_TURNS = 4


class RegistrySite(Site):
    """Serves a Resource tree over :class:`~twisted_registry.api.channel.RegistryChannel`.

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
        self.read_file = file_reader(reactor, threadpool)
        self.turns = DeferredSemaphore(_TURNS)
        self.draining = False
        self.heads: dict[bytes, Head] = {}
        self.counted: Callable[[int], object] | None = None
        self._channels: set[RegistryChannel] = set()
        self._sweeper: IDelayedCall | None = None
        self._date = (-1, b"")
        self._drained: list[Deferred[None]] = []
        self._left: list[Deferred[None]] = []

    def buildProtocol(self, addr: IAddress | None) -> RegistryChannel:  # type: ignore[override]
        """A channel for a new connection."""
        del addr
        return RegistryChannel(self)

    def acceptableProtocols(self) -> list[bytes]:
        """What to offer in ALPN."""
        return [b"http/1.1"]

    def getResourceFor(self, request: RegistryRequest) -> IResource:
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
        if not any(channel.busy for channel in self._channels):
            return succeed(None)
        done: Deferred[None] = Deferred(self._drained.remove)
        self._drained.append(done)
        return done

    def part(self) -> Deferred[None]:
        """Close all connections, with what has been answered on its way to the clients.

        :return: fires with None when none is left.
        """
        for channel in list(self._channels):
            channel.part()
        if not self._channels:
            return succeed(None)
        done: Deferred[None] = Deferred(self._left.remove)
        self._left.append(done)
        return done

    def abort(self) -> None:
        """Reset all connections, whatever they are doing."""
        for channel in list(self._channels):
            channel.abort()

    def date(self) -> bytes:
        """Now, as a Date field says it."""
        now = int(self.clock.seconds())
        second, text = self._date
        if second != now:
            text = formatdate(now, usegmt=True).encode()
            self._date = (now, text)
        return text

    def log(self, request: RegistryRequest) -> None:  # type: ignore[override]
        """A request is over, answered or not."""
        if self.access_log is not None:
            try:
                self.access_log.log(request)
            except Exception:  # noqa: BLE001 (a full disk must not break the answers)
                log.failure("The access log failed")

    # What a channel calls

    def opened(self, channel: RegistryChannel) -> None:
        """A connection is there."""
        self._channels.add(channel)
        self._count()
        if self._sweeper is None:
            self._sweeper = self.clock.callLater(_SWEEP_SECONDS, self._sweep)

    def closed(self, channel: RegistryChannel) -> None:
        """A connection is gone."""
        self._channels.discard(channel)
        self._count()
        if not self._channels and self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        self.settled()
        if not self._channels:
            left, self._left = self._left, []
            for done in left:
                done.callback(None)

    def settled(self) -> None:
        """A connection may have become idle."""
        if self._drained and not any(channel.busy for channel in self._channels):
            drained, self._drained = self._drained, []
            for done in drained:
                done.callback(None)

    def _count(self) -> None:
        if self.counted is not None:
            self.counted(len(self._channels))

    def _begin_to_drain(self) -> None:
        self.draining = True
        for channel in list(self._channels):
            channel.drain()

    def _sweep(self) -> None:
        """One pass over all deadlines, rather than a delayed call for each connection."""
        now = self.clock.seconds()
        self._sweeper = self.clock.callLater(_SWEEP_SECONDS, self._sweep)
        late = [channel for channel in self._channels if channel.deadline <= now]
        for channel in late:
            channel.expired()
