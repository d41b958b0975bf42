"""``twisted-registry token``: tokens for robots, used as a password, and the keys of all tokens."""

from __future__ import annotations

import argparse
import re
import sys
from typing import TYPE_CHECKING, Any

from twisted_registry.auth.rules import IMPLIED_ACTIONS, Right, Rights
from twisted_registry.commands.audit import CommandEntry, audited
from twisted_registry.commands.configured import (
    add_actions,
    add_config_argument,
    add_json_argument,
    add_listing_arguments,
    load_store_or_exit,
)
from twisted_registry.commands.output import (
    ListPrinter,
    format_time,
    json_time,
    print_error,
    print_json,
)
from twisted_registry.commands.store import run_on_store
from twisted_registry.config.values import parse_duration
from twisted_registry.frame.errors import CommandFailed
from twisted_registry.oci.patterns import GlobInvalid
from twisted_registry.storage.interfaces import StorageError
from twisted_registry.tokens.keys import KEYS_TTL_S, StoredKeys
from twisted_registry.tokens.records import TokenRecord, TokenStore

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from twisted_registry.config.access import Tokens
    from twisted_registry.storage.interfaces import IStorageDriver
    from twisted_registry.tokens.keys import TokenKeys

_ACTIONS = {
    "create": "create a token for a robot, and print it; it cannot be printed again",
    "list": "list the tokens, without their secrets",
    "revoke": "revoke a token, and everything issued for it, within seconds",
    "rotate-keys": "make a new key for signing tokens; registries use it within seconds",
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_DEFAULT_LIFETIME_S = 90 * 24 * 3600.0


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of the command."""
    for name, action in add_actions(parser, _ACTIONS).items():
        if name == "create":
            action.add_argument(
                "name", metavar="NAME", type=_parse_name, help="the name of the robot"
            )
            action.add_argument(
                "--allow",
                metavar="REPOSITORIES:ACTIONS",
                type=_parse_right,
                action="append",
                required=True,
                help="what the robot may do: patterns as in access.rules and actions (pull, push,"
                " delete, admin), separated by commas, such as 'team/**,!team/secret:pull,push';"
                " may be repeated",
            )
            action.add_argument(
                "--expires",
                metavar="AFTER",
                type=_parse_lifetime,
                default=_DEFAULT_LIFETIME_S,
                help="the lifetime, such as 90d (the default), 12h or never",
            )
        elif name == "revoke":
            action.add_argument("id", metavar="ID", help="the ID of the token, as list prints it")
        elif name == "rotate-keys":
            action.add_argument(
                "--revoke",
                action="store_true",
                help="also end all tokens that were signed with the old keys, after a key has"
                " leaked; otherwise they stay valid until they expire",
            )
        (add_listing_arguments if name == "list" else add_json_argument)(action)
        add_config_argument(action)


def run(options: Namespace) -> int:
    """Create, list or revoke tokens, or make a new key.

    :returns: the exit status: 1 if it failed.
    """
    loaded = load_store_or_exit(options.file)
    settings = loaded.configuration.tokens
    if options.action in {"create", "rotate-keys"} and settings is None:
        raise CommandFailed(
            f"{loaded.origin}: access.tokens: without this section the registry accepts no tokens"
        )
    if options.action == "rotate-keys" and settings is not None:
        _check_keys_are_stored(settings)
    if options.action == "list":
        run_on_store(loaded, lambda driver, reactor: _list(options, driver, reactor))
        return 0
    with audited(loaded, f"token.{options.action}") as entry:
        run_on_store(
            loaded,
            lambda driver, reactor: _change(options, settings, entry, driver, reactor),
        )
    return 0


def _check_keys_are_stored(settings: Tokens) -> None:
    for name, value in (("key", settings.signing_key), ("keyfile", settings.keyfile)):
        if value:
            raise CommandFailed(
                f"access.tokens.{name}: the keys are not in the store; change them there"
            )


async def _list(options: Namespace, driver: IStorageDriver, reactor: Any) -> None:
    try:
        records = await TokenStore(driver, reactor).list_records()
    except StorageError as error:
        raise CommandFailed(f"the store failed: {error}") from error
    _print_records(records, reactor.seconds(), ListPrinter.of("tokens", options))


async def _change(
    options: Namespace,
    settings: Tokens | None,
    entry: CommandEntry,
    driver: IStorageDriver,
    reactor: Any,
) -> None:
    tokens = TokenStore(driver, reactor)
    try:
        if options.action == "create":
            await _create(tokens, options, entry)
        elif options.action == "rotate-keys":
            assert settings is not None
            keys = await StoredKeys(driver, reactor).rotate(
                settings.lifetime, revoke=options.revoke
            )
            _print_keys(keys, as_json=options.json)
        else:
            entry.note(options.id)
            await _revoke(tokens, options)
    except StorageError as error:
        raise CommandFailed(f"the store failed: {error}") from error


async def _create(tokens: TokenStore, options: Namespace, entry: CommandEntry) -> None:
    rights = Rights(tuple(options.allow))
    entry.note(kind="robot", name=options.name)
    record, token = await tokens.create("robot", options.name, options.expires, rights=rights)
    entry.note(record.id)
    if options.json:
        print_json({**_record_data(record), "token": token})
        return
    print_error(
        f"token {record.id} of robot {record.name}, valid {_validity(record)}; it cannot be printed"
        f" again. To use it: docker login --username {record.name} --password-stdin HOST"
    )
    sys.stdout.write(f"{token}\n")


async def _revoke(tokens: TokenStore, options: Namespace) -> None:
    if not await tokens.revoke(options.id):
        raise CommandFailed(f"no token has the ID {options.id!r}")
    if options.json:
        print_json({"revoked": options.id})


def _print_keys(keys: TokenKeys, *, as_json: bool) -> None:
    accepted = [key.id for key in keys.keys]
    if as_json:
        print_json({"signing": keys.signing.id, "accepted": accepted})
        return
    print_error(
        f"new key {keys.signing.id} for tokens, used by all registries within {KEYS_TTL_S:.0f} s;"
        f" old keys still accepted: {', '.join(accepted[1:]) or 'none'}"
    )


def _print_records(records: list[TokenRecord], now: float, printer: ListPrinter) -> None:
    with printer:
        for record in records:
            is_expired = record.expires is not None and record.expires <= now
            rights = " ".join(map(_format_right, record.rights.as_json())) or "as the user"
            printer.print_item(
                _record_data(record),
                f"{record.id:36}  {record.kind:7}  {record.name:20}  {_validity(record)}"
                f"{' (expired)' if is_expired else ''}  {rights}",
            )


def _record_data(record: TokenRecord) -> dict[str, object]:
    return {
        "id": record.id,
        "kind": record.kind,
        "name": record.name,
        "created": format_time(record.created),
        "expires": json_time(record.expires),
        "rights": record.rights.as_json(),
    }


def _format_right(right: dict[str, list[str]]) -> str:
    return f"{','.join(right['repositories'])}:{','.join(right['actions'])}"


def _validity(record: TokenRecord) -> str:
    return "for ever" if record.expires is None else f"until {format_time(record.expires)}"


def _parse_name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"invalid name {text!r}: expected at most 64 letters, digits, '.', '_' and '-'"
        )
    return text


def _parse_right(text: str) -> Right:
    repositories, _, actions = text.rpartition(":")
    wanted = actions.split(",")
    if not set(wanted) <= set(IMPLIED_ACTIONS):
        raise argparse.ArgumentTypeError(
            f"invalid actions {actions!r}: expected some of {', '.join(IMPLIED_ACTIONS)}, separated"
            " by commas"
        )
    try:
        right = Right.make(repositories.split(","), wanted)
    except GlobInvalid as error:
        raise argparse.ArgumentTypeError(f"invalid pattern {str(error)!r}") from error
    if not right.repositories.included:
        raise argparse.ArgumentTypeError(
            f"{repositories!r} matches no repository: expected at least one pattern without !,"
            " such as **"
        )
    return right


def _parse_lifetime(text: str) -> float | None:
    if text == "never":
        return None
    try:
        seconds = parse_duration(text)
    except ValueError:
        seconds = 0.0
    if seconds <= 0:
        raise argparse.ArgumentTypeError(
            f"invalid lifetime {text!r}: expected a duration such as 90d or 12h, or never"
        )
    return seconds
