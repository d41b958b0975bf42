"""The manual page, written from the parser of the command line.

``python -m twisted_registry.commands.manual`` prints it in the macros of man(7). The date in it is
``SOURCE_DATE_EPOCH`` (seconds since 1970), or else today.
"""

from __future__ import annotations

import os
import sys
import textwrap
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from twisted_registry import __version__
from twisted_registry.commands.configured import CONFIG_EPILOG
from twisted_registry.commands.parser import describe, make_parser, takes_value
from twisted_registry.config.loading import DEFAULT_PATHS

if TYPE_CHECKING:
    from argparse import Action
    from collections.abc import Iterable, Iterator, Mapping

    from twisted_registry.commands.parser import CommandParser

_NAME = "twisted-registry"

_DESCRIPTION = (
    (
        "A registry for container images and other artifacts: it serves the OCI and Docker"
        " distribution protocol from a disk, a bucket or memory, and collects garbage while it"
        " serves. Configuration files and stores of CNCF Distribution are used as they are."
    ),
    (
        "FILE, the configuration file, is optional; --config FILE is the same. Without it, the file"
        " that the environment variable REGISTRY_CONFIGURATION_PATH names is read, or the first of"
        " those below FILES that exists; otherwise the defaults apply. The command check prints all"
        " mistakes of a file, and the configuration that results."
    ),
    (
        "Commands that change a store work while registries serve it. They run as the user that"
        " serves, or as root."
    ),
)

_FILES = (
    (DEFAULT_PATHS[0], "The configuration, for commands without FILE."),
    *((path, "The same, if no file above exists.") for path in DEFAULT_PATHS[1:]),
)

_ENVIRONMENT = (
    ("REGISTRY_CONFIGURATION_PATH", "The configuration file, for commands without FILE."),
    (
        "REGISTRY_*",
        (
            "Overrides a key of the configuration: REGISTRY_HTTP_ADDR sets http.addr. The command"
            " copy-store ignores these variables."
        ),
    ),
    (
        "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_PROFILE",
        "Credentials of a bucket, or the profile that has them, if the configuration has none.",
    ),
    ("HTTP_PROXY, HTTPS_PROXY, NO_PROXY", "The proxy to a bucket, and addresses without proxy."),
    ("SSL_CERT_FILE", "The certificate authorities that a bucket is verified with."),
    (
        "LISTEN_FDS, LISTEN_PID",
        (
            "Set by systemd for socket activation: the command serve listens on that socket instead"
            " of http.addr."
        ),
    ),
)

_EXIT_STATUS = (
    ("0", "Success."),
    (
        "1",
        (
            "The configuration is wrong, the registry could not start, or a command failed, also in"
            " part. Standard error has a line for each fault."
        ),
    ),
    ("2", "Wrong usage."),
    (
        "3",
        (
            "fsck: the store is damaged. maintenance run: another process runs the task, so it was"
            " skipped."
        ),
    ),
)

_SEE_ALSO = "docker(1), podman(1), skopeo(1), systemctl(1)"


def escape(text: str) -> str:
    r"""Return text of which roff takes no character for a command.

    Dashes become the ASCII character, which can be copied from a terminal.
    """
    for character, escaped in (
        ("\\", r"\e"), ("-", r"\-"), ("'", r"\(aq"), ("`", r"\(ga"), ("^", r"\(ha"), ("~", r"\(ti"),
    ):  # fmt: skip
        text = text.replace(character, escaped)
    return "\n".join(rf"\&{line}" if line.startswith(".") else line for line in text.split("\n"))


def make_manual(parser: CommandParser, date: str) -> str:
    """Return the manual page.

    :param parser: the parser of the command line.
    :param date: of the page, as ``2026-01-31``.
    """
    name = escape(_NAME)
    lines = [f'.TH "{name.upper()}" "1" "{date}" "{name} {__version__}" "User Commands"']
    lines += [".SH NAME", rf"{name} \- container image registry"]
    lines += [".SH SYNOPSIS", *_usage("", parser), ".SH DESCRIPTION"]
    for number, paragraph in enumerate(_DESCRIPTION):
        lines += [*([".PP"] if number else []), *_wrap(paragraph)]
    lines += [".SH OPTIONS", *_arguments(parser.options), ".SH COMMANDS"]
    for path, below in parser.walk():
        if path and not below.commands:
            lines += _command(path, below)
    for heading, entries in (
        ("FILES", _FILES), ("ENVIRONMENT", _ENVIRONMENT), ("EXIT STATUS", _EXIT_STATUS),
    ):  # fmt: skip
        lines.append(f".SH {heading}")
        for term, text in entries:
            lines += [".TP", rf"\fB{escape(term)}\fR", *_wrap(text)]
    lines += [".SH SEE ALSO", *_wrap(_SEE_ALSO)]
    return "".join(f"{line}\n" for line in lines)


def _wrap(text: str) -> Iterator[str]:
    """Yield a text as lines of the source."""
    yield from escape(textwrap.fill(text, 72, break_on_hyphens=False)).split("\n")


def _command(path: str, parser: CommandParser) -> Iterator[str]:
    """Yield the section of one command or action."""
    yield f".SS {escape(path)}"
    yield from _usage(path, parser)
    yield ".PP"
    yield from _wrap(parser.description or "")
    yield from _arguments([*parser.options[1:], *parser.positional])
    if parser.epilog and parser.epilog != CONFIG_EPILOG:  # DESCRIPTION has that, for all commands
        yield ".PP"
        yield from _wrap(parser.epilog)


def _usage(path: str, parser: CommandParser) -> Iterator[str]:
    """Yield the words of a command line."""
    yield rf"\fB{escape(f'{_NAME} {path}'.rstrip())}\fR"
    for option in parser.options:
        words = _invocation(option, " | ")
        if "--help" not in option.option_strings:
            # A line of the source ends at each space: lists of values are long.
            yield from (words if option.required else f"[{words}]").split(" ")
    if parser.commands:
        yield r"\fICOMMAND\fR ..."
    for argument in parser.positional:
        yield f"[{_value(argument)}]" if argument.nargs == "?" else _value(argument)


def _arguments(arguments: Iterable[Action]) -> Iterator[str]:
    """Yield a list of options and positional arguments."""
    for argument in arguments:
        yield ".TP"
        yield _invocation(argument) if argument.option_strings else _value(argument)
        yield from _wrap(_sentence(describe(argument)))


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _invocation(option: Action, separator: str = ", ") -> str:
    r"""Return the names of an option with its value, as ``\fB\-\-at\fR \fITIME\fR``."""
    value = f" {_value(option)}" if takes_value(option) else ""
    return separator.join(rf"\fB{escape(name)}\fR{value}" for name in option.option_strings)


def _value(argument: Action) -> str:
    if argument.choices:
        # A line can be broken at the last two characters.
        return r"|\:".join(rf"\fB{escape(each)}\fR" for each in argument.choices)
    return rf"\fI{escape(str(argument.metavar or argument.dest))}\fR"


def main(environ: Mapping[str, str]) -> None:
    """Print the manual page.

    :param environ: the environment, for ``SOURCE_DATE_EPOCH``.
    """
    epoch = environ.get("SOURCE_DATE_EPOCH")
    moment = datetime.now(UTC) if epoch is None else datetime.fromtimestamp(int(epoch), UTC)
    sys.stdout.write(make_manual(make_parser(), moment.date().isoformat()))


if __name__ == "__main__":
    main(os.environ)
