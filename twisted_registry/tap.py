"""``twistd registry``, and the same without twistd: the only module with a reactor of its own."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, TextIO

from twisted.internet import reactor as default_reactor
from twisted.logger import globalLogBeginner
from twisted.python import usage

from twisted_registry import __version__
from twisted_registry.config.faults import ConfigurationError
from twisted_registry.config.loading import load
from twisted_registry.listener import StartError, start_environment
from twisted_registry.logs import make_observer
from twisted_registry.service import RegistryService

if TYPE_CHECKING:
    from twisted.logger import ILogObserver

    from twisted_registry.config.loading import Loaded


class Options(usage.Options):
    """Options of ``twistd registry``."""

    synopsis = "[--config FILE]"
    longdesc = (
        "A container-image registry. Without --config: REGISTRY_CONFIGURATION_PATH, "
        "/etc/distribution/config.yml, /etc/docker/registry/config.yml, or a built-in default. "
        "REGISTRY_* variables override single keys."
    )
    optParameters = [["config", "c", None, "The configuration file (YAML)."]]  # noqa: RUF012

    def opt_version(self) -> None:
        """Print the version and exit."""
        print(f"twisted-registry {__version__}")  # noqa: T201 - a command's answer
        sys.exit(0)


class _Service(RegistryService):
    """A registry whose start ends twistd with one line instead of a traceback."""

    def privilegedStartService(self) -> None:
        try:
            super().privilegedStartService()
        except StartError as error:
            raise SystemExit(f"twisted-registry: {error}") from error


def makeService(options: Options, reactor: Any = default_reactor) -> RegistryService:
    """Make the service that twistd runs.

    :raises SystemExit: with a line for each fault of the configuration.
    """
    try:
        loaded = load(options["config"], os.environ)
    except ConfigurationError as error:
        warnings = (f"warning: {warning}" for warning in error.warnings)
        lines = (f"twisted-registry: {line}" for line in (*str(error).splitlines(), *warnings))
        raise SystemExit("\n".join(lines)) from error
    parent: Any = options.parent or {}
    # Whoever names a log file or a logger to twistd keeps it.
    own = parent.get("logfile") or parent.get("logger") or parent.get("syslog")
    observer = None if own else _observer(loaded)
    return _Service(loaded, reactor, start_environment(), _access_log(), observer)


def run(loaded: Loaded, reactor: Any = default_reactor) -> int:
    """Serve until a signal comes, without twistd.

    :returns: the exit status: 1 if the registry could not start.
    """
    service = RegistryService(loaded, reactor, start_environment(), _access_log())
    globalLogBeginner.beginLoggingTo([_observer(loaded)], redirectStandardIO=False)
    try:
        service.privilegedStartService()
    except StartError as error:
        sys.stderr.write(f"twisted-registry: {error}\n")
        return 1
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()
    return 0


def _access_log() -> TextIO:
    # twistd puts a log in the place of sys.stdout; access lines go to the real one.
    stream = sys.__stdout__ or sys.stdout
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(line_buffering=True)
    return stream


def _observer(loaded: Loaded) -> ILogObserver:
    logs = loaded.configuration.log
    return make_observer(sys.stderr, logs.level or "info", logs.formatter, logs.fields)
