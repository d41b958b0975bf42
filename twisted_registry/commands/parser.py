"""The parser of the command line, which also describes it to shells and to the manual page."""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import TYPE_CHECKING, Any

from twisted_registry import __version__
from twisted_registry.app.gc_freeze import freeze_imports
from twisted_registry.config.suggestion import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from typing import NoReturn

#: The commands. Each is a module of that name in this folder, with ``_`` for ``-``.
COMMANDS: Mapping[str, str] = {
    "serve": "run the registry",
    "check": "validate a configuration, and print it with defaults and masked secrets",
    "doctor": "find out what is wrong with a registry, and what to do about it",
    "garbage-collect": "delete unreferenced content, even while a registry serves",
    "stats": "print what each repository uses, and what the whole store contains",
    "fsck": "check the store for damage, and repair it where possible",
    "trash": "list what was removed, restore it, or delete it for good",
    "delete": "delete a repository, even while a registry serves",
    "retention": "delete the tags that no rule of storage.maintenance.retention keeps",
    "maintenance": "print the state of the periodic tasks, or run one",
    "events": "list the notifications that wait or were refused, send refused ones again",
    "user": "add, change, remove or list the users of auth.htpasswd",
    "token": "create, list and revoke tokens for robots, rotate keys",
    "copy-store": "copy one store into another, even while registries serve",
    "completion": "print the script that makes a shell complete this command",
}

#: The metavars of arguments that are paths of files. Shells complete them with file names.
PATH_METAVARS = frozenset({"FILE", "FROM", "PATH", "TO"})


class CommandParser(argparse.ArgumentParser):
    """A parser that keeps what was added to it.

    :ivar arguments: its options and positional arguments, in order, ``--help`` included.
    :ivar commands: the parsers of its commands, by name; empty if it has none.
    """

    def __init__(self, *positional: Any, **settings: Any) -> None:
        self.arguments: list[argparse.Action] = []
        self.commands: Mapping[str, CommandParser] = {}
        super().__init__(*positional, **settings)

    def add_argument(self, *names: Any, **settings: Any) -> argparse.Action:
        """Add an argument, as :meth:`argparse.ArgumentParser.add_argument` does."""
        action = super().add_argument(*names, **settings)
        self.arguments.append(action)
        return action

    def add_subparsers(self, **settings: Any) -> Any:
        """Add commands, as :meth:`argparse.ArgumentParser.add_subparsers` does."""
        action = super().add_subparsers(**settings)
        self.commands = action.choices
        return action

    @property
    def summary(self) -> str:
        """What the command does, as in the list of commands: no capital, no full stop."""
        text = self.description or ""
        return f"{text[:1].lower()}{text[1:].removesuffix('.')}"

    @property
    def options(self) -> Sequence[argparse.Action]:
        """The arguments that begin with a dash."""
        return [each for each in self.arguments if each.option_strings]

    @property
    def positional(self) -> Sequence[argparse.Action]:
        """The other arguments, in order."""
        return [each for each in self.arguments if not each.option_strings]

    def error(self, message: str) -> NoReturn:
        """Print what is wrong with the command line, in one line; exit with status 2."""
        advice = "" if message.endswith("?") else f"; see {self.prog} --help"
        self.exit(2, f"{self.prog}: {message}{advice}\n")

    def find_command(self, words: Sequence[str]) -> CommandParser:
        """Return the parser of the command that a command line names.

        :raises SystemExit: with status 2 if there is no such command.
        """
        parser = self
        for word in words:
            if not parser.commands:
                break
            if word in parser.commands:
                parser = parser.commands[word]
            elif not word.startswith("-"):
                hint = did_you_mean(word, parser.commands)
                parser.error(f"unknown command {word!r}{hint}")
        return parser

    def reject(self, word: str) -> NoReturn:
        """Report a word of the command line that is no argument.

        :raises SystemExit: with status 2.
        """
        if not word.startswith("-"):
            self.error(f"unexpected argument {word!r}")
        name = word.partition("=")[0]
        known = [each for option in self.options for each in option.option_strings]
        self.error(f"unknown option {name!r}{did_you_mean(name, known)}")

    def walk(self, path: str = "") -> Iterator[tuple[str, CommandParser]]:
        """Yield this parser and those of all commands below it.

        :param path: the words that lead to this parser.
        :returns: pairs of such words, as ``user add``, and the parser.
        """
        yield path, self
        for name, below in self.commands.items():
            yield from below.walk(f"{path} {name}".lstrip())


def import_command(name: str) -> Any:
    """Import the module of a command.

    :param name: one of :data:`COMMANDS`.
    """
    with freeze_imports():
        return import_module(f"twisted_registry.commands.{name.replace('-', '_')}")


def make_parser(names: Collection[str] = COMMANDS.keys()) -> CommandParser:
    """Make the parser, which knows all commands, and the arguments of some.

    :param names: the commands whose modules are imported for their arguments; by default all.
    """
    parser = CommandParser(
        prog="twisted-registry",
        description="A container image registry (OCI distribution protocol).",
    )
    version = f"twisted-registry {__version__}"
    parser.add_argument(
        "-v", "--version", action="version", version=version, help="print the version"
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for each, text in {**COMMANDS, "help": "print the help of a command"}.items():
        below = commands.add_parser(each, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if each in COMMANDS and each in names:
            import_command(each).add_arguments(below)
    below.add_argument(
        "topic", nargs="?", metavar="COMMAND", choices=tuple(COMMANDS), help="the command"
    )
    return parser


def takes_value(argument: argparse.Action) -> bool:
    """Return whether an option is followed by a value."""
    return argument.nargs != 0


def describe(argument: argparse.Action) -> str:
    """Return the help of an argument, with the values of its placeholders."""
    return (argument.help or "") % vars(argument)
