"""``twisted-registry delete``: delete a repository with all of its content."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from attrs import asdict

from twisted_registry.commands.audit import audited
from twisted_registry.commands.configured import (
    add_config_argument,
    add_json_argument,
    load_store_or_exit,
)
from twisted_registry.commands.output import BAR_WIDTH, ProgressBar, format_count, print_json
from twisted_registry.commands.store import make_registry, run_on_store
from twisted_registry.frame.errors import CommandFailed, WrongUsage
from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.oci.names import NameInvalid, check_name

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from twisted_registry.config.loading import LoadedConfiguration
    from twisted_registry.repository.deletion import DeletedCounts
    from twisted_registry.storage.interfaces import IStorageDriver


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "repository", metavar="REPO", help="the name of the repository; those below it are kept"
    )
    add_json_argument(parser)
    add_config_argument(parser)


def run(options: Namespace) -> int:
    """Delete a repository, and print how much it contained.

    :returns: the exit status: 1 if it was not deleted, or not completely.
    """
    name = options.repository
    loaded = load_store_or_exit(options.file)
    configuration = loaded.configuration
    _check_deletable(loaded, name)
    with audited(loaded, "delete", repository=name) as entry:
        with ProgressBar.on(sys.stderr) as bar:
            deleted = _delete(loaded, name, bar)
        entry.note(**asdict(deleted))
    if options.json:
        print_json({"repository": name, **asdict(deleted)})
    else:
        sys.stdout.write(f"{name}: {_summary(deleted)} deleted\n")
        if configuration.storage.maintenance.trash.keep:
            sys.stdout.write(f"to restore it: twisted-registry trash restore {name}\n")
    return 0


def _check_deletable(loaded: LoadedConfiguration, name: str) -> None:
    storage = loaded.configuration.storage
    if not storage.delete.enabled:
        raise CommandFailed(f"{loaded.origin}: storage.delete.enabled: deletion is not enabled")
    if storage.maintenance.readonly.enabled:
        raise CommandFailed(
            f"{loaded.origin}: storage.maintenance.readonly.enabled: the registry is read-only"
        )
    try:
        check_name(name)
    except NameInvalid as error:
        raise WrongUsage(f"{name}: not a repository name; expected {error}") from error


def _delete(loaded: LoadedConfiguration, name: str, bar: ProgressBar) -> DeletedCounts:
    def show_progress(deleted: DeletedCounts) -> None:
        bar.show_line(f"{name[:BAR_WIDTH]}: {_summary(deleted)}")

    async def delete(driver: IStorageDriver, reactor: Any) -> DeletedCounts:
        repository = make_registry(loaded.configuration, driver, reactor).repository(name)
        try:
            return await repository.delete(show_progress)
        except RegistryError as error:
            if error.code is ErrorCode.NAME_UNKNOWN:
                raise CommandFailed(f"{name}: no such repository") from error
            if error.code is ErrorCode.DENIED:
                raise CommandFailed(f"{name}: {error}") from error
            raise

    return run_on_store(loaded, delete)


def _summary(deleted: DeletedCounts) -> str:
    links = format_count(deleted.blobs, "link to a blob", "links to blobs")
    tags, manifests = (
        format_count(deleted.tags, "tag"),
        format_count(deleted.manifests, "manifest"),
    )
    return f"{tags}, {manifests}, {links}"
