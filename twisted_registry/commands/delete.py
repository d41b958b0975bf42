"""``twisted-registry delete``: takes a whole repository out of a store, through the trash."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from attrs import asdict

from twisted_registry.app import standalone
from twisted_registry.app.errors import CommandFailed
from twisted_registry.commands.configured import add_config_argument, load_or_exit, print_error
from twisted_registry.commands.output import BAR_WIDTH, ProgressBar
from twisted_registry.commands.store import is_in_memory, make_registry, open_store
from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.oci.names import NameInvalid, check_name

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from twisted_registry.config.schema import Configuration
    from twisted_registry.repository.deletion import DeletedCounts


def arguments(parser: ArgumentParser) -> None:
    """Add what it takes."""
    parser.add_argument("repository", metavar="REPO", help="its name; those below it stay")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    add_config_argument(parser)


def run(options: Namespace) -> int:
    """Delete a repository, and print what was in it.

    :returns: the exit status: 1 if it is not deleted, or not as a whole.
    """
    configuration = load_or_exit(options.file).configuration
    fault = _fault(configuration, options.repository)
    if fault:
        print_error(fault)
        return 1
    bar = ProgressBar(sys.stderr) if sys.stderr.isatty() else None
    deleted = standalone.run_once(
        lambda reactor: _delete(configuration, options.repository, bar, reactor)
    )
    if bar is not None:
        bar.clear()
    if deleted is None:
        return 1
    if options.json:
        facts = {"repository": options.repository, **asdict(deleted)}
        sys.stdout.write(f"{json.dumps(facts)}\n")
    else:
        sys.stdout.write(f"{options.repository}: {_summary(deleted)} deleted\n")
        if configuration.storage.maintenance.trash.keep:
            sys.stdout.write(
                f"twisted-registry trash restore {options.repository} brings it back\n"
            )
    return 0


def _fault(configuration: Configuration, name: str) -> str:
    """Why it can not be, or nothing."""
    if is_in_memory(configuration):
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
    configuration: Configuration, name: str, bar: ProgressBar | None, reactor: Any
) -> DeletedCounts:
    def progress(deleted: DeletedCounts) -> None:
        if bar is not None:
            bar.say(f"{name[:BAR_WIDTH]}: {_summary(deleted)}")

    async with open_store(configuration, reactor) as driver:
        repository = make_registry(configuration, driver, reactor).repository(name)
        try:
            return await repository.delete(progress)
        except RegistryError as error:
            if error.code is ErrorCode.NAME_UNKNOWN:
                raise CommandFailed(f"{name}: there is no such repository") from error
            if error.code is ErrorCode.DENIED:
                raise CommandFailed(f"{name}: {error}") from error
            raise


def _summary(deleted: DeletedCounts) -> str:
    return f"{deleted.tags} tags, {deleted.manifests} manifests, {deleted.blobs} links to blobs"
