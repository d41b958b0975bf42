"""Worker processes: start, watch, replace and stop them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.internet.error import ProcessDone
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import ILogObserver, Logger, globalLogPublisher

from twisted_registry.workers.handover import (
    ABORT_MESSAGE,
    CONTROL_FD,
    LISTENER_FD,
    STOP_MESSAGE,
    TABLE_FD,
    Handover,
    Inspection,
    Question,
    encode_message,
    worker_command,
    worker_environment,
)
from twisted_registry.workers.logs import PID_FIELD, EventReceiver
from twisted_registry.workers.port import MAX_NUMBER

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure

    from twisted_registry.config.loading import LoadedConfiguration
    from twisted_registry.metrics.interfaces import ICountsReceiver
    from twisted_registry.tls.interfaces import CertificateBundle
    from twisted_registry.workers.port import ProcessTable

log = Logger()

#: Seconds until a worker that ended is replaced; doubled while workers end early, up to the limit.
_MIN_RESTART_DELAY_S = 0.1
_MAX_RESTART_DELAY_S = 30.0
#: A worker that runs for fewer seconds ends early.
_STABLE_AFTER_S = 10.0
#: Seconds after the drain timeout until a worker that has not ended is killed.
_KILL_GRACE_S = 5.0
#: Seconds for the answer of a worker that is asked what it is doing.
_ANSWER_TIMEOUT_S = 5.0
#: Seconds after requests were cut until a worker that has not ended is killed.
_ABORT_GRACE_S = 2.0


@define(eq=False)
class WorkerSlot:
    """One worker and its successors.

    :ivar number: from 1; the first process is 0.
    :ivar process: the process that runs now, or None.
    :ivar restart_call: the start of the next process, if it is scheduled.
    :ivar started_at: when the last process was started, in seconds of the reactor's clock.
    :ivar delay: seconds that were waited before the last start.
    """

    number: int
    process: WorkerProcess | None = field(default=None, init=False)
    restart_call: IDelayedCall | None = field(default=None, init=False)
    started_at: float = field(default=0.0, init=False)
    delay: float = field(default=0.0, init=False)


class WorkerSupervisor(Service):
    """Starts the workers when the reactor runs; its stop waits until all workers have ended."""

    def __init__(
        self,
        reactor: Any,
        loaded: LoadedConfiguration,
        listening: socket.socket,
        table: ProcessTable,
        environ: Mapping[str, str] | None = None,
        observer: ILogObserver | None = None,
        counts_receiver: ICountsReceiver | None = None,
        instance_id: str = "",
    ) -> None:
        """Prepare the workers.

        :param loaded: the configuration; ``http.workers`` includes the first process.
        :param listening: the socket to accept from; the caller closes it.
        :param table: the table of this process; the caller closes it.
        :param environ: the environment of this process; ``os.environ`` by default.
        :param observer: receives the log events of workers; by default all global observers.
        :param counts_receiver: receives the counts of workers; None if metrics are disabled.
        :param instance_id: identifies the registry in notifications of workers.
        """
        self._reactor = reactor
        self._loaded = loaded
        self._started_read_only = loaded.configuration.storage.maintenance.readonly.enabled
        self._listening = listening
        self._table = table
        self._counts_receiver = counts_receiver
        self._instance_id = instance_id
        self._environ = os.environ if environ is None else environ
        self._observer = globalLogPublisher if observer is None else observer
        self._http = loaded.configuration.http
        self._bundle: CertificateBundle | None = None
        self._question = 0
        self._inspection = 0
        self._slots = [WorkerSlot(number) for number in range(1, self._http.workers)]

    def startService(self) -> None:
        """Start the workers when the reactor runs."""
        super().startService()
        self._reactor.callWhenRunning(self._start_all)

    def set_certificate(self, bundle: CertificateBundle) -> None:
        """Send a certificate to all workers, also to those that are started later."""
        self._bundle = bundle
        for slot in self._slots:
            if slot.process is not None:
                slot.process.send(bundle)

    def set_configuration(self, loaded: LoadedConfiguration) -> None:
        """Send a configuration to all workers, also to those that are started later."""
        self._loaded = loaded
        for slot in self._slots:
            if slot.process is not None:
                slot.process.send(loaded)

    def are_alive(self) -> bool:
        """Ask all workers for a sign of life; return whether they have answered the last time.

        A worker that does not answer is asked again when it has answered, or is replaced.
        """
        running = [slot.process for slot in self._slots if slot.process is not None]
        silent = [
            process
            for process in running
            if process.question and self._table.last_answer(process.slot.number) != process.question
        ]
        for process in silent:
            log.warn("worker {pid} does not answer", pid=process.pid)
        if silent:
            return False
        self._question = self._question % MAX_NUMBER + 1
        for process in running:
            process.question = self._question
            process.send(Question(self._question))
        return True

    def inspect(self, profile_s: float | None) -> Deferred[dict[int, str | None]]:
        """Ask all workers what they are doing.

        :param profile_s: seconds of a profile; None for their stacks.
        :returns: what each answers, by the id of its process; None if it does not answer in time.
        """
        self._inspection += 1
        question = Inspection(self._inspection, profile_s)
        timeout_s = _ANSWER_TIMEOUT_S + (profile_s or 0)
        running = [slot.process for slot in self._slots if slot.process is not None]
        answers = [
            process.inspect(question).addTimeout(timeout_s, self._reactor, lambda *_: None)
            for process in running
        ]
        pids = [process.pid for process in running]
        gathered: Deferred[Any] = gatherResults(answers, consumeErrors=True)
        return gathered.addCallback(lambda texts: dict(zip(pids, texts, strict=True)))

    def abort_requests(self) -> None:
        """Make all workers cut the requests in progress, and end."""
        for slot in self._slots:
            if slot.process is not None:
                slot.process.send(ABORT_MESSAGE)
        self._reactor.callLater(_ABORT_GRACE_S, self._kill_remaining)

    def stopService(self) -> Deferred[None]:
        """Make all workers drain and end; fires when all have ended."""
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
        kill_call = self._reactor.callLater(
            self._http.draintimeout + _KILL_GRACE_S, self._kill_remaining
        )
        await DeferredList(ended)
        if kill_call.active():
            kill_call.cancel()

    def _kill_remaining(self) -> None:
        for slot in self._slots:
            if slot.process is not None:
                log.warn("worker {pid} did not end in time, killing it", pid=slot.process.pid)
                slot.process.kill()

    def _start_all(self) -> None:
        for slot in self._slots:
            self._start(slot)

    def _start(self, slot: WorkerSlot) -> None:
        slot.restart_call = None
        if not self.running:
            return
        process = WorkerProcess(self, slot, EventReceiver(self._observer, self._counts_receiver))
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
                    TABLE_FD: self._table.fileno(),
                },
            )
        except OSError as error:
            self._restart_later(slot, f"cannot start a worker: {error.strerror}")
            return
        finally:
            os.close(null)
        slot.process = process
        process.send(
            Handover(
                self._loaded,
                slot.number,
                bundle=self._bundle,
                started_read_only=self._started_read_only,
                instance_id=self._instance_id,
            )
        )

    def worker_ended(self, process: WorkerProcess, reason: Failure) -> None:
        """Replace a worker that has ended, unless the service is stopping."""
        slot = process.slot
        slot.process = None
        self._table.mark_gone(slot.number)
        if self._counts_receiver is not None:
            self._counts_receiver.process_ended(process.pid)
        if self.running:
            suffix = "" if reason.check(ProcessDone) else f": {reason.getErrorMessage()}"
            self._restart_later(slot, f"worker {process.pid} has ended{suffix}")

    def _restart_later(self, slot: WorkerSlot, reason: str) -> None:
        ended_early = self._reactor.seconds() - slot.started_at < _STABLE_AFTER_S
        slot.delay = (
            min(max(_MIN_RESTART_DELAY_S, slot.delay * 2), _MAX_RESTART_DELAY_S)
            if ended_early
            else _MIN_RESTART_DELAY_S
        )
        log.warn("{reason}; another one starts in {delay:.1f} s", reason=reason, delay=slot.delay)
        slot.restart_call = self._reactor.callLater(slot.delay, self._start, slot)


class WorkerProcess(ProcessProtocol):
    """The protocol of one worker process.

    :ivar pid: the id of the process; 0 before it was started.
    :ivar question: the number of the last question that was sent to it; 0 before.
    :ivar ended: fires when the process has ended.
    """

    transport: Any

    def __init__(
        self, supervisor: WorkerSupervisor, slot: WorkerSlot, events: EventReceiver
    ) -> None:
        self.slot = slot
        self.pid = 0
        self.question = 0
        self.ended: Deferred[None] = Deferred()
        self._supervisor = supervisor
        self._answers: dict[int, Deferred[str | None]] = {}
        self._events = events
        events.on_answer = self._answered

    def connectionMade(self) -> None:
        """Log the start of the process."""
        self.pid = self._events.pid = self.transport.pid
        log.info("worker {pid} started", pid=self.pid, **{PID_FIELD: os.getpid()})

    def send(self, message: object) -> None:
        """Send a message through the control pipe."""
        self.transport.writeToChild(CONTROL_FD, encode_message(message))

    def inspect(self, question: Inspection) -> Deferred[str | None]:
        """Ask what the process is doing; fires with None if it ends before it answers."""
        answer: Deferred[str | None] = Deferred()
        self._answers[question.number] = answer
        self.send(question)
        return answer.addBoth(self._forget_answer, question.number)

    def _forget_answer(self, result: str | None, number: int) -> str | None:
        self._answers.pop(number, None)
        return result

    def _answered(self, number: int, text: str | None) -> None:
        if number in self._answers:
            self._answers[number].callback(text)

    def kill(self) -> None:
        """Kill the process."""
        self.transport.signalProcess("KILL")

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Log the events that the process has written to its standard error."""
        del childFD
        self._events.data_received(data)

    def processEnded(self, reason: Failure) -> None:
        """Log the remaining output; the process has ended, and its pipes are closed."""
        self._events.finish()
        for number in list(self._answers):
            self._answered(number, None)
        self._supervisor.worker_ended(self, reason)
        self.ended.callback(None)
