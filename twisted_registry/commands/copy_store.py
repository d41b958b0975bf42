"""``twisted-registry copy-store FROM TO``: copy the content of one store into another.

Each store is that of a configuration: a directory or a bucket. Registries may serve both meanwhile.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from attrs import asdict

from twisted_registry.app import standalone
from twisted_registry.commands.configured import add_json_argument, load_store_or_exit
from twisted_registry.commands.output import BAR_WIDTH, ProgressBar, format_count, print_json
from twisted_registry.commands.store import open_store, redraw
from twisted_registry.frame.errors import CommandFailed
from twisted_registry.maintenance.store_copy import StoreCopy, StoreCopyResult

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from twisted_registry.config.loading import LoadedConfiguration
    from twisted_registry.config.schema import Configuration

_MIB: Final = 1024 * 1024


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.epilog = (
        "REGISTRY_* variables are ignored, because they would apply to both stores. AWS_* variables"
        " are used."
    )
    add_json_argument(parser)
    parser.add_argument("source", metavar="FROM", help="the configuration of the store to read")
    parser.add_argument("target", metavar="TO", help="the configuration of the store to fill")


def run(options: Namespace) -> int:
    """Copy what TO lacks, and print what was copied.

    :returns: the exit status: 1 if the copy failed, or if damaged content was left out.
    """
    source = load_store_or_exit(options.source, {})
    target = load_store_or_exit(options.target, {})
    _check_stores(source, target)
    with ProgressBar.on(sys.stderr) as bar:
        result = standalone.run_once(lambda reactor: _copy(source, target, bar, reactor))
    if not result.repositories:
        raise CommandFailed("FROM has no repositories; check its rootdirectory")
    if options.json:
        print_json(asdict(result))
    else:
        _print_result(result)
    return 1 if result.damaged else 0


def _check_stores(source: LoadedConfiguration, target: LoadedConfiguration) -> None:
    filesystem = source.configuration.storage.filesystem
    if filesystem is not None:
        root = Path(filesystem.rootdirectory).absolute()
        if not root.is_dir():
            raise CommandFailed(
                f"{source.origin}: storage.filesystem.rootdirectory: {root}: not a directory"
            )
    if _store_identity(source.configuration) == _store_identity(target.configuration):
        raise CommandFailed("FROM and TO are the same store")


def _store_identity(configuration: Configuration) -> tuple[str, ...]:
    storage = configuration.storage
    if storage.bucket is not None:
        bucket = storage.bucket
        return "bucket", bucket.description, bucket.bucket, bucket.rootdirectory.strip("/")
    assert storage.filesystem is not None
    return "directory", str(Path(storage.filesystem.rootdirectory).resolve())


async def _copy(
    source: LoadedConfiguration, target: LoadedConfiguration, bar: ProgressBar, reactor: Any
) -> StoreCopyResult:
    async with (
        open_store(source, reactor, check_bucket=True) as source_driver,
        open_store(target, reactor, check_bucket=True) as target_driver,
    ):
        copy = StoreCopy(source_driver, target_driver)
        with redraw(lambda: draw_progress(copy, bar), reactor):
            return await copy.run()


def draw_progress(copy: StoreCopy, bar: ProgressBar) -> None:
    """Show the progress of a copy: bytes of blobs, then repositories."""
    if copy.name:
        count = format_count(copy.done.repositories, "repository", "repositories")
        bar.show_line(f"linking: {count}, now {copy.name[:BAR_WIDTH]}")
    else:
        bar.draw_progress("MiB", copy.processed_bytes // _MIB, copy.total // _MIB)


def _print_result(result: StoreCopyResult) -> None:
    repositories = format_count(result.repositories, "repository", "repositories")
    sys.stdout.write(
        f"{format_count(result.blobs, 'blob')} copied ({result.bytes} bytes), {result.present}"
        f" already present; {format_count(result.manifests, 'manifest')} and"
        f" {format_count(result.tags, 'tag')} linked in {repositories}\n"
    )
    for line in result.damaged:
        sys.stdout.write(f"{line}\n")
