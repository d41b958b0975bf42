"""What a command takes and says: its configuration, and what is wrong with it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from twisted_registry.config.document import ConfigurationError
from twisted_registry.config.loading import load

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Mapping

    from twisted_registry.config.loading import LoadedConfiguration

CONFIG_EPILOG = (
    "without FILE: REGISTRY_CONFIGURATION_PATH, /etc/distribution/config.yml, "
    "/etc/docker/registry/config.yml, or a built-in default"
)


def print_error(line: str) -> None:
    """Write one line to standard error."""
    sys.stderr.write(f"twisted-registry: {line}\n")


def add_config_argument(parser: ArgumentParser) -> None:
    """Let a command take the path of a configuration."""
    parser.epilog = CONFIG_EPILOG
    parser.add_argument("file", nargs="?", metavar="FILE", help="the configuration (YAML)")


def load_or_exit(path: str | None, environ: Mapping[str, str] = os.environ) -> LoadedConfiguration:
    """The configuration that a command goes by.

    :param path: its file, or None for the usual places.
    :param environ: where overrides may be.
    :raises SystemExit: with status 1, after a line for each fault.
    """
    try:
        return load(path, environ)
    except ConfigurationError as error:
        for line in error.lines():
            print_error(line)
        raise SystemExit(1) from error
