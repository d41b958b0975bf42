"""``twisted-registry serve``: run the registry until a signal stops it."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from twisted_registry.app.gc_freeze import freeze_imports
from twisted_registry.app.stopping import RELOAD_SIGNALS
from twisted_registry.commands.configured import add_config_argument, load_or_exit

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_config_argument(parser)


def run(options: Namespace) -> int:
    """Run the registry.

    :returns: the exit status: 1 if the registry could not start.
    """
    configuration = load_or_exit(options.file)
    # Until the process handles them, they would end it.
    signal.pthread_sigmask(signal.SIG_BLOCK, RELOAD_SIGNALS)
    with freeze_imports():
        # Imported late: it installs the reactor, which an invalid configuration does not need.
        from twisted_registry.app import standalone  # noqa: PLC0415
    return standalone.serve(configuration)
