"""``twisted-registry token``: tokens for robots, which they use as a password."""

from __future__ import annotations

import argparse
import json
import re
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from twisted_registry.app import standalone
from twisted_registry.app.errors import CommandFailed
from twisted_registry.auth.rules import IMPLIED_ACTIONS, Right, Rights
from twisted_registry.commands.configured import CONFIG_EPILOG, load_or_exit, print_error
from twisted_registry.commands.store import is_in_memory, open_store
from twisted_registry.config import values
from twisted_registry.oci.patterns import GlobInvalid
from twisted_registry.storage.interfaces import StorageError
from twisted_registry.tokens.records import TokenRecord, TokenStore

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from twisted_registry.config.schema import Configuration

_ACTIONS = {
    "create": "make a token for a robot, and print it: it can not be had again",
    "list": "print all tokens that are good until they expire, without the tokens themselves",
    "revoke": "end a token, and all that was got with it, within seconds",
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_DAYS = re.compile(r"([0-9]{1,5})d", re.ASCII)
_DAY_S = 24 * 3600.0


def arguments(parser: ArgumentParser) -> None:
    """Add what it takes."""
    parser.epilog = CONFIG_EPILOG
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, text in _ACTIONS.items():
        below = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if name == "create":
            below.add_argument("name", metavar="NAME", type=_name, help="what the robot is called")
            below.add_argument(
                "--allow", metavar="REPOSITORIES:ACTIONS", type=_right, action="append",
                required=True,
                help="what it may do: patterns as in access.rules and actions (pull, push, delete,"
                " admin), each with commas between, as 'team/**,!team/secret:pull,push'; may be"
                " given several times",
            )  # fmt: skip
            below.add_argument(
                "--expires", metavar="AFTER", type=_lifetime, default=90 * _DAY_S,
                help="as 90d (the default), 12h or never",
            )  # fmt: skip
        elif name == "revoke":
            below.add_argument("id", metavar="ID", help="the id of the token, which list prints")
        below.add_argument("--json", action="store_true", help="print JSON")
        below.add_argument("file", nargs="?", metavar="FILE", help="the configuration (YAML)")


def run(options: Namespace) -> int:
    """Do it.

    :returns: the exit status: 1 if it could not be done.
    """
    configuration = load_or_exit(options.file).configuration
    if is_in_memory(configuration):
        print_error("storage.inmemory: a store in memory keeps no token")
        return 1
    if options.action == "create" and configuration.tokens is None:
        print_error("access.tokens: without the section nobody believes a token")
        return 1
    lines = standalone.run_once(lambda reactor: _do(configuration, options, reactor))
    if lines is None:
        return 1
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0


async def _do(configuration: Configuration, options: Namespace, reactor: Any) -> list[str]:
    async with open_store(configuration, reactor) as driver:
        records = TokenStore(driver, reactor)
        try:
            if options.action == "create":
                return await _create(records, options)
            if options.action == "list":
                return _list(await records.list_records(), reactor.seconds(), as_json=options.json)
            if not await records.revoke(options.id):
                raise CommandFailed(f"no token has the id {options.id!r}")
        except StorageError as error:
            raise CommandFailed(f"the store does not answer: {error}") from error
    return [json.dumps({"revoked": options.id})] if options.json else []


async def _create(records: TokenStore, options: Namespace) -> list[str]:
    rights = Rights(tuple(options.allow))
    record, token = await records.create("robot", options.name, options.expires, rights=rights)
    if options.json:
        return [json.dumps({**_shown(record), "token": token})]
    print_error(
        f"the robot {record.name} has the token {record.id}, good {_until(record)}; it can not be"
        f" shown again. To use it: docker login --username {record.name} --password-stdin HOST"
    )
    return [token]


def _list(records: list[TokenRecord], now: float, *, as_json: bool) -> list[str]:
    if as_json:
        return [json.dumps([_shown(record) for record in records])]
    lines = []
    for record in records:
        over = record.expires is not None and record.expires <= now
        rights = " ".join(map(_words, record.rights.as_json())) or "as the user"
        lines.append(
            f"{record.id}  {record.kind:7}  {record.name:20}  {_until(record)}"
            f"{' (over)' if over else ''}  {rights}"
        )
    return lines


def _shown(record: TokenRecord) -> dict[str, object]:
    return {
        "id": record.id,
        "kind": record.kind,
        "name": record.name,
        "created": _time(record.created),
        "expires": None if record.expires is None else _time(record.expires),
        "rights": record.rights.as_json(),
    }


def _words(right: dict[str, list[str]]) -> str:
    return f"{','.join(right['repositories'])}:{','.join(right['actions'])}"


def _until(record: TokenRecord) -> str:
    return "for ever" if record.expires is None else f"until {_time(record.expires)}"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no name: letters, digits, '.', '_' and '-', at most 64"
        )
    return text


def _right(text: str) -> Right:
    patterns, _, actions = text.rpartition(":")
    wanted = actions.split(",")
    if not set(wanted) <= set(IMPLIED_ACTIONS):
        raise argparse.ArgumentTypeError(
            f"{actions!r} is not some of {', '.join(IMPLIED_ACTIONS)} with commas between"
        )
    chosen = patterns.split(",")
    try:
        right = Right.make(chosen, wanted)
    except GlobInvalid as error:
        raise argparse.ArgumentTypeError(f"{str(error)!r} is no pattern of repositories") from error
    if not right.repositories.included:
        raise argparse.ArgumentTypeError(f"{patterns!r} chooses nothing; ** is everything")
    return right


def _lifetime(text: str) -> float | None:
    if text == "never":
        return None
    days = _DAYS.fullmatch(text)
    try:
        seconds = int(days[1]) * _DAY_S if days else values.parse_duration(text)
    except ValueError:
        seconds = 0.0
    if seconds <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 90d, 12h or never")
    return seconds
