"""A registry as a process, under twistd or without: its logs, its signals, and a failed start."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from contextlib import suppress
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, TextIO

from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.threads import deferToThreadPool
from twisted.logger import ILogObserver, Logger, globalLogBeginner, globalLogPublisher

from twisted_registry.app.allocator import limit_arenas
from twisted_registry.app.listener import initial_environment, raise_descriptor_limit
from twisted_registry.app.logs import finish_logs, make_hooks_log, make_process_log
from twisted_registry.app.service import RegistryService
from twisted_registry.app.stopping import CLOSE_S, RELOAD_SIGNALS, STOP_SIGNALS, ProcessStop
from twisted_registry.config.document import ConfigurationError
from twisted_registry.config.loading import load
from twisted_registry.frame.errors import StartError
from twisted_registry.workers.logs import open_locked_output

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType

    from twisted.application.service import IServiceCollection

    from twisted_registry.config.loading import LoadedConfiguration

log = Logger()


def serve_until_stopped(loaded: LoadedConfiguration, reactor: Any) -> int:
    """Serve without twistd until a signal stops the reactor.

    :returns: the exit status: 1 if the registry could not start, 128 and the number of the signal
        if a second one has cut requests.
    """
    raise_descriptor_limit()
    limit_arenas()
    process_log = make_process_log(loaded.configuration)
    globalLogBeginner.beginLoggingTo([process_log.observer], redirectStandardIO=False)
    try:
        service = RegistryService(
            loaded,
            reactor,
            initial_environment(),
            open_access_log(loaded),
            process_log=process_log,
        )
    except StartError as error:
        return _print_start_error(loaded, error)
    _notify_systemd(service, loaded, reactor)
    stop = install_signal_handlers(service, loaded, reactor)
    status = run_service(service, loaded, reactor)
    # Python restores the default handlers when it ends: a late signal would change the exit status.
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    return status or stop.exit_status


def run_service(service: RegistryService, loaded: LoadedConfiguration, reactor: Any) -> int:
    """Run a service until the reactor stops.

    :param loaded: its configuration.
    :returns: the exit status: 1 if the service could not start, after a line on standard error.
    """
    errors: list[StartError] = []

    def on_start_error(error: StartError) -> None:
        errors.append(error)
        reactor.stop()

    service.on_start_error = on_start_error
    try:
        service.privilegedStartService()
    except StartError as error:
        return _print_start_error(loaded, error)
    # Started only when signals are handled: a reader of "listening on" may stop it at once.
    reactor.callWhenRunning(service.startService)
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()
    for each in errors:
        # Here, so that no line about the stop follows.
        _log_start_error(log, loaded.origin, each)
    return 1 if errors else 0


def _print_start_error(loaded: LoadedConfiguration, error: StartError) -> int:
    sys.stderr.write(f"twisted-registry: {loaded.origin}: {error}\n")
    return 1


def make_twistd_service(
    path: str | None, reactor: Any, options: Mapping[str, Any]
) -> RegistryService:
    """Make the service that twistd runs.

    :param path: the configuration file of the command line, or None.
    :param options: the options of twistd itself.
    :raises SystemExit: with one line for each error of the configuration.
    """
    try:
        loaded = load(path, os.environ)
    except ConfigurationError as error:
        lines = (f"twisted-registry: {line}" for line in error.lines())
        raise SystemExit("\n".join(lines)) from error
    raise_descriptor_limit()
    limit_arenas()
    observer = None
    if _twistd_logs(options):
        process_log = make_hooks_log(loaded.configuration)
        globalLogPublisher.addObserver(process_log.observer)
    else:
        process_log = make_process_log(loaded.configuration)
        observer = process_log.observer
    try:
        service = _TwistdService(
            loaded,
            reactor,
            initial_environment(),
            open_access_log(loaded),
            process_log=process_log,
        )
    except StartError as error:
        raise SystemExit(f"twisted-registry: {loaded.origin}: {error}") from error
    _notify_systemd(service, loaded, reactor)
    service.is_daemon = not options.get("nodaemon")
    service.loaded = loaded
    service.observer = observer
    service.on_start_error = lambda error: _stop_with_failure(
        reactor, loaded.origin, error, observer
    )
    return service


class _TwistdService(RegistryService):
    """A registry whose failed start ends twistd with one line instead of a traceback.

    :ivar is_daemon: whether twistd runs in the background, and its parent process waits at the
        terminal for the result of the start.
    :ivar loaded: the configuration.
    :ivar observer: writes the log in place of twistd; None if twistd does.
    """

    is_daemon = False
    loaded: LoadedConfiguration
    observer: ILogObserver | None = None

    def setServiceParent(self, parent: IServiceCollection) -> None:
        if self.observer is not None and hasattr(parent, "setComponent"):
            parent.setComponent(ILogObserver, self.observer)
        super().setServiceParent(parent)

    def privilegedStartService(self) -> None:
        try:
            super().privilegedStartService()
        except StartError as error:
            if self.is_daemon:
                # SystemExit would end this process without a word to its parent, which would wait
                # forever.
                log.error(
                    "twisted-registry: {origin}: {error}",
                    origin=self.loaded.origin,
                    error=str(error),
                )
                # twistd shows its beginning only, so the key comes first.
                raise StartError(str(error)) from None
            raise SystemExit(f"twisted-registry: {self.loaded.origin}: {error}") from error

    def startService(self) -> None:
        # Before the log says that the registry listens.
        install_signal_handlers(self, self.loaded, self._reactor)
        super().startService()


def _twistd_logs(options: Mapping[str, Any]) -> bool:
    """Whether twistd's own log is used: in the background, or if its options name a log."""
    # In the background twistd closes standard error, so lines written to it would be lost.
    named = options.get("logfile") or options.get("logger") or options.get("syslog")
    return bool(named) or not options.get("nodaemon")


def _stop_with_failure(
    reactor: Any, origin: str, error: StartError, observer: ILogObserver | None
) -> None:
    """Stop the reactor, and make the process end with status 1; twistd has no way to do that.

    :param origin: the file of the configuration.
    :param error: the cause, which becomes the last line of the log.
    :param observer: writes the log; None if twistd does, which adds two lines after it.
    """
    if observer is None:
        reactor.addSystemEventTrigger("after", "shutdown", _log_start_error, log, origin, error)
    atexit.register(_exit_with_failure, origin, error, observer)
    reactor.stop()


def _log_start_error(logger: Logger, origin: str, error: StartError) -> None:
    logger.critical("{origin}: {error}", origin=origin, error=str(error))


def _exit_with_failure(origin: str, error: StartError, observer: ILogObserver | None) -> None:
    if observer is not None:
        # twistd has removed it from the global log.
        _log_start_error(Logger(observer=observer), origin, error)
    finish_logs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _notify_systemd(service: RegistryService, loaded: LoadedConfiguration, reactor: Any) -> None:
    """Report the state of a service to systemd, if it has started this process."""
    if os.environ.get("NOTIFY_SOCKET", "").startswith(("/", "@")):
        from twisted_registry.app.systemd import SystemdNotifier  # noqa: PLC0415 - for it only

        SystemdNotifier(
            os.environ,
            reactor,
            loaded.configuration.http.draintimeout + CLOSE_S,
            service.describe,
            service.are_workers_alive,
        ).setServiceParent(service)


def install_signal_handlers(
    service: RegistryService, loaded: LoadedConfiguration, reactor: Any
) -> ProcessStop:
    """Reload at SIGHUP, reopen log files at SIGUSR1, and handle signals during the stop.

    A SIGHUP that reports a closed terminal stops the registry, as it stops other commands.
    """
    had_terminal = _has_controlling_terminal()
    # Under twistd with a log file, it rotates that.
    rotate_twistd_log = signal.getsignal(signal.SIGUSR1)

    def on_sigusr1(number: int, frame: FrameType | None) -> None:
        reactor.callFromThread(service.reopen_logs)
        if callable(rotate_twistd_log):
            rotate_twistd_log(number, frame)

    def on_sighup(*_: object) -> None:
        is_terminal_closed = had_terminal and not _has_controlling_terminal()
        reactor.callFromThread(stop if is_terminal_closed else reload)

    def reload() -> None:
        reloading = Deferred.fromCoroutine(_reload(service, loaded, reactor))
        reloading.addErrback(lambda reason: log.failure("reload has failed", reason))

    def stop() -> None:
        # A closed terminal can send the signal twice: to the session leader, and to the foreground.
        with suppress(ReactorNotRunning):
            reactor.stop()

    signal.signal(signal.SIGHUP, on_sighup)
    signal.signal(signal.SIGUSR1, on_sigusr1)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, RELOAD_SIGNALS)
    return ProcessStop(reactor, loaded.configuration.http.draintimeout, service.abort_requests)


async def _reload(service: RegistryService, loaded: LoadedConfiguration, reactor: Any) -> None:
    """Read the configuration file again, and apply it if it is valid."""
    notifier = service.namedServices.get("systemd")
    if notifier is not None:
        notifier.reload_begins()
    fresh, problem = None, ""
    if loaded.path is not None:
        pool = reactor.getThreadPool()
        try:
            fresh = await deferToThreadPool(reactor, pool, load, loaded.path, os.environ)
        except ConfigurationError as error:
            problem = str(error.faults[0])
            for line in error.lines():
                log.error("reload has failed, what was in use stays: {problem}", problem=line)
    if not problem:
        problem = await service.reload(fresh)
    if notifier is not None:
        notifier.reload_ended(problem)


def _has_controlling_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def open_access_log(loaded: LoadedConfiguration) -> TextIO:
    """Return the stream of the access log: standard output, which several processes may share."""
    # twistd replaces sys.stdout by its log.
    stream = sys.__stdout__ or sys.stdout
    if not isinstance(stream, TextIOWrapper):
        return stream
    if loaded.configuration.http.workers > 1:
        return open_locked_output(stream.fileno())
    stream.reconfigure(line_buffering=True)
    return stream
