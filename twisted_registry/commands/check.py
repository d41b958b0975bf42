"""``twisted-registry check``: validate a configuration, and print what holds."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from twisted_registry.commands.configured import add_file, complain, loaded
from twisted_registry.config.effective import effective_yaml

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def arguments(parser: ArgumentParser) -> None:
    """Add what it takes."""
    add_file(parser)


def run(options: Namespace) -> int:
    """Print the whole configuration as it holds, secrets masked; what is odd on standard error.

    :returns: 0; faults end the process with 1.
    """
    found = loaded(options.file)
    complain(f"configuration: {found.source}")
    for warning in found.warnings:
        complain(f"warning: {warning}")
    for notice in found.notices:
        complain(notice)
    sys.stdout.write(effective_yaml(found.configuration))
    return 0
