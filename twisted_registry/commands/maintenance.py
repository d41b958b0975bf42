"""``twisted-registry maintenance``: print the state of the periodic tasks, or run one now."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from attrs import asdict

from twisted_registry.app.maintenance import MaintenanceService
from twisted_registry.commands.configured import (
    add_actions,
    add_config_argument,
    add_json_argument,
    add_listing_arguments,
    load_store_or_exit,
)
from twisted_registry.commands.output import (
    ListPrinter,
    ProgressBar,
    format_count,
    format_size,
    format_span,
    format_time,
    json_time,
    print_error,
    print_json,
)
from twisted_registry.commands.store import make_registry, redraw, run_on_store
from twisted_registry.config.suggestion import did_you_mean
from twisted_registry.frame.errors import WrongUsage

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterable, Mapping

    from twisted_registry.config.loading import LoadedConfiguration
    from twisted_registry.config.schema import Configuration
    from twisted_registry.maintenance.lease import TaskRun
    from twisted_registry.storage.interfaces import IStorageDriver

#: What the numbers of results count, by task, or for all tasks.
_WORDS: Mapping[tuple[str, str], tuple[str, str]] = {
    ("", "repositories"): ("repository", "repositories"),
    ("", "failed"): ("failure", "failures"),
    ("uploadpurging", "found"): ("abandoned upload", "abandoned uploads"),
    ("uploadpurging", "removed"): ("deleted", "deleted"),
    ("uploadpurging", "leftovers"): ("file of a crash deleted", "files of crashes deleted"),
    ("gc", "marked"): ("blob in use", "blobs in use"),
    ("gc", "manifests"): ("manifest deleted", "manifests deleted"),
    ("gc", "blobs"): ("blob deleted", "blobs deleted"),
    ("gc", "leased"): ("kept for a client", "kept for clients"),
    ("gc", "troubled"): ("repository is unreadable", "repositories are unreadable"),
    ("gc", "vacated"): ("empty repository removed", "empty repositories removed"),
    ("gc", "young_manifests"): ("manifest is too young", "manifests are too young"),
    ("gc", "young_blobs"): ("blob is too young", "blobs are too young"),
    ("trash", "removed"): ("item deleted for good", "items deleted for good"),
    ("trash", "back"): ("restored, because it is needed", "restored, because they are needed"),
    ("retention", "tags"): ("tag with a rule", "tags with a rule"),
    ("retention", "kept"): ("kept", "kept"),
    ("retention", "expired"): ("deleted", "deleted"),
    ("scrub", "files"): ("file read", "files read"),
    ("scrub", "damaged"): ("damaged", "damaged"),
    ("scrub", "quarantined"): ("quarantined", "quarantined"),
    ("scrub", "tags"): ("tag needs them", "tags need them"),
    ("tokenpurging", "found"): ("token", "tokens"),
    ("tokenpurging", "removed"): ("expired, deleted", "expired, deleted"),
}
#: Lists whose length another number is.
_REPEATED = frozenset({"affected"})
#: The exit status if the run was skipped because another process runs the task.
EXIT_SKIPPED = 3

_ACTIONS = {
    "status": "print the state of the tasks in all processes",
    "run": "run one task now, even while a registry serves",
}


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of the command."""
    parsers = add_actions(parser, _ACTIONS)
    parsers["run"].add_argument(
        "task", metavar="TASK", help="the name of the task, as status prints it"
    )
    for name, action in parsers.items():
        (add_listing_arguments if name == "status" else add_json_argument)(action)
        add_config_argument(action)


def run(options: Namespace) -> int:
    """Print the state of the tasks, or run one.

    :returns: the exit status: 1 if it failed, also in part, 3 if another process runs the task.
    """
    loaded = load_store_or_exit(options.file)
    if options.action == "status":
        return _print_status(loaded, ListPrinter.of("tasks", options))
    return _run_task(loaded, options.task, as_json=options.json)


def _print_status(loaded: LoadedConfiguration, printer: ListPrinter) -> int:
    tasks = run_on_store(
        loaded,
        lambda driver, reactor: _make_service(loaded.configuration, driver, reactor).status(),
    )
    with printer:
        for task in tasks:
            printer.print_item(_task_data(task), "\n".join(_task_lines(task)))
    return 0


def _run_task(loaded: LoadedConfiguration, name: str, *, as_json: bool) -> int:
    async def run_task(driver: IStorageDriver, reactor: Any) -> TaskRun:
        service = _make_service(loaded.configuration, driver, reactor)
        try:
            task = service.task(name)
        except KeyError as error:
            known = [task.name for task in service]
            hint = did_you_mean(name, known) or f"; known tasks are {', '.join(known)}"
            raise WrongUsage(f"{name}: no such task{hint}") from error
        began = reactor.seconds()

        def draw() -> None:
            took = format_span(round(reactor.seconds() - began))
            partial = service.partial_result
            did = "" if partial is None else f", {format_result(name, asdict(partial))}"
            bar.show_line(f"{name}: runs for {took}{did}")

        try:
            with redraw(draw, reactor):
                return await task.run()
        finally:
            # The service was not started. This cancels the run, and closes what it opened.
            await service.stopService()

    with ProgressBar.on(sys.stderr) as bar:
        run = run_on_store(loaded, run_task)
    record = run.as_dict()
    if as_json:
        print_json({"task": name, "skipped": run.skipped, **_run_data(record)})
    elif run.skipped:
        print_error(f"{name}: {run.skipped}")
    elif not run.failure:
        did = format_result(name, record["result"])
        sys.stdout.write(f"{name}: {did}; took {format_span(run.seconds)}\n")
    if run.failure:
        print_error(f"{name} failed: {run.failure}")
    failed_items = getattr(run.result, "failed", 0)
    if failed_items:
        failures = format_count(failed_items, "item")
        print_error(f"{name}: {failures} failed; the lines above have the reason")
    return 1 if run.failure or failed_items else EXIT_SKIPPED if run.skipped else 0


def _make_service(
    configuration: Configuration, driver: IStorageDriver, reactor: Any
) -> MaintenanceService:
    registry = make_registry(configuration, driver, reactor)
    return MaintenanceService(registry, driver, configuration, reactor)


def _task_data(task: dict[str, Any]) -> dict[str, Any]:
    """Return the state of a task for JSON."""
    last = task["last"]
    return {
        **task,
        "next": json_time(task["next"]),
        "last": None if last is None else _run_data(last),
    }


def _run_data(run: dict[str, Any]) -> dict[str, Any]:
    return {**run, "began": format_time(run["began"])}


def _task_lines(task: dict[str, Any]) -> Iterable[str]:
    name = task["name"]
    schedule = f"every {format_span(task['interval'])}" if task["enabled"] else "not enabled"
    yield f"{name}: {schedule}"
    if task["running"]:
        host, pid, *_ = task["running"].split(" ")
        yield f"  running: process {pid} on {host}"
    last = task["last"]
    if last is None:
        yield "  never ran"
        return
    host, _, pid = last["by"].rpartition(" ")
    did = f"failed: {last['failure']}" if last["failure"] else format_result(name, last["result"])
    yield (
        f"  last: {format_time(last['began'])}, took {format_span(last['seconds'])},"
        f" process {pid} on {host}: {did}"
    )


def format_result(task: str, result: object) -> str:
    """Return what a run of a task did, in words.

    :param result: plain JSON values, by the names of the attributes of the result.
    """
    if not isinstance(result, dict):
        return "done" if result is None else str(result)
    parts = list(_result_parts(task, result))
    return ", ".join(parts) or "nothing to do"


def _result_parts(task: str, result: dict[str, Any]) -> Iterable[str]:
    """Yield what is not zero."""
    for name, value in result.items():
        number = len(value) if isinstance(value, list) else value
        if not number or name in _REPEATED:
            continue
        if isinstance(number, dict):
            yield from (f"{area}: {format_size(used)}" for area, used in number.items())
        elif name == "size":
            yield format_size(number)
        else:
            one, many = _WORDS.get((task, name)) or _WORDS.get(("", name)) or (name, name)
            yield format_count(number, one, many)
