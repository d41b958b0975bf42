"""``twisted-registry trash``: what was removed, and how it comes back or goes for good."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from attrs import define

from twisted_registry.app import standalone
from twisted_registry.app.collector import make_trash_expiry
from twisted_registry.app.errors import CommandFailed
from twisted_registry.commands.configured import add_config_argument, load_or_exit, print_error
from twisted_registry.commands.output import ProgressBar
from twisted_registry.commands.store import is_in_memory, open_store, open_writable_registry
from twisted_registry.config.values import parse_duration
from twisted_registry.gc.mark import CollectionFailed
from twisted_registry.maintenance.undelete import NotRecoverable, Undelete
from twisted_registry.oci.digest import Digest, DigestInvalid
from twisted_registry.oci.names import is_name, is_tag
from twisted_registry.repository.trash import (
    TagChangeRecord,
    TagHistory,
    TrashContents,
    TrashedKind,
)

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Mapping

    from twisted_registry.config.schema import Configuration
    from twisted_registry.repository.registry import Registry
    from twisted_registry.repository.trash import TagChange, TrashedItem
    from twisted_registry.storage.interfaces import IStorageDriver

#: Bytes of a record.
_MAX_RECORD_BYTES = 1024


def arguments(parser: ArgumentParser) -> None:
    """Add what it takes."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="what was removed, when and why")
    history = actions.add_parser("history", help="what a tag named when")
    history.add_argument("what", metavar="REPO:TAG")
    restore = actions.add_parser("restore", help="bring something back, with all that it needs")
    restore.add_argument(
        "what",
        metavar="WHAT",
        help="REPO:TAG, REPO@DIGEST (a manifest or a blob), or REPO: all that was deleted in it",
    )
    restore.add_argument(
        "--at", metavar="TIME", help="what the tag named then (ISO 8601, UTC if it does not say);"
        " without it, what it named before the latest change",
    )  # fmt: skip
    empty = actions.add_parser("empty", help="remove what is in the trash for good")
    empty.add_argument(
        "--older-than",
        metavar="DURATION",
        default="0",
        help="only what was removed longer ago, as 48h",
    )
    for action in (listing, history, restore, empty):
        action.add_argument("--json", action="store_true", help="print JSON, a document a line")
        add_config_argument(action)


def run(options: Namespace) -> int:
    """Do what is asked for.

    :returns: the exit status: 1 if it failed, or something can not come back.
    """
    configuration = load_or_exit(options.file).configuration
    if is_in_memory(configuration):
        print_error("storage.inmemory: the trash is in the memory of the process that serves it")
        return 1
    action = _ACTIONS[options.action]
    done = standalone.run_once(lambda reactor: action(configuration, options, reactor))
    return 1 if done is None else done


async def _list(configuration: Configuration, options: Namespace, reactor: Any) -> int:
    async with open_store(configuration, reactor) as driver:
        contents = TrashContents(driver)
        async for items in contents.pages():
            for item in items:
                facts = await _facts(contents, item)
                # A new tag is a part of its history, and nothing that was removed.
                if facts.get("before", "") is not None:
                    _print(facts, _line(facts), options)
    return 0


async def _history(configuration: Configuration, options: Namespace, reactor: Any) -> int:
    wanted = TrashTarget.parse(options.what)
    if not wanted.tag:
        raise CommandFailed(f"{options.what}: not a tag, as REPO:TAG")
    async with open_store(configuration, reactor) as driver:
        for change in await TagHistory(driver).changes(wanted.repository, wanted.tag):
            facts = _change(change)
            _print(facts, f"{facts['time']}  {_movement(facts)}", options)
    return 0


async def _restore(configuration: Configuration, options: Namespace, reactor: Any) -> int:
    wanted, at = TrashTarget.parse(options.what), parse_time(options.at)
    if at is not None and not wanted.tag:
        raise CommandFailed("--at is for tags")
    async with (
        open_store(configuration, reactor) as driver,
        open_writable_registry(configuration, driver, reactor) as registry,
    ):
        try:
            faults = await _bring_back(wanted, at, registry, driver)
        except NotRecoverable as error:
            raise CommandFailed(str(error)) from error
    for fault in faults:
        print_error(fault)
    _print(
        {"restored": options.what, "faults": faults},
        f"{options.what}: {'restored in part' if faults else 'restored'}",
        options,
    )
    return 1 if faults else 0


async def _bring_back(
    wanted: TrashTarget, at: float | None, registry: Registry, driver: IStorageDriver
) -> list[str]:
    restoring, name = Undelete(registry), wanted.repository
    if wanted.tag:
        digest = await TagHistory(driver).tag_at(name, wanted.tag, at)
        if digest is None:
            when = "before its latest change" if at is None else "then"
            raise CommandFailed(f"{name}:{wanted.tag} named nothing {when} that the trash knows of")
        await restoring.manifest(name, digest, [wanted.tag])
        return []
    if wanted.digest is None:
        return await restoring.repository(name)
    if await restoring.has_trashed_layer(name, wanted.digest):
        await restoring.layer(name, wanted.digest)
    else:
        await restoring.manifest(name, wanted.digest)
    return []


async def _empty(configuration: Configuration, options: Namespace, reactor: Any) -> int:
    try:
        keep = parse_duration(options.older_than)
    except ValueError as error:
        raise CommandFailed(f"--older-than {options.older_than}: not a duration, as 48h") from error
    bar = ProgressBar(sys.stderr) if sys.stderr.isatty() else None
    async with open_store(configuration, reactor) as driver:
        trash_expiry = make_trash_expiry(configuration, driver, reactor, keep)
        if bar is not None:
            trash_expiry.progress = lambda seen: bar.say(f"{seen} things looked at")
        try:
            emptied = await trash_expiry.run()
        except CollectionFailed as error:
            raise CommandFailed(str(error)) from error
        finally:
            await trash_expiry.mark_phase.references.close()
            if bar is not None:
                bar.clear()
    facts = {"removed": emptied.removed, "bytes": emptied.size, "back": emptied.back}
    line = f"{emptied.removed} things removed for good ({emptied.size} bytes)"
    if emptied.back:
        line += f", {emptied.back} brought back, for they are needed"
    _print(facts, line, options)
    return 0


_ACTIONS = {"list": _list, "history": _history, "restore": _restore, "empty": _empty}


@define(eq=False)
class TrashTarget:
    """What was named on the command line: a tag, a manifest or blob, or a repository."""

    repository: str
    tag: str = ""
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> TrashTarget:
        """Take it apart.

        :raises CommandFailed: if it is none of the three.
        """
        name, at, digest = text.partition("@")
        tag = ""
        if not at:
            name, _, tag = text.partition(":")
        try:
            parsed = Digest.parse(digest) if at else None
        except DigestInvalid as error:
            raise CommandFailed(f"{text}: {error}") from error
        if not is_name(name) or (tag and not is_tag(tag)):
            raise CommandFailed(f"{text}: expected REPO:TAG, REPO@DIGEST or REPO")
        return cls(name, tag, parsed)


def parse_time(text: str | None) -> float | None:
    """The seconds since the epoch of a time in ISO 8601.

    :raises CommandFailed: if it is none.
    """
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise CommandFailed(f"--at {text}: not a time, as 2026-01-31T12:00:00Z") from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


async def _facts(contents: TrashContents, item: TrashedItem) -> dict[str, Any]:
    facts = {
        "time": _time(item.entry_name.seconds),
        "cause": item.entry_name.reason.value,
        "kind": item.kind.value,
        "repository": item.repository or None,
        "tag": item.tag or None,
        "digest": None if item.digest is None else str(item.digest),
        "size": item.size if item.kind is TrashedKind.BLOB else None,
    }
    if item.kind is TrashedKind.TAG:
        record = TagChangeRecord.from_bytes(await contents.content(item, _MAX_RECORD_BYTES) or b"")
        if record is not None:
            facts |= {"before": _text(record.before), "now": _text(record.now)}
    return facts


def _change(change: TagChange) -> dict[str, Any]:
    return {
        "time": _time(change.seconds),
        "before": _text(change.before),
        "now": _text(change.now),
    }


def _line(facts: Mapping[str, Any]) -> str:
    return "  ".join((facts["time"], f"{facts['cause']:<9}", f"{facts['kind']:<8}", _what(facts)))


def _what(facts: Mapping[str, Any]) -> str:
    if facts["kind"] == "tag":
        return f"{facts['repository']}:{facts['tag']}  {_movement(facts)}"
    if facts["kind"] == "blob":
        return f"{facts['digest']}  {facts['size']} bytes"
    return f"{facts['repository']}@{facts['digest']}"


def _movement(facts: Mapping[str, Any]) -> str:
    return f"{facts.get('before') or '-'} -> {facts.get('now') or '-'}"


def _text(digest: Digest | None) -> str | None:
    return None if digest is None else str(digest)


def _time(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _print(facts: Mapping[str, Any], line: str, options: Namespace) -> None:
    sys.stdout.write(f"{json.dumps(facts) if options.json else line}\n")
