"""The ``twisted-registry`` command, also installed as ``registry``.

``serve`` accepts the arguments of Distribution's ``registry serve``, and a configuration without a
command is served, as by the entry point of Distribution's image, so that existing scripts, service
files and containers keep working. Only the module of the command that runs is imported.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from twisted_registry import __version__
from twisted_registry.app.errors import CommandFailed
from twisted_registry.app.gc_freeze import freeze_imports

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: The commands. Each is a module of that name in ``commands``, with ``_`` for ``-``.
COMMANDS: Mapping[str, str] = {
    "serve": "run the registry",
    "check": "validate a configuration, and print it with defaults and masked secrets",
    "garbage-collect": "delete unreferenced content, even while a registry serves",
    "fsck": "check the store for damage, and repair it where possible",
    "trash": "list what was removed, restore it, or delete it for good",
    "delete": "delete a repository, even while a registry serves",
    "retention": "delete the tags that no rule of storage.maintenance.retention keeps",
    "maintenance": "print the state of the periodic tasks, or run one",
    "user": "add, change, remove or list the users of auth.htpasswd",
    "token": "create, list and revoke tokens for robots, rotate keys",
    "copy-store": "copy one store into another, even while registries serve",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    :param arguments: the command line; None for that of the process.
    :returns: the exit status: 0, 1 for an error of the configuration or the start, 2 for wrong
        usage; others are documented by the commands.
    """
    words = _normalize_flags(sys.argv[1:] if arguments is None else arguments)
    if words and words[0].endswith((".yml", ".yaml")):
        words.insert(0, "serve")
    # The first word that is not a flag is the command. If it is none, the parser reports it.
    name = next((word for word in words if not word.startswith("-")), "")
    command = _import_command(name) if name in COMMANDS else None
    parser = _make_parser(name, command)
    options = _parse(parser, words)
    if command is None:
        parser.print_help()
        return 0 if options.command else 2
    try:
        status: int = command.run(options)
    except CommandFailed as error:
        sys.stderr.write(f"twisted-registry: {error}\n")
        return 1
    return status


def _normalize_flags(words: Sequence[str]) -> list[str]:
    """Convert Go's boolean flags: ``--dry-run=true`` to ``--dry-run``, and remove ``=false``."""
    return [
        word.removesuffix("=true") if word.startswith("-") else word
        for word in words
        if not (word.startswith("-") and word.endswith("=false"))
    ]


def _import_command(name: str) -> Any:
    with freeze_imports():
        return import_module(f"twisted_registry.commands.{name.replace('-', '_')}")


def _make_parser(name: str, command: Any) -> argparse.ArgumentParser:
    """Make the parser of all commands, with the arguments of one.

    :param name: the command that runs.
    :param command: its module, or None.
    """
    parser = argparse.ArgumentParser(
        prog="twisted-registry",
        description="A container image registry (OCI distribution protocol).",
    )
    version = f"twisted-registry {__version__}"
    parser.add_argument("-v", "--version", action="version", version=version)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for each, text in {**COMMANDS, "help": "print this help"}.items():
        below = commands.add_parser(each, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if command is not None and each == name:
            command.add_arguments(below)
    return parser


def _parse(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    """Parse the command line, also with the optional FILE after flags that have a value.

    The argparse of Python 3.11 has then already decided that FILE is missing.
    """
    options, rest = parser.parse_known_args(words)
    if len(rest) == 1 and not rest[0].startswith("-") and getattr(options, "file", "") is None:
        options.file = rest.pop()
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return options
