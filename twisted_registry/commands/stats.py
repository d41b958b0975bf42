"""``twisted-registry stats``: what each repository uses, and what the whole store contains.

The command only reads the store, and can run while a registry serves it.
"""

from __future__ import annotations

import sys
from argparse import ArgumentTypeError
from typing import TYPE_CHECKING, Any

from attrs import asdict, define, field

from twisted_registry.app.collector import make_statistics
from twisted_registry.commands.configured import (
    add_config_argument,
    add_listing_arguments,
    load_store_or_exit,
)
from twisted_registry.commands.output import (
    BAR_WIDTH,
    ProgressBar,
    format_count,
    format_size,
    format_table,
    format_time,
    json_time,
    print_json,
)
from twisted_registry.commands.stats_watch import Watch
from twisted_registry.commands.store import run_on_store
from twisted_registry.config.values import parse_duration
from twisted_registry.frame.errors import WrongUsage
from twisted_registry.oci.patterns import GLOB_SYNTAX, GlobInvalid, GlobSet
from twisted_registry.statistics.store import GROWTH_DAYS, SortKey, StatisticsObserver

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterable

    from twisted_registry.config.loading import LoadedConfiguration
    from twisted_registry.statistics.store import (
        FileTotal,
        Growth,
        RepositoryStatistics,
        StoreTotals,
    )
    from twisted_registry.storage.interfaces import IStorageDriver

_HEADINGS = ("REPOSITORY", "LOGICAL", "UNIQUE", "SHARED", "TAGS", "MANIFESTS", "PUSHED", "PULLED")
_DEFAULT_INTERVAL_S = 5.0
_MIN_INTERVAL_S = 0.1
#: Characters of a time that are its date.
_DATE_LENGTH = len("2026-01-31")


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "--repository",
        metavar="PATTERN",
        action="append",
        help="only list repositories that match a pattern such as team/** or !team/secret; may be"
        " repeated",
    )
    parser.add_argument(
        "--sort",
        choices=[key.value for key in SortKey],
        default=SortKey.LOGICAL.value,
        help="the order: largest or latest first, or by name; the default is logical",
    )
    parser.add_argument(
        "--top", metavar="NUMBER", type=_parse_top, help="list at most so many repositories"
    )
    parser.add_argument(
        "--watch",
        action="store_true",
        help="print requests, bytes and uploads of the running registry as well, again and again,"
        " from the metrics at http.debug.addr",
    )
    parser.add_argument(
        "--interval",
        metavar="DURATION",
        type=_parse_interval,
        help="how often --watch prints, such as 2s; the default is 5s",
    )
    add_listing_arguments(parser)
    add_config_argument(parser)


def run(options: Namespace) -> int:
    """Print the statistics.

    :returns: the exit status.
    """
    _check_watch(options)
    names = None if options.repository is None else _parse_patterns(options.repository)
    loaded = load_store_or_exit(options.file)
    if options.watch:
        run_on_store(
            loaded, lambda driver, reactor: _watch(loaded, names, options, driver, reactor)
        )
        return 0
    with ProgressBar.on(sys.stderr) as bar:
        report = run_on_store(
            loaded, lambda driver, reactor: _gather(names, options, bar, driver, reactor)
        )
    if options.json_lines:
        for item in report.repositories:
            print_json(_repository_data(item))
    elif options.json:
        print_json(report.as_json())
    else:
        sys.stdout.write(report.as_text())
    return 0


def _check_watch(options: Namespace) -> None:
    if options.interval is not None and not options.watch:
        raise WrongUsage("--interval needs --watch")
    if options.watch and (options.json or options.json_lines):
        raise WrongUsage("--watch prints text; leave --json out")


async def _gather(
    names: GlobSet | None,
    options: Namespace,
    bar: ProgressBar,
    driver: IStorageDriver,
    reactor: Any,
) -> _Report:
    statistics = make_statistics(driver, reactor, names, StatisticsProgress(bar))
    try:
        totals = await statistics.run()
        pages = statistics.list_repositories(SortKey(options.sort), options.top)
        return _Report(totals, [item async for page in pages for item in page])
    finally:
        await statistics.close()


async def _watch(
    loaded: LoadedConfiguration,
    names: GlobSet | None,
    options: Namespace,
    driver: IStorageDriver,
    reactor: Any,
) -> None:
    async def describe_store() -> str:
        return (await _gather(names, options, ProgressBar(), driver, reactor)).as_text()

    interval_s = _DEFAULT_INTERVAL_S if options.interval is None else options.interval
    await Watch(loaded.configuration, sys.stdout, reactor, describe_store, interval_s).run()


@define(eq=False)
class StatisticsProgress(StatisticsObserver):
    """Shows the progress: blobs listed, then repositories read."""

    bar: ProgressBar
    _repositories: int = field(init=False, default=0)

    def blobs_counted(self, blobs: FileTotal) -> None:
        """Show the blobs that were listed so far."""
        self.bar.show_line(
            f"listing: {format_count(blobs.count, 'blob')}, {format_size(blobs.bytes)}"
        )

    def repository_started(self, name: str) -> None:
        """Show the repository that is being read."""
        self._repositories += 1
        count = format_count(self._repositories, "repository", "repositories")
        self.bar.show_line(f"reading: {count}, now {name[:BAR_WIDTH]}")


@define(eq=False)
class _Report:
    totals: StoreTotals
    repositories: list[RepositoryStatistics]

    def as_json(self) -> dict[str, object]:
        return {
            "repositories": list(map(_repository_data, self.repositories)),
            "store": _store_data(self.totals),
        }

    def as_text(self) -> str:
        lines = ""
        if self.repositories:
            growth = [f"+{days}d" for days in GROWTH_DAYS]
            rows = map(_repository_row, self.repositories)
            lines = f"{format_table([[*_HEADINGS, *growth], *rows])}\n"
        lines += "".join(
            f"{item.name}: has an unreadable manifest; it uses more than is shown\n"
            for item in self.repositories
            if not item.is_complete
        )
        return lines + format_table(list(_total_rows(self.totals)))


def _repository_row(item: RepositoryStatistics) -> list[str]:
    sizes = (item.logical_bytes, item.unique_bytes, item.shared_bytes)
    return [
        item.name,
        *map(format_size, sizes),
        str(item.tags),
        str(item.manifests),
        _format_date(item.last_push),
        _format_date(item.last_pull),
        *(format_size(growth.bytes) for growth in item.growth),
    ]


def _total_rows(totals: StoreTotals) -> Iterable[tuple[str, str]]:
    repositories = format_count(totals.repositories, "repository", "repositories")
    tags, manifests = (
        format_count(totals.tags, "tag"),
        format_count(totals.manifests, "manifest"),
    )
    yield "store", f"{format_size(totals.bytes)}; {repositories}, {tags}, {manifests}"
    yield "blobs", _format_total(totals.blobs, "file")
    yield "unreferenced", _format_total(totals.unreferenced, "file")
    yield "uploads", _format_total(totals.uploads, "unfinished upload")
    yield "trash", f"{_format_total(totals.trash, 'file')}, with the history of tags"
    if totals.quarantine.count:
        yield "quarantine", _format_total(totals.quarantine, "file")
    growth = (
        f"{format_size(item.bytes)} in {format_count(item.days, 'day')}" for item in totals.growth
    )
    yield "stored", ", ".join(growth)
    since = totals.pulls_recorded_since
    pulls = "not recorded; a rule of storage.maintenance.retention with pulledwithin does that"
    yield "pulls", pulls if since is None else f"recorded since {format_time(since)}"


def _format_total(total: FileTotal, noun: str) -> str:
    return f"{format_size(total.bytes)} in {format_count(total.count, noun)}"


def _format_date(seconds: float | None) -> str:
    return "-" if seconds is None else format_time(seconds)[:_DATE_LENGTH]


def _repository_data(item: RepositoryStatistics) -> dict[str, object]:
    return {
        "name": item.name,
        "logical_bytes": item.logical_bytes,
        "unique_bytes": item.unique_bytes,
        "shared_bytes": item.shared_bytes,
        "tags": item.tags,
        "manifests": item.manifests,
        "last_push": json_time(item.last_push),
        "last_pull": json_time(item.last_pull),
        "growth": list(map(_growth_data, item.growth)),
        "complete": item.is_complete,
    }


def _store_data(totals: StoreTotals) -> dict[str, object]:
    return {
        **asdict(totals),
        "bytes": totals.bytes,
        "growth": list(map(_growth_data, totals.growth)),
        "pulls_recorded_since": json_time(totals.pulls_recorded_since),
    }


def _growth_data(growth: Growth) -> dict[str, int]:
    data = {"days": growth.days, "bytes": growth.bytes}
    return data if growth.manifests is None else {**data, "manifests": growth.manifests}


def _parse_top(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not int(text):
        raise ArgumentTypeError(f"invalid number {text!r}: expected 1 or more")
    return int(text)


def _parse_interval(text: str) -> float:
    try:
        seconds = parse_duration(text)
    except ValueError:
        seconds = 0.0
    if seconds < _MIN_INTERVAL_S:
        raise ArgumentTypeError(f"invalid interval {text!r}: expected a duration such as 5s")
    return seconds


def _parse_patterns(texts: list[str]) -> GlobSet:
    """Parse the patterns; if all of them exclude, everything else is included."""
    try:
        names = GlobSet.parse(texts)
        return names if names.included else GlobSet.parse(["**", *texts])
    except GlobInvalid as error:
        raise WrongUsage(f"--repository {error}: expected {GLOB_SYNTAX}") from error
