"""``twistd registry``. :mod:`twisted_registry.app.standalone` is the same without twistd.

All else is imported once it is to be run, so that ``twistd registry --help`` is quick, and inside
:func:`freeze_imports`, so that the start is.
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
    # twistd has not imported it before us: it is half of the start.
    with freeze_imports():
        from twisted.internet import reactor  # noqa: PLC0415 - see above
    return reactor


default_reactor: Any = _reactor()


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
    with freeze_imports():
        from twisted_registry.app.process import make_twistd_service  # noqa: PLC0415 - see above
    return make_twistd_service(options["config"], reactor, options.parent or {})
