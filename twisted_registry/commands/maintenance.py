"""``twisted-registry maintenance``: print the state of the periodic tasks, or run one now."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from twisted_registry.app.errors import WrongUsage
from twisted_registry.app.maintenance import MaintenanceService
from twisted_registry.commands.configured import (
    add_actions,
    add_config_argument,
    add_json_argument,
    load_store_or_exit,
)
from twisted_registry.commands.output import format_time, print_error, print_json
from twisted_registry.commands.store import make_registry, run_on_store
from twisted_registry.config.suggestion import did_you_mean

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterable

    from twisted_registry.config.schema import Configuration
    from twisted_registry.maintenance.lease import TaskRun
    from twisted_registry.storage.interfaces import IStorageDriver

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
    for action in parsers.values():
        add_json_argument(action)
        add_config_argument(action)


def run(options: Namespace) -> int:
    """Print the state of the tasks, or run one.

    :returns: the exit status: 1 if it failed, also in part, 3 if another process runs the task.
    """
    configuration = load_store_or_exit(options.file)
    if options.action == "status":
        return _print_status(configuration, as_json=options.json)
    return _run_task(configuration, options.task, as_json=options.json)


def _print_status(configuration: Configuration, *, as_json: bool) -> int:
    tasks = run_on_store(
        configuration,
        lambda driver, reactor: _make_service(configuration, driver, reactor).status(),
    )
    if as_json:
        print_json(tasks)
    else:
        sys.stdout.writelines(f"{line}\n" for task in tasks for line in _task_lines(task))
    return 0


def _run_task(configuration: Configuration, name: str, *, as_json: bool) -> int:
    async def run_task(driver: IStorageDriver, reactor: Any) -> TaskRun:
        service = _make_service(configuration, driver, reactor)
        try:
            task = service.task(name)
        except KeyError as error:
            known = [task.name for task in service]
            hint = did_you_mean(name, known) or f"; known tasks are {', '.join(known)}"
            raise WrongUsage(f"{name}: no such task{hint}") from error
        try:
            return await task.run()
        finally:
            # The service was not started. This cancels the run, and closes what it opened.
            await service.stopService()

    run = run_on_store(configuration, run_task)
    record = run.as_dict()
    if as_json:
        print_json({"task": name, "passed_over": run.skipped, **record})
    elif run.skipped:
        print_error(f"{name}: {run.skipped}")
    elif not run.failure:
        sys.stdout.write(f"{name}: {_format_result(record['result'])} in {run.seconds:.1f} s\n")
    if run.failure:
        print_error(f"{name} failed: {run.failure}")
    failed_items = getattr(run.result, "failed", 0)
    if failed_items:
        print_error(f"{name}: {failed_items} items failed; the lines above have the reason")
    return 1 if run.failure or failed_items else EXIT_SKIPPED if run.skipped else 0


def _make_service(
    configuration: Configuration, driver: IStorageDriver, reactor: Any
) -> MaintenanceService:
    registry = make_registry(configuration, driver, reactor)
    return MaintenanceService(registry, driver, configuration, reactor)


def _task_lines(task: dict[str, Any]) -> Iterable[str]:
    schedule = f"every {task['interval']:g} s" if task["enabled"] else "not enabled"
    yield f"{task['name']}: {schedule}"
    if task["running"]:
        yield f"  running: {task['running']}"
    last = task["last"]
    if last is None:
        yield "  never ran"
        return
    result = f"failed: {last['failure']}" if last["failure"] else _format_result(last["result"])
    began = format_time(last["began"])
    yield f"  last: {began}, {last['seconds']:.1f} s, by {last['by']}: {result}"


def _format_result(result: object) -> str:
    if isinstance(result, dict):
        return ", ".join(f"{name} {value}" for name, value in result.items())
    return "done" if result is None else str(result)
