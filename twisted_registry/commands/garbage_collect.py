"""``twisted-registry garbage-collect``: one collection as a command of its own.

It takes the flags of Distribution's and prints its lines, but may run beside a registry that
serves: it is the collector of the registry itself.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, TextIO

from attrs import asdict, define, field

from twisted_registry import alone
from twisted_registry.collecting import make_collector
from twisted_registry.commands.configured import add_config_argument, print_error, load_or_exit
from twisted_registry.commands.explaining import explain
from twisted_registry.commands.once import CommandFailed
from twisted_registry.commands.progress import BAR_WIDTH, ProgressBar
from twisted_registry.commands.store import is_in_memory, open_store
from twisted_registry.maintenance.marking import CollectionFailed
from twisted_registry.maintenance.watcher import CollectorObserver

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Sequence

    from twisted_registry.config.schema import Configuration
    from twisted_registry.digest import Digest
    from twisted_registry.maintenance.garbage import CollectionResult


@define(eq=False)
class CollectionPrinter(CollectorObserver):
    """Prints what is going on, as Distribution does."""

    out: TextIO

    def repository_started(self, name: str) -> None:
        """Name a repository."""
        self._say(name)

    def manifest_kept(self, name: str, digest: Digest) -> None:
        """Name a manifest that is kept."""
        self._say(f"{name}: marking manifest {digest}")

    def eligible(self, manifests: Sequence[tuple[str, Digest]], blobs: Sequence[Digest]) -> None:
        """Name what may go."""
        for name, digest in manifests:
            self._say(f"{name}: manifest eligible for deletion: {digest}")
        for digest in blobs:
            self._say(f"blob eligible for deletion: {digest}")

    def _say(self, line: str) -> None:
        self.out.write(f"{line}\n")


@define(eq=False)
class ProgressWatcher(CollectorObserver):
    """Draws a bar: repositories while it marks, then what is removed."""

    bar: ProgressBar
    _repositories: int = field(init=False, default=0)

    def repository_started(self, name: str) -> None:
        """Count a repository."""
        self._repositories += 1
        self.bar.say(f"marking: {self._repositories} repositories, now {name[:BAR_WIDTH]}")

    def removed(self, done: int, total: int) -> None:
        """Draw how far it is."""
        self.bar.draw("removing", done, total)
        if done == total:
            self._repositories = 0


def arguments(parser: ArgumentParser) -> None:
    """Add what it takes."""
    for flags, text in (
        (("-d", "--dry-run"), "only say what would go"),
        (("-m", "--delete-untagged"), "also remove manifests that no tag holds"),
        (("-q", "--quiet"), "print the sums only"),
        (("--json",), "print one JSON document"),
    ):
        parser.add_argument(*flags, action="store_true", help=text)
    parser.add_argument(
        "--explain",
        metavar="DIGEST",
        help="remove nothing; say what keeps a blob or manifest, or when it goes",
    )
    add_config_argument(parser)


def run(options: Namespace) -> int:
    """Collect once, and print what was done.

    :returns: the exit status: 1 if the run could not go on.
    """
    configuration = load_or_exit(options.file).configuration
    if is_in_memory(configuration):
        print_error("storage.inmemory: a store in memory has nothing to collect")
        return 1
    if options.explain is not None:
        untagged = options.delete_untagged or configuration.storage.maintenance.gc.deleteuntagged
        return explain(configuration, options.explain, untagged=untagged, as_json=options.json)
    bar = ProgressBar(sys.stderr) if sys.stderr.isatty() else None
    observer = CollectorObserver() if bar is None else ProgressWatcher(bar)
    if not (options.quiet or options.json or bar):
        observer = CollectionPrinter(sys.stdout)
    collected = alone.run_once(lambda reactor: _collect(configuration, options, observer, reactor))
    if bar is not None:
        bar.clear()
    if collected is None:
        return 1
    if options.json:
        sys.stdout.write(f"{json.dumps(asdict(collected))}\n")
    else:
        grace = configuration.storage.maintenance.gc.grace
        _tell(collected, "eligible for deletion" if options.dry_run else "deleted", grace)
    return 0


async def _collect(
    configuration: Configuration, options: Namespace, observer: CollectorObserver, reactor: Any
) -> CollectionResult:
    async with open_store(configuration, reactor) as driver:
        collector = make_collector(
            configuration,
            driver,
            reactor,
            untagged=options.delete_untagged,
            dry_run=options.dry_run,
            observer=observer,
        )
        try:
            return await collector.run()
        except CollectionFailed as error:
            raise CommandFailed(str(error)) from error
        finally:
            await collector.references.close()


def _tell(collected: CollectionResult, verb: str, grace: float) -> None:
    sys.stdout.write(
        f"{collected.marked} blobs marked, {collected.blobs} blobs and {collected.manifests} "
        f"manifests {verb} ({collected.size} bytes)\n"
    )
    young = collected.young_blobs
    if young or collected.young_manifests:
        sys.stdout.write(
            f"{young} blobs and {collected.young_manifests} manifests stay for now, "
            f"younger than storage.maintenance.gc.grace, {grace:g} s\n"
        )
    if collected.leased:
        sys.stdout.write(f"{collected.leased} stay, for clients asked for them meanwhile\n")
    if collected.vacated:
        sys.stdout.write(f"{collected.vacated} empty repositories left the catalog\n")
    for name in collected.troubled:
        sys.stdout.write(f"{name}: holds a manifest that can not be read; all its blobs are kept\n")
