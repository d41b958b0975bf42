"""``twisted-registry user``: manage the users of ``auth.htpasswd``.

A password is read from the terminal or from standard input. It is never a command-line argument,
which other users of the machine can see and shells store.
"""

from __future__ import annotations

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
    remove_entry,
    with_entry,
)
from twisted_registry.commands.audit import audited
from twisted_registry.commands.configured import (
    add_actions,
    add_config_argument,
    add_json_argument,
    add_listing_arguments,
    load_or_exit,
)
from twisted_registry.commands.output import (
    ListPrinter,
    print_error,
    print_json,
)
from twisted_registry.frame.errors import CommandFailed, WrongUsage

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable

    from twisted_registry.config.loading import LoadedConfiguration

_KEY = "auth.htpasswd.path"
_ACTIONS = {
    "add": "add a user; the password is prompted for, or read from standard input",
    "passwd": "change the password of a user",
    "remove": "remove a user",
    "list": "list the names of the users",
}

#: The name of the user in JSON, by action.
_RESULTS = {"add": "added", "passwd": "changed", "remove": "removed"}


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of the command."""
    for name, action in add_actions(parser, _ACTIONS).items():
        if name == "list":
            add_listing_arguments(action)
        else:
            action.add_argument("name", metavar="NAME", help="the name of the user")
            add_json_argument(action)
        add_config_argument(action)
        action.add_argument(
            "--htpasswd", metavar="PATH", help=f"the htpasswd file, instead of {_KEY} of FILE"
        )


def run(options: Namespace) -> int:
    """Add, change, remove or list users.

    :returns: the exit status.
    :raises CommandFailed: if it failed.
    """
    loaded = None if options.htpasswd else load_or_exit(options.file)
    path = options.htpasswd if loaded is None else _configured_path(loaded)
    try:
        if options.action == "list":
            _print_users(path, ListPrinter.of("users", options))
        elif loaded is None:
            _change_user(path, options.action, _encode_name(options.name))
        else:
            with audited(loaded, f"user.{options.action}", target=options.name):
                _change_user(path, options.action, _encode_name(options.name))
    except HtpasswdInvalid as error:
        raise CommandFailed(f"{path}: {error}") from error
    except OSError as error:
        raise CommandFailed(f"{path}: {error.strerror}") from error
    if options.action != "list" and options.json:
        print_json({_RESULTS[options.action]: options.name})
    return 0


def _configured_path(loaded: LoadedConfiguration) -> str:
    htpasswd = loaded.configuration.auth.htpasswd
    if htpasswd is None:
        raise CommandFailed(f"{_KEY} is not set in {loaded.source}; use --htpasswd PATH")
    return str(Path(htpasswd.path).absolute())


def _encode_name(text: str) -> bytes:
    name = text.encode("utf-8", "surrogateescape")
    if not is_user_name(name):
        raise WrongUsage(f"invalid name {text!r}: expected printable text without a colon")
    return name


def _change_user(path: str, action: str, name: bytes) -> None:
    text = name.decode()

    def check(content: bytes) -> None:
        parse_htpasswd(content)
        exists = has_entry(content, name)
        if exists and action == "add":
            raise CommandFailed(f"{text} already exists; use passwd to change the password")
        if not exists and action != "add":
            raise CommandFailed(f"{text} does not exist; use list to print the users")

    if action == "remove":
        remove_entry(path, name, check)
        return
    from twisted_registry.auth.password_file import hash_password  # noqa: PLC0415 - bcrypt

    hashed = hash_password(_read_password(path, text, check))

    def change(content: bytes) -> bytes:
        check(content)
        return with_entry(content, name, hashed)

    edit_file(path, change)


def _read_password(path: str, user: str, check: Callable[[bytes], None]) -> bytes:
    """Return the password from the terminal or standard input.

    :param check: raises an error if the change is not possible; called before prompting.
    """
    file = Path(path)
    check(file.read_bytes() if file.exists() else b"")
    if not sys.stdin.isatty():
        password = sys.stdin.buffer.readline().rstrip(b"\r\n")
    else:
        password = getpass(f"password of {user}: ").encode()
        if getpass("repeat the password: ").encode() != password:
            raise CommandFailed("the passwords differ")
    if not password:
        raise CommandFailed("the password is empty")
    if len(password) > MAX_PASSWORD_BYTES:
        raise CommandFailed(
            f"the password is longer than {MAX_PASSWORD_BYTES} bytes; bcrypt ignores the rest"
        )
    if b"\0" in password:
        raise CommandFailed("the password contains a null byte")
    return password


def _print_users(path: str, printer: ListPrinter) -> None:
    users = parse_htpasswd(Path(path).read_bytes())
    costs = sorted((name.decode(), cost_of(hashed)) for name, hashed in users.hashes.items())
    with printer:
        for name, cost in costs:
            printer.print_item({"name": name, "cost": cost}, name)
    if users.ignored:
        lines = users.describe_ignored()
        print_error(f"{path}: ignored: {lines}: expected NAME:HASH with a bcrypt hash")
