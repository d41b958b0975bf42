"""The ``twisted-registry`` command, also installed as ``registry``.

``serve`` accepts the arguments of Distribution's ``registry serve``, and a configuration without a
command is served, as by the entry point of Distribution's image, so that existing scripts, service
files and containers keep working. Only the module of the command that runs is imported.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

from twisted_registry.commands.parser import COMMANDS, import_command, make_parser
from twisted_registry.frame.errors import CommandFailed

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from twisted_registry.commands.parser import CommandParser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    :param arguments: the command line; None for that of the process.
    :returns: the exit status: 0, 1 for an error of the configuration or the start, 2 for wrong
        usage, 141 (as of a process that SIGPIPE ends) if the output is no longer read; others are
        documented by the commands.
    """
    if sys.stdout is None:  # The parent has closed it.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - until the end
    try:
        try:
            return _run_command(sys.argv[1:] if arguments is None else arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader of the output, such as head, has seen enough.
        _discard_output()
        return 128 + signal.SIGPIPE
    except OSError as error:
        _discard_output()
        sys.stderr.write(f"twisted-registry: {error}\n")
        return 1


def _discard_output() -> None:
    """Let the interpreter flush standard output at its end without an error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run_command(arguments: Sequence[str]) -> int:
    """Run a command, and return its exit status; the caller reports errors of the output."""
    words = _normalize_flags(arguments)
    if words and words[0].endswith((".yml", ".yaml")):
        words.insert(0, "serve")
    if words[:1] == ["help"] and words[1:] and not words[1].startswith("-"):
        words = [*words[1:], "--help"]
    # The first word that is not a flag is the command. If it is none, the parser reports it.
    name = next((word for word in words if not word.startswith("-")), "")
    parser = make_parser([name])
    options = _parse(parser, words)
    if name not in COMMANDS:
        parser.print_help()
        return 0 if options.command else 2
    try:
        status: int = import_command(name).run(options)
    except CommandFailed as error:
        sys.stderr.write(f"twisted-registry: {error}\n")
        return error.exit_status
    return status


def _normalize_flags(words: Sequence[str]) -> list[str]:
    """Convert Go's boolean flags: ``--dry-run=true`` to ``--dry-run``, and remove ``=false``."""
    return [
        word.removesuffix("=true") if word.startswith("-") else word
        for word in words
        if not (word.startswith("-") and word.endswith("=false"))
    ]


def _parse(parser: CommandParser, words: Sequence[str]) -> Namespace:
    """Parse the command line; ``file`` becomes the value of ``--config`` if that is given.

    The optional FILE can follow flags that have a value: the argparse of Python 3.11 has then
    already decided that FILE is missing.
    """
    command = parser.find_command(words)
    options, rest = parser.parse_known_args(words)
    if len(rest) == 1 and not rest[0].startswith("-") and getattr(options, "file", "") is None:
        options.file = rest.pop()
    if rest:
        command.reject(rest[0])
    if getattr(options, "config", None) is not None:
        if options.file is not None:
            command.error(f"two configuration files: {options.file} and --config {options.config}")
        options.file = options.config
    return options
