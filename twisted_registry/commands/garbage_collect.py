"""``twisted-registry garbage-collect``: run the garbage collector once, or explain a digest.

The flags and the output are those of Distribution's command. It can run while a registry serves the
store, because it uses the registry's own collector.
"""

from __future__ import annotations

import sys
from argparse import ArgumentTypeError
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

from attrs import asdict, define, evolve, field
from twisted.internet.task import deferLater

from twisted_registry.app.collector import make_collector, make_explainer
from twisted_registry.app.maintenance import longest_presence_s
from twisted_registry.commands.audit import audited
from twisted_registry.commands.configured import (
    add_config_argument,
    add_json_argument,
    load_store_or_exit,
)
from twisted_registry.commands.output import (
    BAR_WIDTH,
    ProgressBar,
    format_count,
    format_span,
    format_time,
    json_time,
    print_error,
    print_json,
)
from twisted_registry.commands.store import run_on_store
from twisted_registry.config.values import parse_duration
from twisted_registry.gc.explain import describe_holder
from twisted_registry.gc.mark import CollectorObserver
from twisted_registry.maintenance.lease import TaskLease, TaskRun
from twisted_registry.oci.digest import Digest, DigestInvalid

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterable, Sequence

    from twisted_registry.config.loading import LoadedConfiguration
    from twisted_registry.config.schema import Configuration
    from twisted_registry.gc.collector import CollectionResult, Collector
    from twisted_registry.gc.explain import Explanation, Holder
    from twisted_registry.storage.interfaces import IStorageDriver

#: Seconds that ``--wait`` waits longer than clients' requests protect content.
_LEASE_MARGIN_S = 1.0
#: The most manifests printed of each kind by ``--explain``; JSON has all.
_MAX_PRINTED = 20


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of the command."""
    for flags, text in (
        (("-d", "--dry-run"), "only print what would be deleted"),
        (("-m", "--delete-untagged"), "also delete manifests without a tag"),
        (("-q", "--quiet"), "print only the totals"),
    ):
        parser.add_argument(*flags, action="store_true", help=text)
    parser.add_argument(
        "--grace",
        metavar="DURATION",
        type=_parse_grace,
        help="keep what is younger, such as 2h or 0s; the default is storage.maintenance.gc.grace",
    )
    parser.add_argument(
        "--wait",
        action="store_true",
        help="wait for what is kept because clients asked for it, 20 minutes at most, and collect"
        " again",
    )
    add_json_argument(parser)
    parser.add_argument(
        "--explain",
        metavar="DIGEST",
        help="delete nothing; print why a blob or manifest is kept, or when it will be deleted",
    )
    add_config_argument(parser)


def run(options: Namespace) -> int:
    """Collect once and print the result, or explain a digest.

    :returns: the exit status: 1 if it failed, also in part, or if the digest is not stored; 2 for
        an invalid digest.
    """
    loaded = load_store_or_exit(options.file)
    configuration = loaded.configuration
    if options.explain is not None:
        untagged = options.delete_untagged or configuration.storage.maintenance.gc.deleteuntagged
        return _run_explain(loaded, options.explain, untagged=untagged, as_json=options.json)
    if options.dry_run:
        result = _run_collector(loaded, options)
    else:
        with audited(loaded, "garbage-collect") as entry:
            result = _run_collector(loaded, options)
            entry.note(
                manifests=result.manifests,
                blobs=result.blobs,
                bytes=result.size,
                failed=result.failed,
            )
    if options.json:
        print_json(asdict(result))
    else:
        _print_result(result, configuration, options)
    if result.failed:
        items = format_count(result.failed, "item")
        print_error(f"{items} could not be deleted; the lines above have the reason")
    return 1 if result.failed else 0


def _run_collector(loaded: LoadedConfiguration, options: Namespace) -> CollectionResult:
    with ProgressBar() if options.quiet else ProgressBar.on(sys.stderr) as bar:
        observer: CollectorObserver = CollectionProgress(bar)
        if not (options.quiet or options.json or bar.is_visible):
            observer = CollectionPrinter(sys.stdout)
        return run_on_store(
            loaded,
            lambda driver, reactor: _collect(
                loaded.configuration, options, observer, driver, reactor
            ),
        )


@define(eq=False)
class CollectionPrinter(CollectorObserver):
    """Prints the progress in the words of Distribution."""

    out: TextIO

    def repository_started(self, name: str) -> None:
        """Print a repository."""
        self._print(name)

    def manifest_kept(self, name: str, digest: Digest) -> None:
        """Print a manifest that is kept."""
        self._print(f"{name}: marking manifest {digest}")

    def eligible(self, manifests: Sequence[tuple[str, Digest]], blobs: Sequence[Digest]) -> None:
        """Print what will be deleted."""
        for name, digest in manifests:
            self._print(f"{name}: manifest eligible for deletion: {digest}")
        for digest in blobs:
            self._print(f"blob eligible for deletion: {digest}")

    def _print(self, line: str) -> None:
        self.out.write(f"{line}\n")


@define(eq=False)
class CollectionProgress(CollectorObserver):
    """Shows the progress in a bar: repositories while marking, then items deleted."""

    bar: ProgressBar
    _repositories: int = field(init=False, default=0)

    def repository_started(self, name: str) -> None:
        """Show the repository that is being marked."""
        self._repositories += 1
        count = format_count(self._repositories, "repository", "repositories")
        self.bar.show_line(f"marking: {count}, now {name[:BAR_WIDTH]}")

    def removed(self, done: int, total: int) -> None:
        """Show how many items were deleted."""
        self.bar.draw_progress("removing", done, total)
        if done == total:
            self._repositories = 0


async def _collect(
    configuration: Configuration,
    options: Namespace,
    observer: CollectorObserver,
    driver: IStorageDriver,
    reactor: Any,
) -> CollectionResult:
    collector = make_collector(
        configuration,
        driver,
        reactor,
        untagged=options.delete_untagged,
        dry_run=options.dry_run,
        grace_s=options.grace,
        observer=observer,
    )
    began = reactor.seconds()
    try:
        result = await collector.run()
        if options.wait and result.leased and not options.dry_run:
            result = await _collect_later(collector, result, configuration, reactor)
    finally:
        await collector.close()
    if not options.dry_run:
        lease = TaskLease(driver, "gc", reactor, 0)
        await lease.record_run(TaskRun.ended(began, reactor.seconds(), result))
    return result


async def _collect_later(
    collector: Collector, first: CollectionResult, configuration: Configuration, reactor: Any
) -> CollectionResult:
    """Collect again when what clients have asked for can be deleted; return what both did."""
    delay_s = longest_presence_s(configuration) + _LEASE_MARGIN_S
    print_error(
        f"{format_count(first.leased, 'item')} kept, because clients asked for them; waiting until"
        f" {format_time(reactor.seconds() + delay_s)}"
    )
    await deferLater(reactor, delay_s)
    second = await collector.run()
    return evolve(
        second,
        manifests=first.manifests + second.manifests,
        blobs=first.blobs + second.blobs,
        size=first.size + second.size,
        vacated=first.vacated + second.vacated,
    )


def _parse_grace(text: str) -> float:
    try:
        seconds = parse_duration(text)
    except ValueError:
        seconds = -1.0
    if seconds < 0:
        raise ArgumentTypeError(f"not a duration such as 2h or 0s: {text!r}")
    return seconds


def _print_result(
    result: CollectionResult, configuration: Configuration, options: Namespace
) -> None:
    verb = "eligible for deletion" if options.dry_run else "deleted"
    limit = f"--grace, {format_span(options.grace or 0)}"
    if options.grace is None:
        grace_s = configuration.storage.maintenance.gc.grace
        limit = f"storage.maintenance.gc.grace, {format_span(grace_s)}"
    sys.stdout.write(
        f"{result.marked} blobs marked, {result.blobs} blobs and {result.manifests} "
        f"manifests {verb} ({result.size} bytes)\n"
    )
    if result.young_blobs or result.young_manifests:
        blobs = format_count(result.young_blobs, "blob")
        manifests = format_count(result.young_manifests, "manifest")
        sys.stdout.write(f"{blobs} and {manifests} kept for now, younger than {limit}\n")
    if result.leased:
        end = datetime.now(UTC).timestamp() + longest_presence_s(configuration)
        them = "it" if result.leased == 1 else "them"
        sys.stdout.write(
            f"{format_count(result.leased, 'item')} kept, because clients asked for {them} lately;"
            f" can be deleted after {format_time(end)}, or earlier, unless clients ask"
            " again; --wait waits for that\n"
        )
    if result.vacated:
        repositories = format_count(result.vacated, "empty repository", "empty repositories")
        sys.stdout.write(f"{repositories} removed from the catalog\n")
    for name in result.troubled:
        sys.stdout.write(f"{name}: has an unreadable manifest; all of its blobs are kept\n")


def _run_explain(loaded: LoadedConfiguration, text: str, *, untagged: bool, as_json: bool) -> int:
    """Print why a digest is kept, or when it will be deleted.

    :param untagged: whether manifests without a tag are deleted as well.
    :returns: the exit status: 1 if it failed, or if the digest is not stored; 2 if it is invalid.
    """
    try:
        digest = Digest.parse(text)
    except DigestInvalid as error:
        print_error(f"--explain: {error}")
        return 2

    async def explain(driver: IStorageDriver, reactor: Any) -> Explanation:
        explainer = make_explainer(loaded.configuration, driver, reactor, untagged=untagged)
        try:
            return await explainer.explain(digest)
        finally:
            await explainer.close()

    explanation = run_on_store(loaded, explain)
    if as_json:
        print_json(_explanation_data(explanation), default=str)
    else:
        sys.stdout.writelines(f"{line}\n" for line in _explanation_lines(explanation))
    return 1 if explanation.size is None else 0


def _explanation_data(explanation: Explanation) -> dict[str, object]:
    # Not recursive: a digest is printed as text.
    holders = [
        {**asdict(holder, recurse=False), "young_until": json_time(holder.young_until)}
        for holder in explanation.holders
    ]
    return {
        **asdict(explanation, recurse=False),
        "stored": json_time(explanation.stored),
        "goes": json_time(explanation.goes),
        "holders": holders,
        "kept": explanation.kept,
    }


def _explanation_lines(explanation: Explanation) -> Iterable[str]:
    if explanation.size is None:
        yield f"{explanation.digest}: not stored"
    else:
        stored = explanation.stored
        when = "at an unknown time" if stored is None else format_time(stored)
        yield f"{explanation.digest}: {explanation.size} bytes, stored {when}"
    yield from _holder_lines([holder for holder in explanation.holders if holder.holds], "kept")
    yield from _holder_lines(
        [holder for holder in explanation.holders if not holder.holds],
        "not kept: untagged and past its grace period",
    )
    for name in explanation.troubled:
        yield f"  kept: {name} links it, and has an unreadable manifest that may need it"
    if explanation.listed:
        yield f"  on the list of a collector: {explanation.listed}"
    if explanation.leased:
        yield "  kept for now, because a client requested it meanwhile"
    if explanation.goes is not None:
        is_over = explanation.goes <= datetime.now(UTC).timestamp()
        end = "is over" if is_over else f"ends at {format_time(explanation.goes)}"
        yield f"deleted by the next collection after its grace period, which {end}"


def _holder_lines(holders: list[Holder], verdict: str) -> Iterable[str]:
    # Tagged manifests first.
    ordered = sorted(holders, key=lambda holder: not holder.tags)
    for holder in ordered[:_MAX_PRINTED]:
        reasons = list(describe_holder(holder))
        if holder.young_until is not None:
            reasons.append(f"young until {format_time(holder.young_until)}")
        why = "; ".join(reasons) or "untagged"
        yield f"  {verdict}: {holder.repository}@{holder.manifest}: {why}"
    if len(ordered) > _MAX_PRINTED:
        yield f"  {verdict}: {len(ordered) - _MAX_PRINTED} more"
