"""The ``twisted-registry`` command, also installed as ``registry``.

``serve`` takes what ``registry serve`` of Distribution takes, so that scripts and units go on.
The one command that is asked for is imported, and no other: a version is printed at once.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from twisted_registry import __version__
from twisted_registry.app.gc_freeze import freeze_imports

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: The commands: a module of that name each (with ``_`` for ``-``), in ``commands``.
COMMANDS: Mapping[str, str] = {
    "serve": "serve the registry",
    "check": "validate a configuration and print what holds, secrets masked",
    "garbage-collect": "remove what nothing refers to, also beside a registry that serves",
    "fsck": "look for damage in the store, and repair what can be",
    "trash": "list what was removed, bring it back, or remove it for good",
    "delete": "delete a whole repository, also beside a registry that serves",
    "retention": "remove the tags that no rule of storage.maintenance.retention keeps",
    "maintenance": "print how the tasks of a store are, or run one",
    "user": "add, change, remove or list the users of auth.htpasswd",
    "token": "make, list and revoke tokens for robots",
    "copy-store": "copy everything of one store into another, also beside registries that serve",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    :param arguments: those of the process if None.
    :returns: the exit status: 0, 1 for what is wrong with configuration or start, 2 for usage;
        others as the command says.
    """
    given = _normalize_flags(sys.argv[1:] if arguments is None else arguments)
    # Whatever comes first and is no flag is the command, or a mistake that the parser tells of.
    chosen = next((word for word in given if not word.startswith("-")), "")
    with freeze_imports():
        command = _command(chosen) if chosen in COMMANDS else None
    # Who begins with a command does not ask which there are, and a parser for each takes 8 ms.
    is_first = command is not None and given[0] == chosen
    parser = _parser(chosen, command, [chosen] if is_first else [*COMMANDS, "help"])
    options = _parse(parser, given)
    if command is None or options.command != chosen:
        parser.print_help()
        return 0 if options.command else 2
    status: int = command.run(options)
    return status


def _command(name: str) -> Any:
    return import_module(f"twisted_registry.commands.{name.replace('-', '_')}")


def _parse(parser: argparse.ArgumentParser, given: Sequence[str]) -> argparse.Namespace:
    """Parse, and take a configuration that comes last, behind flags with a value, for what it is.

    (argparse of Python 3.11 has settled by then that there is none.)
    """
    options, rest = parser.parse_known_args(given)
    if len(rest) == 1 and not rest[0].startswith("-") and getattr(options, "file", "") is None:
        options.file = rest.pop()
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return options


def _normalize_flags(arguments: Sequence[str]) -> list[str]:
    """Take flags as Go does, too: ``--dry-run=true`` is ``--dry-run``, ``=false`` is none."""
    return [
        argument.removesuffix("=true") if argument.startswith("-") else argument
        for argument in arguments
        if not (argument.startswith("-") and argument.endswith("=false"))
    ]


def _parser(chosen: str, command: Any, names: Iterable[str]) -> argparse.ArgumentParser:
    """The parser.

    :param chosen: the command that takes arguments of its own.
    :param command: its module.
    :param names: the commands that it knows of.
    """
    parser = argparse.ArgumentParser(
        prog="twisted-registry",
        description="A container-image registry (OCI and Docker distribution protocol).",
    )
    version = f"twisted-registry {__version__}"
    parser.add_argument("-v", "--version", action="version", version=version)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name in names:
        text = COMMANDS.get(name, "print this text")
        below = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if command is not None and name == chosen:
            command.arguments(below)
    return parser
