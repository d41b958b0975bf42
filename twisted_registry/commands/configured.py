"""Arguments that the commands share, and the configuration that a command loads."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from twisted_registry.commands.output import print_error
from twisted_registry.config.document import ConfigurationError
from twisted_registry.config.loading import load
from twisted_registry.frame.errors import CommandFailed

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Mapping

    from twisted_registry.config.loading import LoadedConfiguration

#: The end of the help of commands with the argument FILE.
CONFIG_EPILOG = (
    "Without FILE: REGISTRY_CONFIGURATION_PATH, /etc/twisted-registry/config.yml, "
    "/etc/distribution/config.yml, /etc/docker/registry/config.yml, or a built-in default."
)


def add_actions(parser: ArgumentParser, texts: Mapping[str, str]) -> Mapping[str, ArgumentParser]:
    """Add the argument ACTION, stored as ``action``.

    :param texts: what each action does, by its name.
    :returns: the parsers of the actions, by their names.
    """
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    return {
        name: actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        for name, text in texts.items()
    }


def add_config_argument(parser: ArgumentParser) -> None:
    """Add the optional argument FILE, stored as ``file``, and ``--config FILE`` for the same."""
    parser.epilog = CONFIG_EPILOG
    parser.add_argument("-c", "--config", metavar="FILE", help="the same as FILE")
    parser.add_argument("file", nargs="?", metavar="FILE", help="the configuration file (YAML)")


def add_json_argument(parser: ArgumentParser) -> None:
    """Add the flag ``--json``, stored as ``json``."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def add_listing_arguments(parser: ArgumentParser) -> None:
    """Add ``--json`` and ``--json-lines``, as :meth:`ListPrinter.of` reads them."""
    add_json_argument(parser)
    parser.add_argument(
        "--json-lines", action="store_true", help="print a JSON object on a line for each item"
    )


def load_or_exit(path: str | None, environ: Mapping[str, str] = os.environ) -> LoadedConfiguration:
    """Load the configuration of a command.

    :param path: the file, or None for the default paths.
    :param environ: the environment, for overrides.
    :raises SystemExit: with status 1, after printing the faults.
    """
    try:
        return load(path, environ)
    except ConfigurationError as error:
        for line in error.lines():
            print_error(line)
        raise SystemExit(1) from error


def load_store_or_exit(
    path: str | None, environ: Mapping[str, str] = os.environ
) -> LoadedConfiguration:
    """Load the configuration of a command that opens the store.

    The arguments are those of :func:`load_or_exit`.

    :raises CommandFailed: if the store is in the memory of another process.
    """
    loaded = load_or_exit(path, environ)
    if "inmemory" in loaded.configuration.storage.drivers:
        raise CommandFailed(
            f"{loaded.origin}: storage.inmemory: a command cannot open the store of another process"
        )
    return loaded
