"""``twisted-registry maintenance``: how the tasks of a store are, and one run of one of them."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from twisted_registry.app import standalone
from twisted_registry.app.errors import CommandFailed
from twisted_registry.app.maintenance import MaintenanceService
from twisted_registry.commands.configured import add_config_argument, load_or_exit, print_error
from twisted_registry.commands.store import is_in_memory, make_registry, open_store

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterable, Sequence

    from twisted_registry.config.schema import Configuration
    from twisted_registry.maintenance.lease import TaskRun
    from twisted_registry.storage.interfaces import IStorageDriver

#: Exit status of a run that was passed over, because another process does the same.
EXIT_SKIPPED = 3


def arguments(parser: ArgumentParser) -> None:
    """Add what it takes."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    status = actions.add_parser("status", help="how the tasks are, wherever they run")
    run_one = actions.add_parser("run", help="run one task now, also beside a registry that serves")
    run_one.add_argument("task", metavar="TASK", help="its name, as status prints it")
    for action in (status, run_one):
        action.add_argument("--json", action="store_true", help="print one JSON document")
        add_config_argument(action)


def run(options: Namespace) -> int:
    """Print how the tasks are, or run one.

    :returns: the exit status: 1 if it failed, 3 if another process runs that task.
    """
    configuration = load_or_exit(options.file).configuration
    if is_in_memory(configuration):
        print_error("storage.inmemory: the process that serves it does its own maintenance")
        return 1
    if options.action == "status":
        return _status(configuration, options)
    return _run(configuration, options)


def _status(configuration: Configuration, options: Namespace) -> int:
    async def look(reactor: Any) -> Sequence[dict[str, Any]]:
        async with open_store(configuration, reactor) as driver:
            return await _upkeep(configuration, driver, reactor).status()

    found = standalone.run_once(look)
    if found is None:
        return 1
    if options.json:
        sys.stdout.write(f"{json.dumps(found)}\n")
    else:
        sys.stdout.writelines(f"{line}\n" for task in found for line in _lines(task))
    return 0


def _run(configuration: Configuration, options: Namespace) -> int:
    async def work(reactor: Any) -> TaskRun:
        async with open_store(configuration, reactor) as driver:
            maintenance_service = _upkeep(configuration, driver, reactor)
            if options.task not in maintenance_service.chores:
                known = ", ".join(maintenance_service.chores)
                raise CommandFailed(f"there is no task {options.task}; known are {known}")
            try:
                return await maintenance_service.task(options.task).run()
            finally:
                # It was not started: this ends what is under way, and closes what was opened.
                await maintenance_service.stopService()

    run = standalone.run_once(work)
    if run is None:
        return 1
    shown = run.as_dict()
    if options.json:
        told = {"task": options.task, "passed_over": run.skipped, **shown}
        sys.stdout.write(f"{json.dumps(told)}\n")
    elif run.skipped:
        print_error(f"{options.task}: {run.skipped}")
    elif not run.failure:
        sys.stdout.write(f"{options.task}: {_result(shown['result'])} in {run.seconds:.1f} s\n")
    if run.failure:
        print_error(f"{options.task} failed: {run.failure}")
    return 1 if run.failure else EXIT_SKIPPED if run.skipped else 0


def _upkeep(
    configuration: Configuration, driver: IStorageDriver, reactor: Any
) -> MaintenanceService:
    registry = make_registry(configuration, driver, reactor)
    return MaintenanceService(registry, driver, configuration, reactor)


def _lines(task: dict[str, Any]) -> Iterable[str]:
    plan = f"every {task['interval']:g} s" if task["enabled"] else "not enabled"
    yield f"{task['name']}: {plan}"
    if task["running"]:
        yield f"  running: {task['running']}"
    last = task["last"]
    if last is None:
        yield "  never ran"
        return
    began = datetime.fromtimestamp(last["began"], UTC).isoformat(" ", "seconds")
    how = f"failed: {last['failure']}" if last["failure"] else _result(last["result"])
    yield f"  last: {began}, {last['seconds']:.1f} s, by {last['by']}: {how}"


def _result(result: object) -> str:
    if isinstance(result, dict):
        return ", ".join(f"{name} {value}" for name, value in result.items())
    return "done" if result is None else str(result)
