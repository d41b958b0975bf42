"""``twisted-registry check``: validate a configuration, and print what holds."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from twisted_registry.commands.configured import add_config_argument, load_or_exit, print_error
from twisted_registry.config.loading import effective_yaml

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def arguments(parser: ArgumentParser) -> None:
    """Add what it takes."""
    add_config_argument(parser)


def run(options: Namespace) -> int:
    """Print the whole configuration as it holds, secrets masked; what is odd on standard error.

    :returns: 0; faults end the process with 1.
    """
    found = load_or_exit(options.file)
    print_error(f"configuration: {found.source}")
    for warning in found.warnings:
        print_error(f"warning: {warning}")
    for notice in found.notices:
        print_error(notice)
    sys.stdout.write(effective_yaml(found.configuration))
    return 0
