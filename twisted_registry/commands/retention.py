"""``twisted-registry retention``: goes by the rules once, and prints what became of which tag."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from attrs import asdict, define, field

from twisted_registry import alone
from twisted_registry.commands.configured import add_file, complain, loaded
from twisted_registry.commands.once import CommandFailed
from twisted_registry.commands.store import in_memory, opened, registry_on
from twisted_registry.commands.table import written
from twisted_registry.maintenance.turn import NotOurTurn, Turn
from twisted_registry.repository.turns import Turns
from twisted_registry.retaining import make_retention

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from twisted_registry.config.schema import Configuration
    from twisted_registry.maintenance.retention import Retained, Verdict


@define(eq=False)
class _Verdicts:
    """Collects what is printed."""

    everything: bool
    found: list[Verdict] = field(factory=list)

    def __call__(self, verdict: Verdict) -> None:
        if self.everything or not verdict.kept:
            self.found.append(verdict)


def arguments(parser: ArgumentParser) -> None:
    """Add what it takes."""
    for flags, text in (
        (("-d", "--dry-run"), "only say what would go"),
        (("-a", "--all"), "also print the tags that stay, and why"),
        (("--json",), "print one JSON document"),
    ):
        parser.add_argument(*flags, action="store_true", help=text)
    add_file(parser)


def run(options: Namespace) -> int:
    """Go by the rules, and print what became of the tags.

    :returns: the exit status: 1 if it failed, or something could not be dealt with.
    """
    configuration = loaded(options.file).configuration
    if in_memory(configuration):
        complain("storage.inmemory: the process that serves it does its own maintenance")
        return 1
    if not configuration.storage.maintenance.retention.rules:
        complain("storage.maintenance.retention: there are no rules")
        return 1
    verdicts = _Verdicts(options.all)
    retained = alone.once(lambda reactor: _retain(configuration, options, verdicts, reactor))
    if retained is None:
        return 1
    if options.json:
        told = {**asdict(retained), "verdicts": [_plain(verdict) for verdict in verdicts.found]}
        sys.stdout.write(f"{json.dumps(told)}\n")
    else:
        _tell(retained, verdicts.found, dry_run=options.dry_run)
    return 1 if retained.failed else 0


async def _retain(
    configuration: Configuration, options: Namespace, verdicts: _Verdicts, reactor: Any
) -> Retained:
    async with opened(configuration, reactor) as driver:
        made = make_retention(
            configuration,
            registry_on(configuration, driver, reactor),
            driver,
            dry_run=options.dry_run,
            watch=verdicts,
        )
        if options.dry_run:
            return await made.run()
        done: list[Retained] = []

        async def work() -> object:
            done.append(await made.run())
            return done[0]

        try:
            await Turn(Turns(driver), "retention", reactor, 0).use(work, due=False)
        except NotOurTurn as error:
            raise CommandFailed(str(error)) from error
        return done[0]


def _plain(verdict: Verdict) -> dict[str, object]:
    tag = verdict.tag
    return {
        "repository": verdict.repository,
        "tag": tag.name,
        "digest": str(tag.digest),
        "pushed": tag.pushed,
        "pulled": tag.pulled,
        "kept": bool(verdict.kept),
        "reason": verdict.kept,
    }


def _tell(retained: Retained, verdicts: list[Verdict], *, dry_run: bool) -> None:
    rows = [
        (
            " " if verdict.kept else "-",
            f"{verdict.repository}:{verdict.tag.name}",
            _day(verdict.tag.pushed),
            _day(verdict.tag.pulled),
            verdict.kept,
        )
        for verdict in verdicts
    ]
    if rows:
        sys.stdout.write(written((("", "TAG", "PUSHED", "PULLED", "KEPT"), *rows)))
    verb = "would go" if dry_run else "went"
    sys.stdout.write(
        f"{retained.expired} of {retained.tags} tags {verb},"
        f" in {retained.repositories} repositories\n"
    )
    if retained.failed:
        sys.stdout.write(f"{retained.failed} could not be dealt with; the log says why\n")


def _day(second: float | None) -> str:
    return "" if second is None else datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%d %H:%M")
