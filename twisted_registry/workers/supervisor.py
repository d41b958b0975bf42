"""The processes beside the first: started, watched, started again, and ended with it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import ProcessDone
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import ILogObserver, Logger, globalLogPublisher

from twisted_registry.workers.handover import (
    CONTROL,
    LISTENER,
    LOADS,
    STOP,
    Handover,
    command,
    environment,
    framed,
)
from twisted_registry.workers.reports import PID, Reports

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure

    from twisted_registry.config.loading import Loaded
    from twisted_registry.tls.material import Material
    from twisted_registry.workers.loads import Loads
    from twisted_registry.workers.reports import ICounted

log = Logger()

#: Seconds until a worker that ended is replaced; doubled each time one ends early, up to the limit.
_SOON = 0.1
_LATE = 30.0
#: Seconds after which an end is not early any more.
_SETTLED = 10.0
#: Seconds that a worker gets beyond the drain timeout before it is killed.
_GRACE = 5.0


class Workers(Service):
    """Starts the other processes with the reactor, and ends when all of them have ended."""

    def __init__(
        self,
        reactor: Any,
        loaded: Loaded,
        listening: socket.socket,
        loads: Loads,
        environ: Mapping[str, str] | None = None,
        observer: ILogObserver | None = None,
        gathered: ICounted | None = None,
    ) -> None:
        """Take what every worker gets.

        :param loaded: the configuration; ``http.workers`` counts the first process too.
        :param listening: the socket to accept from, which somebody else closes.
        :param loads: the table, as this process has it, which somebody else closes.
        :param environ: of this process; its own by default.
        :param observer: hears of what workers log; everybody by default.
        :param gathered: is told what workers have counted; None if they count nothing.
        """
        self._reactor = reactor
        self._loaded = loaded
        self._listening = listening
        self._loads = loads
        self._gathered = gathered
        self._environ = os.environ if environ is None else environ
        self._observer = globalLogPublisher if observer is None else observer
        self._http = loaded.configuration.http
        self._material: Material | None = None
        self._seats = [_Seat(number) for number in range(1, self._http.workers)]

    def startService(self) -> None:
        """Start the workers as soon as the reactor runs."""
        super().startService()
        self._reactor.callWhenRunning(self._start_all)

    def show(self, material: Material) -> None:
        """Have all workers, also those that are not there yet, show a certificate from now on."""
        self._material = material
        for seat in self._seats:
            if seat.process is not None:
                seat.process.send(material)

    def stopService(self) -> Deferred[None]:
        """Ask all workers to drain and end; fires when none is left."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        ended = []
        for seat in self._seats:
            if seat.later is not None:
                seat.later.cancel()
                seat.later = None
            if seat.process is not None:
                seat.process.send(STOP)
                ended.append(seat.process.ended)
        late = self._reactor.callLater(self._http.draintimeout + _GRACE, self._kill)
        await DeferredList(ended)
        if late.active():
            late.cancel()

    def _kill(self) -> None:
        for seat in self._seats:
            if seat.process is not None:
                log.warn("worker {pid} does not end: killed", pid=seat.process.pid)
                seat.process.kill()

    def _start_all(self) -> None:
        for seat in self._seats:
            self._start(seat)

    def _start(self, seat: _Seat) -> None:
        seat.later = None
        if not self.running:
            return
        process = _Process(self, seat, Reports(self._observer, self._gathered))
        seat.began = self._reactor.seconds()
        arguments = command()
        null = os.open(os.devnull, os.O_RDONLY)
        try:
            self._reactor.spawnProcess(
                process,
                arguments[0],
                arguments,
                environment(self._environ),
                childFDs={
                    0: null,
                    1: 1,
                    2: "r",
                    LISTENER: self._listening.fileno(),
                    CONTROL: "w",
                    LOADS: self._loads.fileno(),
                },
            )
        except OSError as error:
            self._again(seat, f"a worker can not be started: {error.strerror}")
            return
        finally:
            os.close(null)
        seat.process = process
        process.send(Handover(self._loaded, seat.number, material=self._material))

    def ended(self, process: _Process, reason: Failure) -> None:
        """A worker is gone."""
        seat = process.seat
        seat.process = None
        self._loads.gone(seat.number)
        if self._gathered is not None:
            self._gathered.gone(process.pid)
        if self.running:
            how = "" if reason.check(ProcessDone) else f": {reason.getErrorMessage()}"
            self._again(seat, f"worker {process.pid} has ended{how}")

    def _again(self, seat: _Seat, why: str) -> None:
        early = self._reactor.seconds() - seat.began < _SETTLED
        seat.delay = min(max(_SOON, seat.delay * 2), _LATE) if early else _SOON
        log.warn("{why}; another one starts in {delay:.1f} s", why=why, delay=seat.delay)
        seat.later = self._reactor.callLater(seat.delay, self._start, seat)


@define(eq=False)
class _Seat:
    """The place of one worker, whoever sits there.

    :ivar number: from 1; the first process is 0.
    :ivar delay: seconds that were waited before the last start.
    """

    number: int
    process: _Process | None = field(default=None, init=False)
    later: IDelayedCall | None = field(default=None, init=False)
    began: float = field(default=0.0, init=False)
    delay: float = field(default=0.0, init=False)


class _Process(ProcessProtocol):
    """One process."""

    transport: Any

    def __init__(self, workers: Workers, seat: _Seat, reports: Reports) -> None:
        self.seat = seat
        self.pid = 0
        self.ended: Deferred[None] = Deferred()
        self._workers = workers
        self._reports = reports

    def connectionMade(self) -> None:
        """It was started."""
        self.pid = self._reports.pid = self.transport.pid
        log.info("worker {pid} started", pid=self.pid, **{PID: os.getpid()})

    def send(self, message: object) -> None:
        """Tell it something."""
        self.transport.writeToChild(CONTROL, framed(message))

    def kill(self) -> None:
        """End it at once."""
        self.transport.signalProcess("KILL")

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """It logs."""
        del childFD
        self._reports.received(data)

    def processEnded(self, reason: Failure) -> None:
        """It is gone, and all that it said was heard."""
        self._reports.ended()
        self._workers.ended(self, reason)
        self.ended.callback(None)
