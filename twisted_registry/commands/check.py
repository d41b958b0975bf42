"""``twisted-registry check``: validate a configuration and print it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from twisted_registry.commands.configured import add_config_argument, load_or_exit
from twisted_registry.commands.output import print_error
from twisted_registry.config.loading import effective_yaml

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_config_argument(parser)


def run(options: Namespace) -> int:
    """Print the effective configuration; warnings and notices go to standard error.

    :returns: 0. Faults end the process with status 1.
    """
    loaded = load_or_exit(options.file)
    print_error(f"configuration: {loaded.source}")
    for warning in loaded.warnings:
        print_error(f"warning: {warning}")
    for notice in loaded.notices:
        print_error(notice)
    sys.stdout.write(effective_yaml(loaded.configuration))
    return 0
