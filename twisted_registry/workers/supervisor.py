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
    CONTROL_FD,
    LISTENER_FD,
    LOADS_FD,
    STOP_MESSAGE,
    Handover,
    encode_message,
    worker_command,
    worker_environment,
)
from twisted_registry.workers.logs import PID_FIELD, EventReceiver

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure

    from twisted_registry.config.loading import LoadedConfiguration
    from twisted_registry.metrics.interfaces import ICountsReceiver
    from twisted_registry.tls.interfaces import CertificateBundle
    from twisted_registry.workers.port import LoadTable

log = Logger()

#: Seconds until a worker that ended is replaced; doubled each time one ends early, up to the limit.
_MIN_RESTART_DELAY_S = 0.1
_MAX_RESTART_DELAY_S = 30.0
#: Seconds after which an end is not early any more.
_STABLE_AFTER_S = 10.0
#: Seconds that a worker gets beyond the drain timeout before it is killed.
_KILL_GRACE_S = 5.0


class WorkerSupervisor(Service):
    """Starts the other processes with the reactor, and ends when all of them have ended."""

    def __init__(
        self,
        reactor: Any,
        loaded: LoadedConfiguration,
        listening: socket.socket,
        loads: LoadTable,
        environ: Mapping[str, str] | None = None,
        observer: ILogObserver | None = None,
        gathered: ICountsReceiver | None = None,
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
        self._material: CertificateBundle | None = None
        self._slots = [WorkerSlot(number) for number in range(1, self._http.workers)]

    def startService(self) -> None:
        """Start the workers as soon as the reactor runs."""
        super().startService()
        self._reactor.callWhenRunning(self._start_all)

    def set_certificate(self, material: CertificateBundle) -> None:
        """Have all workers, also those that are not there yet, show a certificate from now on."""
        self._material = material
        for slot in self._slots:
            if slot.process is not None:
                slot.process.send(material)

    def stopService(self) -> Deferred[None]:
        """Ask all workers to drain and end; fires when none is left."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        ended = []
        for slot in self._slots:
            if slot.restart_call is not None:
                slot.restart_call.cancel()
                slot.restart_call = None
            if slot.process is not None:
                slot.process.send(STOP_MESSAGE)
                ended.append(slot.process.ended)
        late = self._reactor.callLater(self._http.draintimeout + _KILL_GRACE_S, self._kill)
        await DeferredList(ended)
        if late.active():
            late.cancel()

    def _kill(self) -> None:
        for slot in self._slots:
            if slot.process is not None:
                log.warn("worker {pid} does not end: killed", pid=slot.process.pid)
                slot.process.kill()

    def _start_all(self) -> None:
        for slot in self._slots:
            self._start(slot)

    def _start(self, slot: WorkerSlot) -> None:
        slot.restart_call = None
        if not self.running:
            return
        process = WorkerProcess(self, slot, EventReceiver(self._observer, self._gathered))
        slot.started_at = self._reactor.seconds()
        arguments = worker_command()
        null = os.open(os.devnull, os.O_RDONLY)
        try:
            self._reactor.spawnProcess(
                process,
                arguments[0],
                arguments,
                worker_environment(self._environ),
                childFDs={
                    0: null,
                    1: 1,
                    2: "r",
                    LISTENER_FD: self._listening.fileno(),
                    CONTROL_FD: "w",
                    LOADS_FD: self._loads.fileno(),
                },
            )
        except OSError as error:
            self._restart_later(slot, f"a worker can not be started: {error.strerror}")
            return
        finally:
            os.close(null)
        slot.process = process
        process.send(Handover(self._loaded, slot.number, material=self._material))

    def ended(self, process: WorkerProcess, reason: Failure) -> None:
        """A worker is gone."""
        slot = process.slot
        slot.process = None
        self._loads.gone(slot.number)
        if self._gathered is not None:
            self._gathered.process_ended(process.pid)
        if self.running:
            how = "" if reason.check(ProcessDone) else f": {reason.getErrorMessage()}"
            self._restart_later(slot, f"worker {process.pid} has ended{how}")

    def _restart_later(self, slot: WorkerSlot, why: str) -> None:
        early = self._reactor.seconds() - slot.started_at < _STABLE_AFTER_S
        slot.delay = (
            min(max(_MIN_RESTART_DELAY_S, slot.delay * 2), _MAX_RESTART_DELAY_S)
            if early
            else _MIN_RESTART_DELAY_S
        )
        log.warn("{why}; another one starts in {delay:.1f} s", why=why, delay=slot.delay)
        slot.restart_call = self._reactor.callLater(slot.delay, self._start, slot)


@define(eq=False)
class WorkerSlot:
    """The place of one worker, whoever sits there.

    :ivar number: from 1; the first process is 0.
    :ivar delay: seconds that were waited before the last start.
    """

    number: int
    process: WorkerProcess | None = field(default=None, init=False)
    restart_call: IDelayedCall | None = field(default=None, init=False)
    started_at: float = field(default=0.0, init=False)
    delay: float = field(default=0.0, init=False)


class WorkerProcess(ProcessProtocol):
    """One process."""

    transport: Any

    def __init__(self, workers: WorkerSupervisor, slot: WorkerSlot, reports: EventReceiver) -> None:
        self.slot = slot
        self.pid = 0
        self.ended: Deferred[None] = Deferred()
        self._workers = workers
        self._reports = reports

    def connectionMade(self) -> None:
        """It was started."""
        self.pid = self._reports.pid = self.transport.pid
        log.info("worker {pid} started", pid=self.pid, **{PID_FIELD: os.getpid()})

    def send(self, message: object) -> None:
        """Tell it something."""
        self.transport.writeToChild(CONTROL_FD, encode_message(message))

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
