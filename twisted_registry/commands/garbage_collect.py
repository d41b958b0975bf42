"""``twisted-registry garbage-collect``: one collection as a command of its own.

It takes the flags of Distribution's and prints its lines, but may run beside a registry that
serves: it is the collector of the registry itself.

``garbage-collect --explain``: prints what keeps a blob or manifest, or when it goes.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

from attrs import asdict, define, field

from twisted_registry.app import standalone
from twisted_registry.app.collector import make_collector, make_explainer
from twisted_registry.app.errors import CommandFailed
from twisted_registry.commands.configured import add_config_argument, load_or_exit, print_error
from twisted_registry.commands.output import BAR_WIDTH, ProgressBar
from twisted_registry.commands.store import is_in_memory, open_store
from twisted_registry.gc.explain import describe_holder
from twisted_registry.gc.mark import CollectionFailed, CollectorObserver
from twisted_registry.oci.digest import Digest, DigestInvalid

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterable, Sequence

    from twisted_registry.config.schema import Configuration
    from twisted_registry.gc.collector import CollectionResult
    from twisted_registry.gc.explain import Explanation, Holder

#: Manifests that are printed of each kind; JSON has all.
_MAX_PRINTED = 20


def explain(configuration: Configuration, text: str, *, untagged: bool, as_json: bool) -> int:
    """Print why a digest stays.

    :param untagged: whether manifests that no tag holds go as well.
    :returns: the exit status: 1 if the store has no such content, or can not be looked through.
    """
    try:
        digest = Digest.parse(text)
    except DigestInvalid as error:
        print_error(f"--explain: {error}")
        return 2

    async def look(reactor: Any) -> Explanation:
        async with open_store(configuration, reactor) as driver:
            made = make_explainer(configuration, driver, reactor, untagged=untagged)
            try:
                return await made.explain(digest)
            except CollectionFailed as error:
                raise CommandFailed(str(error)) from error
            finally:
                await made.mark_phase.references.close()

    found = standalone.run_once(look)
    if found is None:
        return 1
    if as_json:
        sys.stdout.write(f"{json.dumps(_plain(found), default=str)}\n")
    else:
        sys.stdout.writelines(f"{line}\n" for line in _lines(found, datetime.now(UTC)))
    return 1 if found.size is None else 0


def _plain(found: Explanation) -> dict[str, object]:
    # Not in depth: a digest is a text here.
    holders = [asdict(holder, recurse=False) for holder in found.holders]
    return {**asdict(found, recurse=False), "holders": holders, "kept": found.kept}


def _lines(found: Explanation, now: datetime) -> Iterable[str]:
    if found.size is None:
        yield f"{found.digest}: not stored"
    else:
        yield f"{found.digest}: {found.size} bytes, stored {_time(found.stored)}"
    yield from _holders([holder for holder in found.holders if holder.holds], "kept")
    yield from _holders(
        [holder for holder in found.holders if not holder.holds], "not kept: untagged, and old"
    )
    for name in found.troubled:
        yield f"  kept: {name} links it, and holds a manifest that can not be read"
    if found.listed:
        yield f"  a collector is at work on it: {found.listed}"
    if found.leased:
        yield "  it stays for now, for a client asked for it meanwhile"
    if found.goes is not None:
        over = found.goes <= now.timestamp()
        when = "now that" if over else "after"
        yield (
            f"it goes with the next collection, {when} its grace period"
            f" {'is over' if over else 'ends, ' + _time(found.goes)}"
        )


def _holders(holders: list[Holder], how: str) -> Iterable[str]:
    # Those with a tag first: that is what people look for.
    ordered = sorted(holders, key=lambda holder: not holder.tags)
    for holder in ordered[:_MAX_PRINTED]:
        reasons = list(describe_holder(holder))
        if holder.young_until is not None:
            reasons.append(f"young until {_time(holder.young_until)}")
        why = "; ".join(reasons) or "untagged"
        yield f"  {how}: {holder.repository}@{holder.manifest}: {why}"
    if len(ordered) > _MAX_PRINTED:
        yield f"  {how}: {len(ordered) - _MAX_PRINTED} more"


def _time(second: float | None) -> str:
    if second is None:
        return "at an unknown time"
    return datetime.fromtimestamp(second, UTC).isoformat(" ", "seconds")


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
    collected = standalone.run_once(
        lambda reactor: _collect(configuration, options, observer, reactor)
    )
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
