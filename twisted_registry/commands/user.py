"""``twisted-registry user``: the users of ``auth.htpasswd``.

A password is asked for at a terminal, or read from standard input; never taken from the command
line, which other users of the machine can see, and shells remember.
"""

from __future__ import annotations

import json
import sys
from getpass import getpass
from pathlib import Path
from typing import TYPE_CHECKING

from twisted_registry.auth.htpasswd import (
    MAX_PASSWORD_BYTES,
    HtpasswdInvalid,
    cost_of,
    edit_file,
    has_entry,
    is_user_name,
    parse_htpasswd,
    with_entry,
    without_entry,
)
from twisted_registry.commands.configured import CONFIG_EPILOG, load_or_exit, print_error

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable

_KEY = "auth.htpasswd.path"
_ACTIONS = {
    "add": "let somebody in, with a password that is asked for or read from standard input",
    "passwd": "give a user another password",
    "remove": "let a user in no longer",
    "list": "print the names of the users",
}


class UserCommandError(Exception):
    """It can not be done; the text is one line for whoever asked."""


def arguments(parser: ArgumentParser) -> None:
    """Add what it takes."""
    parser.epilog = CONFIG_EPILOG
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, text in _ACTIONS.items():
        below = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if name == "list":
            below.add_argument("--json", action="store_true", help="print JSON")
        else:
            below.add_argument("name", metavar="NAME", help="what the user is called")
        below.add_argument("file", nargs="?", metavar="FILE", help="the configuration (YAML)")
        below.add_argument(
            "--htpasswd", metavar="PATH", help=f"the file of users, instead of the {_KEY} of FILE"
        )


def run(options: Namespace) -> int:
    """Do it.

    :returns: 0, or 1 with a line on standard error.
    """
    path = options.htpasswd or _configured(options.file)
    try:
        if options.action == "list":
            _print(path, as_json=options.json)
        else:
            _change(path, options.action, _name(options.name))
    except UserCommandError as error:
        print_error(str(error))
    except HtpasswdInvalid as error:
        print_error(f"{path}: {error}")
    except OSError as error:
        print_error(f"{path}: {error.strerror}")
    else:
        return 0
    return 1


def _configured(file: str | None) -> str:
    found = load_or_exit(file)
    htpasswd = found.configuration.auth.htpasswd
    if htpasswd is None:
        print_error(f"{_KEY} is not set in {found.source}; give --htpasswd PATH")
        raise SystemExit(1)
    return htpasswd.path


def _name(given: str) -> bytes:
    name = given.encode("utf-8", "surrogateescape")
    if not is_user_name(name):
        raise UserCommandError(f"{given!r} is no name: expected printable text without a colon")
    return name


def _change(path: str, action: str, name: bytes) -> None:
    shown = name.decode()

    def check(content: bytes) -> None:
        parse_htpasswd(content)
        there = has_entry(content, name)
        if there and action == "add":
            raise UserCommandError(f"{shown} is there already; passwd gives another password")
        if not there and action != "add":
            raise UserCommandError(f"{shown} is not there; list shows who is")

    hashed = b"" if action == "remove" else _hash(_password(path, shown, check))

    def change(content: bytes) -> bytes:
        check(content)
        if action == "remove":
            return without_entry(content, name)
        return with_entry(content, name, hashed)

    edit_file(path, change)


def _password(path: str, shown: str, check: Callable[[bytes], None]) -> bytes:
    """What was typed or piped, once it makes sense to ask."""
    file = Path(path)
    check(file.read_bytes() if file.exists() else b"")
    if not sys.stdin.isatty():
        password = sys.stdin.buffer.readline().rstrip(b"\r\n")
    else:
        password = getpass(f"password of {shown}: ").encode()
        if getpass("the same again: ").encode() != password:
            raise UserCommandError("these were two passwords")
    if not password:
        raise UserCommandError("an empty password lets everybody in")
    if len(password) > MAX_PASSWORD_BYTES:
        raise UserCommandError(
            f"more than {MAX_PASSWORD_BYTES} bytes, of which bcrypt would not see the rest"
        )
    if b"\0" in password:
        raise UserCommandError("a password is text")
    return password


def _hash(password: bytes) -> bytes:
    try:
        from twisted_registry.auth.password_file import hash_password  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise UserCommandError(
            f"needs the package {error.name}: install twisted-registry[auth]"
        ) from None
    return hash_password(password)


def _print(path: str, *, as_json: bool) -> None:
    users = parse_htpasswd(Path(path).read_bytes())
    listed = sorted((name.decode(), cost_of(hashed)) for name, hashed in users.hashes.items())
    if as_json:
        found = [{"name": name, "cost": cost} for name, cost in listed]
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        sys.stdout.write("".join(f"{name}\n" for name, _ in listed))
    if users.ignored:
        print_error(f"{path}: {users.ignored} lines are of no use: their hash is not bcrypt's")
