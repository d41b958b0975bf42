"""``twistd registry``, and the same without twistd: the only module with a reactor of its own.

All else is imported once it is to be run, so that ``twistd --help`` is quick, and inside
:func:`permanent`, so that the start is.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet import reactor as default_reactor
from twisted.python import usage

from twisted_registry import __version__
from twisted_registry.heap import permanent

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from twisted_registry.config.loading import Loaded
    from twisted_registry.service import RegistryService

T = TypeVar("T")


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


def makeService(options: Options, reactor: Any = default_reactor) -> RegistryService:
    """Make the service that twistd runs.

    :raises SystemExit: with a line for each fault of the configuration.
    """
    with permanent():
        from twisted_registry.process import in_twistd  # noqa: PLC0415 - see above
    return in_twistd(options["config"], reactor, options.parent or {})


def run(loaded: Loaded, reactor: Any = default_reactor) -> int:
    """Serve until a signal comes, without twistd.

    :returns: the exit status: 1 if the registry could not start.
    """
    with permanent():
        from twisted_registry.process import serve  # noqa: PLC0415 - see above
    return serve(loaded, reactor)


def once(work: Callable[[Any], Coroutine[Any, Any, T]], reactor: Any = default_reactor) -> T | None:
    """Run the reactor for one piece of work.

    :param work: is given the reactor.
    :returns: what it returned; see :func:`twisted_registry.commands.once.once`.
    """
    from twisted_registry.commands import once  # noqa: PLC0415 - see above

    return once.once(lambda: work(reactor), reactor)


def work(reactor: Any = default_reactor) -> int:
    """Serve as one of several processes: what the first of them starts.

    :returns: the exit status.
    """
    with permanent():
        from twisted_registry.worker import work_until_stopped  # noqa: PLC0415 - see above
    return work_until_stopped(reactor)
