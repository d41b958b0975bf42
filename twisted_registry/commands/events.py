"""``twisted-registry events``: the events that wait to be sent, and those that were refused."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from typing import TYPE_CHECKING

from twisted_registry.app.notifications import queue_path
from twisted_registry.commands.audit import audited
from twisted_registry.commands.configured import (
    add_actions,
    add_config_argument,
    add_json_argument,
    add_listing_arguments,
    load_or_exit,
)
from twisted_registry.commands.output import (
    ListPrinter,
    format_count,
    print_error,
    print_json,
)
from twisted_registry.frame.errors import CommandFailed, WrongUsage
from twisted_registry.notifications.queue import IN_MEMORY, EventQueue, QueueDamaged

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable, Mapping, Sequence

    from twisted_registry.config.loading import LoadedConfiguration
    from twisted_registry.notifications.queue import QueuedEvent

#: Events that are read at once.
_PAGE_EVENTS = 1000


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of the command."""
    parsers = add_actions(parser, {name: text for name, (text, _) in _ACTIONS.items()})
    for name, action in parsers.items():
        if name == "list":
            action.add_argument(
                "--refused", action="store_true", help="only events that were refused"
            )
            add_listing_arguments(action)
        else:
            action.add_argument("--all", action="store_true", help="all refused events")
            action.add_argument(
                "--event",
                metavar="NUMBER",
                type=int,
                action="append",
                help="the number of a refused event, as list prints it; may be repeated",
            )
            add_json_argument(action)
        add_config_argument(action)


def run(options: Namespace) -> int:
    """List, replay or discard events.

    A list of a registry that has had no events is empty.

    :returns: the exit status: 1 if it failed, or if there is no refused event of a number.
    """
    if options.action != "list" and options.all == (options.event is not None):
        raise WrongUsage(f"events {options.action}: exactly one of --all and --event is required")
    loaded = load_or_exit(options.file)
    configuration = loaded.configuration
    # A registry that was started read-only has no file; one that became read-only has.
    path = queue_path(configuration, read_only=False)
    if path == IN_MEMORY:
        raise CommandFailed(
            f"{loaded.origin}: notifications.queue.path: not set: events are in the memory of the"
            " registry"
        )
    _, action = _ACTIONS[options.action]
    queue = EventQueue(path, configuration.notifications.queue.maxevents, must_exist=True)
    try:
        with closing(queue):
            return action(options, loaded, queue)
    except FileNotFoundError as error:
        reason = f"{path}: no such file: the registry has had no events"
        if options.action != "list":
            raise CommandFailed(reason) from error
        with ListPrinter.of("events", options):
            print_error(reason)
        return 0
    except OSError as error:
        raise CommandFailed(f"{path}: {error.strerror}") from error
    except QueueDamaged as error:
        raise CommandFailed(str(error)) from error
    except sqlite3.Error as error:
        raise CommandFailed(f"{path}: {error}") from error


def _list(options: Namespace, _: LoadedConfiguration, queue: EventQueue) -> int:
    last = 0
    with ListPrinter.of("events", options) as printer:
        while events := queue.list_events(
            refused_only=options.refused, after=last, limit=_PAGE_EVENTS
        ):
            for event in events:
                data = {
                    "number": event.number,
                    "endpoint": event.endpoint,
                    "refusal": event.refusal,
                    "event": event.record,
                }
                printer.print_item(data, _line(event))
            last = events[-1].number
    return 0


def _line(event: QueuedEvent) -> str:
    record = event.record
    target = record["target"]
    name = target["repository"]
    if target.get("tag"):
        name += f":{target['tag']}"
    if target.get("digest"):
        name += f"@{target['digest']}"
    state = "waits" if event.refusal is None else f"refused: {event.refusal}"
    action = f"{record['action']} {record['kind']}"
    return f"{event.number}  {record['timestamp']}  {event.endpoint}  {action}  {name}  {state}"


def _replay(options: Namespace, loaded: LoadedConfiguration, queue: EventQueue) -> int:
    return _change(options, loaded, queue.replay, "replayed", "will be sent again")


def _discard(options: Namespace, loaded: LoadedConfiguration, queue: EventQueue) -> int:
    return _change(options, loaded, queue.discard, "discarded", "deleted")


def _change(
    options: Namespace,
    loaded: LoadedConfiguration,
    change: Callable[[Sequence[int] | None], int],
    key: str,
    what: str,
) -> int:
    numbers = options.event
    target = "all" if numbers is None else ", ".join(map(str, numbers))
    with audited(loaded, f"events.{options.action}", target=target) as entry:
        count = change(numbers)
        entry.note(events=count)
    missing = 0 if numbers is None else len(set(numbers)) - count
    if options.json:
        print_json({key: count, "missing": missing})
    else:
        sys.stdout.write(f"{format_count(count, 'event')} {what}\n")
    if missing:
        print_error(f"{missing} of the numbers name no refused event; see events list --refused")
    return 1 if missing else 0


_ACTIONS: Mapping[str, tuple[str, Callable[[Namespace, LoadedConfiguration, EventQueue], int]]] = {
    "list": ("list the events that wait, and those that endpoints have refused", _list),
    "replay": ("send refused events again", _replay),
    "discard": ("delete refused events", _discard),
}
