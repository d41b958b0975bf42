"""``twisted-registry serve``: serve until a signal comes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_registry.app.gc_freeze import freeze_imports
from twisted_registry.commands.configured import add_config_argument, load_or_exit

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def arguments(parser: ArgumentParser) -> None:
    """Add what it takes."""
    add_config_argument(parser)


def run(options: Namespace) -> int:
    """Serve.

    :returns: the exit status: 1 if the registry could not start.
    """
    configuration = load_or_exit(options.file)
    with freeze_imports():
        # A faulty configuration needs no reactor, which importing it installs.
        from twisted_registry.app import standalone  # noqa: PLC0415
    return standalone.serve(configuration)
