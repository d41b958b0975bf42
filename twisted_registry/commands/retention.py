"""``twisted-registry retention``: apply the retention rules once, and print the decisions."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, cast

from attrs import asdict

from twisted_registry.app.maintenance import make_retention
from twisted_registry.commands.configured import (
    add_config_argument,
    add_listing_arguments,
    load_store_or_exit,
)
from twisted_registry.commands.output import (
    format_count,
    format_table,
    format_time,
    json_time,
    print_json,
)
from twisted_registry.commands.store import make_registry, run_on_store
from twisted_registry.frame.errors import CommandFailed
from twisted_registry.maintenance.lease import TaskLease, TaskRun

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from twisted_registry.maintenance.retention import Decision, RetentionResult
    from twisted_registry.storage.interfaces import IStorageDriver


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of the command."""
    for flags, text in (
        (("-d", "--dry-run"), "only print what would be deleted"),
        (("-a", "--all"), "also print the tags that are kept, and why"),
    ):
        parser.add_argument(*flags, action="store_true", help=text)
    add_listing_arguments(parser)
    add_config_argument(parser)


def run(options: Namespace) -> int:
    """Apply the rules, and print the decisions.

    :returns: the exit status: 1 if it failed, or if a tag could not be processed.
    """
    loaded = load_store_or_exit(options.file)
    configuration = loaded.configuration
    if not configuration.storage.maintenance.retention.rules:
        raise CommandFailed(f"{loaded.origin}: storage.maintenance.retention: there are no rules")
    decisions: list[Decision] = []

    def on_decision(decision: Decision) -> None:
        if options.all or not decision.kept:
            decisions.append(decision)

    async def apply_rules(driver: IStorageDriver, reactor: Any) -> RetentionResult:
        registry = make_registry(configuration, driver, reactor)
        retention = make_retention(
            configuration, registry, driver, dry_run=options.dry_run, on_decision=on_decision
        )
        if options.dry_run:
            return await retention.run()
        lease, began = TaskLease(driver, "retention", reactor, 0), reactor.seconds()
        result = await lease.run_exclusively(retention.run, scheduled=False)
        await lease.record_run(TaskRun.ended(began, reactor.seconds(), result))
        return cast("RetentionResult", result)

    result = run_on_store(loaded, apply_rules)
    if options.json_lines:
        for item in decisions:
            print_json(_decision_data(item))
    elif options.json:
        print_json({**asdict(result), "verdicts": [_decision_data(item) for item in decisions]})
    else:
        _print_result(result, decisions, dry_run=options.dry_run)
    return 1 if result.failed else 0


def _decision_data(decision: Decision) -> dict[str, object]:
    tag = decision.tag
    return {
        "repository": decision.repository,
        "tag": tag.name,
        "digest": str(tag.digest),
        "pushed": json_time(tag.pushed),
        "pulled": json_time(tag.pulled),
        "kept": bool(decision.kept),
        "reason": decision.kept,
    }


def _print_result(result: RetentionResult, decisions: list[Decision], *, dry_run: bool) -> None:
    rows = [
        (
            " " if decision.kept else "-",
            f"{decision.repository}:{decision.tag.name}",
            _format_optional_time(decision.tag.pushed),
            _format_optional_time(decision.tag.pulled),
            decision.kept,
        )
        for decision in decisions
    ]
    if rows:
        sys.stdout.write(format_table((("", "TAG", "PUSHED", "PULLED", "KEPT"), *rows)))
    verb = "would be deleted" if dry_run else "deleted"
    tags = format_count(result.tags, "tag")
    repositories = format_count(result.repositories, "repository", "repositories")
    sys.stdout.write(f"{result.expired} of {tags} {verb} in {repositories}\n")
    if result.failed:
        failed = format_count(result.failed, "tag")
        sys.stdout.write(f"{failed} could not be processed; see the log\n")


def _format_optional_time(seconds: float | None) -> str:
    return "" if seconds is None else format_time(seconds)
