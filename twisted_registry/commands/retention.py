"""``twisted-registry retention``: goes by the rules once, and prints what became of which tag."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from attrs import asdict, define, field

from twisted_registry.app import standalone
from twisted_registry.app.errors import CommandFailed
from twisted_registry.app.maintenance import make_retention
from twisted_registry.commands.configured import add_config_argument, load_or_exit, print_error
from twisted_registry.commands.output import format_table
from twisted_registry.commands.store import is_in_memory, make_registry, open_store
from twisted_registry.maintenance.lease import RunSkipped, TaskLease

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from twisted_registry.config.schema import Configuration
    from twisted_registry.maintenance.retention import Decision, RetentionResult


@define(eq=False)
class _VerdictCollector:
    """Collects what is printed."""

    everything: bool
    found: list[Decision] = field(factory=list)

    def __call__(self, decision: Decision) -> None:
        if self.everything or not decision.kept:
            self.found.append(decision)


def arguments(parser: ArgumentParser) -> None:
    """Add what it takes."""
    for flags, text in (
        (("-d", "--dry-run"), "only say what would go"),
        (("-a", "--all"), "also print the tags that stay, and why"),
        (("--json",), "print one JSON document"),
    ):
        parser.add_argument(*flags, action="store_true", help=text)
    add_config_argument(parser)


def run(options: Namespace) -> int:
    """Go by the rules, and print what became of the tags.

    :returns: the exit status: 1 if it failed, or something could not be dealt with.
    """
    configuration = load_or_exit(options.file).configuration
    if is_in_memory(configuration):
        print_error("storage.inmemory: the process that serves it does its own maintenance")
        return 1
    if not configuration.storage.maintenance.retention.rules:
        print_error("storage.maintenance.retention: there are no rules")
        return 1
    decisions = _VerdictCollector(options.all)
    retained = standalone.run_once(
        lambda reactor: _retain(configuration, options, decisions, reactor)
    )
    if retained is None:
        return 1
    if options.json:
        told = {**asdict(retained), "verdicts": [_plain(decision) for decision in decisions.found]}
        sys.stdout.write(f"{json.dumps(told)}\n")
    else:
        _tell(retained, decisions.found, dry_run=options.dry_run)
    return 1 if retained.failed else 0


async def _retain(
    configuration: Configuration, options: Namespace, decisions: _VerdictCollector, reactor: Any
) -> RetentionResult:
    async with open_store(configuration, reactor) as driver:
        made = make_retention(
            configuration,
            make_registry(configuration, driver, reactor),
            driver,
            dry_run=options.dry_run,
            on_decision=decisions,
        )
        if options.dry_run:
            return await made.run()
        done: list[RetentionResult] = []

        async def work() -> object:
            done.append(await made.run())
            return done[0]

        try:
            await TaskLease(driver, "retention", reactor, 0).run_exclusively(work, scheduled=False)
        except RunSkipped as error:
            raise CommandFailed(str(error)) from error
        return done[0]


def _plain(decision: Decision) -> dict[str, object]:
    tag = decision.tag
    return {
        "repository": decision.repository,
        "tag": tag.name,
        "digest": str(tag.digest),
        "pushed": tag.pushed,
        "pulled": tag.pulled,
        "kept": bool(decision.kept),
        "reason": decision.kept,
    }


def _tell(retained: RetentionResult, decisions: list[Decision], *, dry_run: bool) -> None:
    rows = [
        (
            " " if decision.kept else "-",
            f"{decision.repository}:{decision.tag.name}",
            _day(decision.tag.pushed),
            _day(decision.tag.pulled),
            decision.kept,
        )
        for decision in decisions
    ]
    if rows:
        sys.stdout.write(format_table((("", "TAG", "PUSHED", "PULLED", "KEPT"), *rows)))
    verb = "would go" if dry_run else "went"
    sys.stdout.write(
        f"{retained.expired} of {retained.tags} tags {verb},"
        f" in {retained.repositories} repositories\n"
    )
    if retained.failed:
        sys.stdout.write(f"{retained.failed} could not be dealt with; the log says why\n")


def _day(second: float | None) -> str:
    return "" if second is None else datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%d %H:%M")
