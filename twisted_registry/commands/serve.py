"""``twisted-registry serve``: serve until a signal comes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_registry.commands.configured import add_file, loaded
from twisted_registry.heap import permanent

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def arguments(parser: ArgumentParser) -> None:
    """Add what it takes."""
    add_file(parser)


def run(options: Namespace) -> int:
    """Serve.

    :returns: the exit status: 1 if the registry could not start.
    """
    configuration = loaded(options.file)
    with permanent():
        # A faulty configuration needs no reactor, which importing it installs.
        from twisted_registry import alone  # noqa: PLC0415
    return alone.run(configuration)
