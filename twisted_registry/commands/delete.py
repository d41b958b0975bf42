"""``twisted-registry delete``: takes a whole repository out of a store, through the trash."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from attrs import asdict

from twisted_registry import alone
from twisted_registry.commands.configured import add_file, complain, loaded
from twisted_registry.commands.once import CommandFailed
from twisted_registry.commands.progress import WIDTH, Bar
from twisted_registry.commands.store import in_memory, opened, registry_on
from twisted_registry.errors import ErrorCode, RegistryError
from twisted_registry.reference import NameInvalid, check_name

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from twisted_registry.config.schema import Configuration
    from twisted_registry.repository.deletion import Deleted


def arguments(parser: ArgumentParser) -> None:
    """Add what it takes."""
    parser.add_argument("repository", metavar="REPO", help="its name; those below it stay")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    add_file(parser)


def run(options: Namespace) -> int:
    """Delete a repository, and print what was in it.

    :returns: the exit status: 1 if it is not deleted, or not as a whole.
    """
    configuration = loaded(options.file).configuration
    fault = _fault(configuration, options.repository)
    if fault:
        complain(fault)
        return 1
    bar = Bar(sys.stderr) if sys.stderr.isatty() else None
    deleted = alone.once(lambda reactor: _delete(configuration, options.repository, bar, reactor))
    if bar is not None:
        bar.clear()
    if deleted is None:
        return 1
    if options.json:
        facts = {"repository": options.repository, **asdict(deleted)}
        sys.stdout.write(f"{json.dumps(facts)}\n")
    else:
        sys.stdout.write(f"{options.repository}: {_said(deleted)} deleted\n")
        if configuration.storage.maintenance.trash.keep:
            sys.stdout.write(
                f"twisted-registry trash restore {options.repository} brings it back\n"
            )
    return 0


def _fault(configuration: Configuration, name: str) -> str:
    """Why it can not be, or nothing."""
    if in_memory(configuration):
        return "storage.inmemory: the repositories are in the memory of the process that serves"
    if not configuration.storage.delete.enabled:
        return "storage.delete.enabled: deleting is not enabled"
    if configuration.storage.maintenance.readonly.enabled:
        return "storage.maintenance.readonly.enabled: the registry is read-only"
    try:
        check_name(name)
    except NameInvalid as error:
        return f"{name}: {error}"
    return ""


async def _delete(
    configuration: Configuration, name: str, bar: Bar | None, reactor: Any
) -> Deleted:
    def progress(deleted: Deleted) -> None:
        if bar is not None:
            bar.say(f"{name[:WIDTH]}: {_said(deleted)}")

    async with opened(configuration, reactor) as driver:
        repository = registry_on(configuration, driver, reactor).repository(name)
        try:
            return await repository.delete(progress)
        except RegistryError as error:
            if error.code is ErrorCode.NAME_UNKNOWN:
                raise CommandFailed(f"{name}: there is no such repository") from error
            if error.code is ErrorCode.DENIED:
                raise CommandFailed(f"{name}: {error}") from error
            raise


def _said(deleted: Deleted) -> str:
    return f"{deleted.tags} tags, {deleted.manifests} manifests, {deleted.blobs} links to blobs"
