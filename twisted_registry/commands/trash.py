"""``twisted-registry trash``: list the trash, restore from it, or empty it."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from attrs import asdict, frozen

from twisted_registry.app.collector import make_trash_expiry
from twisted_registry.commands.audit import audited
from twisted_registry.commands.configured import (
    add_actions,
    add_config_argument,
    add_json_argument,
    add_listing_arguments,
    load_store_or_exit,
)
from twisted_registry.commands.output import (
    ListPrinter,
    ProgressBar,
    format_count,
    format_time,
    print_error,
    print_json,
)
from twisted_registry.commands.store import open_writable_registry, run_on_store
from twisted_registry.config.values import parse_duration
from twisted_registry.frame.errors import CommandFailed, WrongUsage
from twisted_registry.maintenance.undelete import Undelete
from twisted_registry.oci.digest import Digest, DigestInvalid
from twisted_registry.oci.errors import RegistryError
from twisted_registry.oci.names import is_name, is_tag
from twisted_registry.repository.trash import (
    MAX_TAG_RECORD_BYTES,
    TagChange,
    Trash,
    TrashedKind,
)

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Mapping

    from twisted_registry.config.loading import LoadedConfiguration
    from twisted_registry.repository.registry import Registry
    from twisted_registry.repository.trash import TrashEntry
    from twisted_registry.storage.interfaces import IStorageDriver


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of the command."""
    parsers = add_actions(parser, {name: text for name, (text, _) in _ACTIONS.items()})
    parsers["history"].add_argument("what", metavar="REPO:TAG", help="the tag")
    restore = parsers["restore"]
    restore.add_argument(
        "what",
        metavar="WHAT",
        help="REPO:TAG, REPO@DIGEST (a manifest or blob), or REPO: everything deleted in it",
    )
    restore.add_argument(
        "--at",
        metavar="TIME",
        help="restore what the tag named at this time (ISO 8601; UTC without a time zone); by"
        " default what it named before its latest change",
    )
    parsers["empty"].add_argument(
        "--older-than",
        metavar="DURATION",
        default="0",
        help="only content removed longer ago than this, such as 48h or 30d",
    )
    for name, action in parsers.items():
        (add_listing_arguments if name in {"list", "history"} else add_json_argument)(action)
        add_config_argument(action)


def run(options: Namespace) -> int:
    """List, restore or empty.

    :returns: the exit status: 1 if it failed, or if something could not be restored or deleted.
    """
    loaded = load_store_or_exit(options.file)
    _, action = _ACTIONS[options.action]
    return run_on_store(loaded, lambda driver, reactor: action(options, loaded, driver, reactor))


async def _list(
    options: Namespace, _loaded: LoadedConfiguration, driver: IStorageDriver, _reactor: Any
) -> int:
    trash, status = Trash(driver), 0
    with ListPrinter.of("items", options) as printer:
        async for items in trash.pages():
            for item in items:
                try:
                    facts = await _item_data(trash, item)
                except RegistryError as error:
                    print_error(f"{item.path}: {error}")
                    status = 1
                    continue
                # A tag without a previous digest is new: it is in the history, but not removed.
                if facts.get("before", "") is not None:
                    printer.print_item(facts, _item_line(facts))
    return status


async def _history(
    options: Namespace, _loaded: LoadedConfiguration, driver: IStorageDriver, _reactor: Any
) -> int:
    target = TrashTarget.parse(options.what)
    if not target.tag:
        raise WrongUsage(f"{options.what}: not a tag, expected REPO:TAG")
    changes = await Trash(driver).tag_changes(target.repository, target.tag)
    with ListPrinter.of("changes", options) as printer:
        for change in changes:
            facts = {
                "time": _format_time(change.seconds),
                "before": _optional_text(change.before),
                "now": _optional_text(change.now),
            }
            printer.print_item(facts, f"{facts['time']}  {_format_change(facts)}")
    return 0


async def _restore(
    options: Namespace, loaded: LoadedConfiguration, driver: IStorageDriver, reactor: Any
) -> int:
    target, at = TrashTarget.parse(options.what), parse_time(options.at)
    if at is not None and not target.tag:
        raise WrongUsage("--at needs a tag, as REPO:TAG")
    with audited(loaded, "trash.restore", target=options.what) as entry:
        async with open_writable_registry(loaded.configuration, driver, reactor) as registry:
            faults = await _restore_target(target, at, registry, driver)
        if faults:
            entry.fail()
    for fault in faults:
        print_error(fault)
    _print(
        {"restored": options.what, "faults": faults},
        f"{options.what}: {'restored in part' if faults else 'restored'}",
        options,
    )
    return 1 if faults else 0


async def _restore_target(
    target: TrashTarget, at: float | None, registry: Registry, driver: IStorageDriver
) -> list[str]:
    """Restore a target, and return what could not be restored, one line each.

    :param at: seconds since the epoch, for a tag.
    """
    undelete, name = Undelete(registry), target.repository
    if target.tag:
        digest = await Trash(driver).tag_at(name, target.tag, at)
        if digest is None:
            when = "before its latest change" if at is None else "at that time"
            raise CommandFailed(f"{name}:{target.tag}: the trash has no digest of it {when}")
        await undelete.manifest(name, digest, [target.tag])
        return []
    if target.digest is None:
        return await undelete.repository(name)
    if await undelete.has_trashed_layer(name, target.digest):
        await undelete.layer(name, target.digest)
    else:
        await undelete.manifest(name, target.digest)
    return []


async def _empty(
    options: Namespace, loaded: LoadedConfiguration, driver: IStorageDriver, reactor: Any
) -> int:
    try:
        keep = parse_duration(options.older_than)
    except ValueError as error:
        raise WrongUsage(
            f"--older-than {options.older_than}: not a duration such as 48h or 30d"
        ) from error
    expiry = make_trash_expiry(loaded.configuration, driver, reactor, keep)
    with audited(loaded, "trash.empty") as entry, ProgressBar.on(sys.stderr) as bar:
        expiry.progress = lambda seen: bar.show_line(f"{format_count(seen, 'item')} checked")
        try:
            result = await expiry.run()
        finally:
            await expiry.close()
        entry.note(removed=result.removed, bytes=result.size, failed=result.failed)
    facts = asdict(result)
    facts["bytes"] = facts.pop("size")
    line = f"{format_count(result.removed, 'item')} deleted for good ({result.size} bytes)"
    if result.back:
        verb = "it is" if result.back == 1 else "they are"
        line += f", {result.back} restored because {verb} needed"
    _print(facts, line, options)
    if result.failed:
        items = format_count(result.failed, "item")
        print_error(f"{items} could not be deleted; the lines above have the reason")
    return 1 if result.failed else 0


_ACTIONS = {
    "list": ("list what was removed, when and why", _list),
    "history": ("print the former digests of a tag", _history),
    "restore": ("restore content, and everything that it needs", _restore),
    "empty": ("delete the content of the trash for good", _empty),
}


@frozen
class TrashTarget:
    """What the command line names: a tag, a manifest or blob, or a repository."""

    repository: str
    tag: str = ""
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> TrashTarget:
        """Parse REPO:TAG, REPO@DIGEST or REPO.

        :raises CommandFailed: if it is none of them.
        """
        name, at, digest = text.partition("@")
        tag = ""
        if not at:
            name, _, tag = text.partition(":")
        try:
            parsed = Digest.parse(digest) if at else None
        except DigestInvalid as error:
            raise WrongUsage(f"{text}: {error}") from error
        if not is_name(name) or (tag and not is_tag(tag)):
            raise WrongUsage(f"{text}: expected REPO:TAG, REPO@DIGEST or REPO")
        return cls(name, tag, parsed)


def parse_time(text: str | None) -> float | None:
    """Return a time in ISO 8601 as seconds since the epoch.

    :raises CommandFailed: if it is not a time.
    """
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise WrongUsage(f"--at {text}: not a time such as 2026-01-31T12:00:00Z") from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


async def _item_data(trash: Trash, item: TrashEntry) -> dict[str, Any]:
    facts = {
        "time": _format_time(item.entry_name.seconds),
        "cause": item.entry_name.reason.value,
        "kind": item.kind.value,
        "repository": item.repository or None,
        "tag": item.tag or None,
        "digest": _optional_text(item.digest),
        "size": item.size if item.kind is TrashedKind.BLOB else None,
    }
    if item.kind is TrashedKind.TAG:
        content = await trash.read_entry(item, MAX_TAG_RECORD_BYTES)
        record = TagChange.from_bytes(content or b"")
        if record is not None:
            facts |= {"before": _optional_text(record.before), "now": _optional_text(record.now)}
    return facts


def _item_line(facts: Mapping[str, Any]) -> str:
    if facts["kind"] == "tag":
        item = f"{facts['repository']}:{facts['tag']}  {_format_change(facts)}"
    elif facts["kind"] == "blob":
        item = f"{facts['digest']}  {facts['size']} bytes"
    else:
        item = f"{facts['repository']}@{facts['digest']}"
    return f"{facts['time']}  {facts['cause']:<9}  {facts['kind']:<8}  {item}"


def _format_change(facts: Mapping[str, Any]) -> str:
    return f"{facts.get('before') or '-'} -> {facts.get('now') or '-'}"


def _optional_text(digest: Digest | None) -> str | None:
    return None if digest is None else str(digest)


def _format_time(seconds: float) -> str:
    # Precise, so that ``restore --at`` finds the change.
    return format_time(seconds, "microseconds")


def _print(facts: Mapping[str, Any], line: str, options: Namespace) -> None:
    if options.json:
        print_json(facts)
    else:
        sys.stdout.write(f"{line}\n")
