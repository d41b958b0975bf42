"""A registry as a process of its own, in twistd or without: its logs, and how a start fails."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from contextlib import suppress
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, TextIO

from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger, globalLogBeginner

from twisted_registry.app.errors import StartError
from twisted_registry.app.listener import initial_environment
from twisted_registry.app.logs import make_observer
from twisted_registry.app.service import RegistryService
from twisted_registry.config.document import ConfigurationError
from twisted_registry.config.loading import load

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted.logger import ILogObserver

    from twisted_registry.config.loading import LoadedConfiguration

log = Logger()


class _TwistdService(RegistryService):
    """A registry whose start ends twistd with one line instead of a traceback.

    :ivar in_background: whether another twistd waits at the terminal to hear how the start went.
    """

    in_background = False

    def privilegedStartService(self) -> None:
        try:
            super().privilegedStartService()
        except StartError as error:
            if self.in_background:
                # That one would wait for ever if this one just ended.
                log.error("twisted-registry: {error}", error=error)
                raise StartError(str(error)) from None
            raise SystemExit(f"twisted-registry: {error}") from error

    def startService(self) -> None:
        # Before anybody can know that it runs.
        install_signal_handlers(self, self._reactor)
        super().startService()


def make_twistd_service(
    path: str | None, reactor: Any, options: Mapping[str, Any]
) -> RegistryService:
    """Make the service that twistd runs.

    :param path: the configuration that the command line names, or None.
    :param options: those of twistd itself.
    :raises SystemExit: with a line for each fault of the configuration.
    """
    try:
        loaded = load(path, os.environ)
    except ConfigurationError as error:
        lines = (f"twisted-registry: {line}" for line in error.lines())
        raise SystemExit("\n".join(lines)) from error
    observer = _make_observer(loaded) if _uses_own_observer(options) else None
    try:
        service = _TwistdService(
            loaded, reactor, initial_environment(), open_access_log(loaded), observer
        )
    except StartError as error:
        raise SystemExit(f"twisted-registry: {error}") from error
    service.in_background = not options.get("nodaemon")
    service.on_start_error = lambda _: _stop_with_failure(reactor)
    return service


def _stop_with_failure(reactor: Any) -> None:
    """Stop, and let the process end with status 1, which twistd itself has no way to do."""
    atexit.register(_exit_with_failure)
    reactor.stop()


def _exit_with_failure() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _uses_own_observer(options: Mapping[str, Any]) -> bool:
    # Whoever names a log file or a logger to twistd keeps it.  In the background twistd closes
    # standard error, and writes to twistd.log: ours would be lost.
    named = options.get("logfile") or options.get("logger") or options.get("syslog")
    return bool(options.get("nodaemon")) and not named


def serve_until_stopped(loaded: LoadedConfiguration, reactor: Any) -> int:
    """Serve until a signal comes, without twistd.

    :returns: the exit status: 1 if the registry could not start.
    """
    globalLogBeginner.beginLoggingTo([_make_observer(loaded)], redirectStandardIO=False)
    try:
        service = RegistryService(loaded, reactor, initial_environment(), open_access_log(loaded))
    except StartError as error:
        return _report_start_error(error)
    install_signal_handlers(service, reactor)
    return run_service(service, reactor)


def install_signal_handlers(service: RegistryService, reactor: Any) -> None:
    """Read again what may change when SIGHUP comes, as daemons do, instead of ending by it.

    Where it means that the terminal was closed, it ends the registry as ever. What ends it does
    nothing more once it ends.
    """
    at_terminal = _has_controlling_terminal()

    def on_sighup(*_: object) -> None:
        gone = at_terminal and not _has_controlling_terminal()
        reactor.callFromThread(end if gone else service.reload)

    def end() -> None:
        # A terminal that is closed says so to the first of its session, and to who is in front.
        with suppress(ReactorNotRunning):
            reactor.stop()

    def heard() -> None:
        log.info("already stopping; http.draintimeout says how long that may take")

    def stopping() -> None:
        # Twisted's own would stop the reactor once more, which it takes for a fault.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: reactor.callFromThread(heard))

    signal.signal(signal.SIGHUP, on_sighup)
    reactor.addSystemEventTrigger("before", "shutdown", stopping)


def _has_controlling_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def run_service(service: RegistryService, reactor: Any) -> int:
    """Run a service until the reactor stops.

    :returns: the exit status: 1 if the service could not start, which is said on standard error.
    """
    faults: list[StartError] = []

    def on_start_error(error: StartError) -> None:
        faults.append(error)
        reactor.stop()

    service.on_start_error = on_start_error
    try:
        service.privilegedStartService()
    except StartError as error:
        return _report_start_error(error)
    # Once signals are heeded: whoever reads that it listens may stop it at once.
    reactor.callWhenRunning(service.startService)
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()
    return 1 if faults else 0


def _report_start_error(error: StartError) -> int:
    sys.stderr.write(f"twisted-registry: {error}\n")
    return 1


def open_access_log(loaded: LoadedConfiguration) -> TextIO:
    """Where the access log goes: standard output, which several processes may share."""
    # twistd puts a log in the place of sys.stdout; access lines go to the real one.
    stream = sys.__stdout__ or sys.stdout
    if not isinstance(stream, TextIOWrapper):
        return stream
    if loaded.configuration.http.workers > 1:
        # Only here, as below: one process needs none of it.
        from twisted_registry.workers.logs import open_locked_output  # noqa: PLC0415

        return open_locked_output(stream.fileno())
    stream.reconfigure(line_buffering=True)
    return stream


def _make_observer(loaded: LoadedConfiguration) -> ILogObserver:
    logs = loaded.configuration.log
    observer = make_observer(sys.stderr, logs.level or "info", logs.formatter, logs.fields)
    if loaded.configuration.http.workers == 1:
        return observer
    from twisted_registry.workers.logs import ProcessIdObserver  # noqa: PLC0415

    return ProcessIdObserver(observer)
