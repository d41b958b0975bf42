"""A worker: one of several processes that serve, controlled by the first one."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger, globalLogBeginner

from twisted_registry.app.allocator import limit_arenas
from twisted_registry.app.logs import make_worker_log
from twisted_registry.app.process import open_access_log, run_service
from twisted_registry.app.service import RegistryService
from twisted_registry.app.stopping import limit_stop
from twisted_registry.config.loading import LoadedConfiguration
from twisted_registry.tls.interfaces import CertificateBundle
from twisted_registry.workers.handover import (
    CONTROL_FD,
    ControlPipe,
    Handover,
    Inspection,
    Question,
)
from twisted_registry.workers.logs import write_answer

log = Logger()


def run_worker(reactor: Any, control: int = CONTROL_FD) -> int:
    """Serve until the first process sends the stop message or ends, or until SIGTERM.

    :param control: the descriptor of the pipe from the first process.
    :returns: the exit status: 1 if the registry could not start.
    """
    handover = Handover.read(control)
    if handover is None:
        return 0
    limit_arenas()
    loaded = handover.loaded
    process_log = make_worker_log(loaded.configuration)
    globalLogBeginner.beginLoggingTo([process_log.observer], redirectStandardIO=False)
    # The socket that systemd passes is for the first process.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("LISTEN")}
    service = RegistryService(
        loaded,
        reactor,
        environ,
        open_access_log(loaded),
        handover=handover,
        process_log=process_log,
    )

    def stop() -> None:
        # The first process and a signal may both ask for it.
        with suppress(ReactorNotRunning):
            reactor.stop()

    def abort_requests() -> None:
        service.abort_requests()
        stop()

    def on_sigterm(*_: object) -> None:
        reactor.callFromThread(stop)

    def on_message(message: object) -> None:
        if isinstance(message, Question):
            service.answer(message.number)
        elif isinstance(message, CertificateBundle):
            service.set_certificate(message)
        elif isinstance(message, LoadedConfiguration):
            service.reload(message)
        elif isinstance(message, Inspection):
            answering = Deferred.fromCoroutine(_answer(service, message))
            answering.addErrback(lambda reason: log.failure("no answer to {q}", reason, q=message))

    ControlPipe(reactor, control, stop, abort_requests, on_message)
    # Replaces the reactor's own handler, for which a second signal is an error.
    reactor.callWhenRunning(signal.signal, signal.SIGTERM, on_sigterm)
    reactor.addSystemEventTrigger(
        "before", "shutdown", limit_stop, loaded.configuration.http.draintimeout
    )
    return run_service(service, loaded, reactor)


async def _answer(service: RegistryService, question: Inspection) -> None:
    text = await service.inspect(question.profile_s)
    write_answer(sys.stderr, question.number, text)
