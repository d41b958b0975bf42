"""The command ``twistd registry``; :mod:`twisted_registry.app.standalone` serves without twistd.

The registry is imported when twistd makes the service, so that ``twistd registry --help`` is fast,
and inside :func:`~twisted_registry.app.gc_freeze.freeze_imports`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from twisted.python import usage

from twisted_registry import __version__
from twisted_registry.app.gc_freeze import freeze_imports

if TYPE_CHECKING:
    from twisted_registry.app.service import RegistryService


def _reactor() -> Any:
    # twistd has not imported it yet, and the import takes half of the start.
    with freeze_imports():
        from twisted.internet import reactor  # noqa: PLC0415 - inside freeze_imports
    return reactor


default_reactor: Any = _reactor()


class Options(usage.Options):
    """Options of ``twistd registry``."""

    synopsis = "[--config FILE | FILE]"
    longdesc = (
        "A container-image registry. Without FILE: REGISTRY_CONFIGURATION_PATH, "
        "/etc/twisted-registry/config.yml, /etc/distribution/config.yml, "
        "/etc/docker/registry/config.yml, or a built-in default. "
        "REGISTRY_* variables override single keys."
    )
    optParameters = [["config", "c", None, "The configuration file (YAML)."]]  # noqa: RUF012

    def parseArgs(self, file: str | None = None) -> None:
        """Take the configuration file as an argument, as ``twisted-registry serve`` does."""
        if file is None:
            return
        if self["config"] is not None:
            raise usage.UsageError(f"two configuration files: {file} and --config {self['config']}")
        self["config"] = file

    def opt_version(self) -> None:
        """Print the version and exit."""
        print(f"twisted-registry {__version__}")  # noqa: T201 - the output of a command
        sys.exit(0)


def makeService(options: Options, reactor: Any = default_reactor) -> RegistryService:
    """Make the service that twistd runs.

    :raises SystemExit: with one line for each error of the configuration.
    """
    with freeze_imports():
        from twisted_registry.app.process import make_twistd_service  # noqa: PLC0415
    return make_twistd_service(options["config"], reactor, options.parent or {})
