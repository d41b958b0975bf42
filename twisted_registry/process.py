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

from twisted_registry.config.faults import ConfigurationError
from twisted_registry.config.loading import load
from twisted_registry.listener import StartError, start_environment
from twisted_registry.logs import make_observer
from twisted_registry.service import RegistryService

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted.logger import ILogObserver

    from twisted_registry.config.loading import Loaded

log = Logger()


class _Service(RegistryService):
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
        heed_signals(self, self._reactor)
        super().startService()


def in_twistd(path: str | None, reactor: Any, options: Mapping[str, Any]) -> RegistryService:
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
    observer = _observer(loaded) if _log_is_ours(options) else None
    try:
        service = _Service(loaded, reactor, start_environment(), access_log(loaded), observer)
    except StartError as error:
        raise SystemExit(f"twisted-registry: {error}") from error
    service.in_background = not options.get("nodaemon")
    service.give_up = lambda _: _fail(reactor)
    return service


def _fail(reactor: Any) -> None:
    """Stop, and let the process end with status 1, which twistd itself has no way to do."""
    atexit.register(_leave)
    reactor.stop()


def _leave() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _log_is_ours(options: Mapping[str, Any]) -> bool:
    # Whoever names a log file or a logger to twistd keeps it.  In the background twistd closes
    # standard error, and writes to twistd.log: ours would be lost.
    named = options.get("logfile") or options.get("logger") or options.get("syslog")
    return bool(options.get("nodaemon")) and not named


def serve(loaded: Loaded, reactor: Any) -> int:
    """Serve until a signal comes, without twistd.

    :returns: the exit status: 1 if the registry could not start.
    """
    globalLogBeginner.beginLoggingTo([_observer(loaded)], redirectStandardIO=False)
    try:
        service = RegistryService(loaded, reactor, start_environment(), access_log(loaded))
    except StartError as error:
        return _refused(error)
    heed_signals(service, reactor)
    return run(service, reactor)


def heed_signals(service: RegistryService, reactor: Any) -> None:
    """Read again what may change when SIGHUP comes, as daemons do, instead of ending by it.

    Where it means that the terminal was closed, it ends the registry as ever. What ends it does
    nothing more once it ends.
    """
    at_terminal = _at_terminal()

    def hung_up(*_: object) -> None:
        gone = at_terminal and not _at_terminal()
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

    signal.signal(signal.SIGHUP, hung_up)
    reactor.addSystemEventTrigger("before", "shutdown", stopping)


def _at_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def run(service: RegistryService, reactor: Any) -> int:
    """Run a service until the reactor stops.

    :returns: the exit status: 1 if the service could not start, which is said on standard error.
    """
    faults: list[StartError] = []

    def give_up(error: StartError) -> None:
        faults.append(error)
        reactor.stop()

    service.give_up = give_up
    try:
        service.privilegedStartService()
    except StartError as error:
        return _refused(error)
    # Once signals are heeded: whoever reads that it listens may stop it at once.
    reactor.callWhenRunning(service.startService)
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()
    return 1 if faults else 0


def _refused(error: StartError) -> int:
    sys.stderr.write(f"twisted-registry: {error}\n")
    return 1


def access_log(loaded: Loaded) -> TextIO:
    """Where the access log goes: standard output, which several processes may share."""
    # twistd puts a log in the place of sys.stdout; access lines go to the real one.
    stream = sys.__stdout__ or sys.stdout
    if not isinstance(stream, TextIOWrapper):
        return stream
    if loaded.configuration.http.workers > 1:
        # Only here, as below: one process needs none of it.
        from twisted_registry.workers.lines import shared_lines  # noqa: PLC0415

        return shared_lines(stream.fileno())
    stream.reconfigure(line_buffering=True)
    return stream


def _observer(loaded: Loaded) -> ILogObserver:
    logs = loaded.configuration.log
    observer = make_observer(sys.stderr, logs.level or "info", logs.formatter, logs.fields)
    if loaded.configuration.http.workers == 1:
        return observer
    from twisted_registry.workers.reports import Signed  # noqa: PLC0415

    return Signed(observer)
