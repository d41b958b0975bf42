"""The command ``events``."""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing

import pytest

from tests.notifications.events import DIGEST, ORIGIN, record
from tests.support.processes import run, write_configuration
from twisted_registry.notifications.queue import EventQueue
from twisted_registry.repository.interfaces import Event

CONFIGURATION = """\
version: 0.1
storage: {{filesystem: {{rootdirectory: {root}}}}}
notifications:
  endpoints: [{{name: hook, url: "http://127.0.0.1:1/"}}]
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store/twisted-registry/notifications/events.sqlite"


@pytest.fixture
def queue(path):
    """The queue, as the registry has made it: the first and third of four events were refused."""
    queue = EventQueue(str(path), 1000)
    deleted = record("3", Event("delete", "tag", "team/app", None, ORIGIN, tag="one"))
    queue.add([("hook", each) for each in (record("1"), record("2"), deleted, record("4"))])
    queue.refuse(1, "status 400 Bad Request")
    queue.refuse(3, "status 422")
    yield queue
    queue.close()


@pytest.fixture
def events(tmp_path):
    """Return a function that runs the command; it returns status, output and errors."""
    config = write_configuration(tmp_path, CONFIGURATION)

    def run_command(*arguments):
        command = (sys.executable, "-m", "twisted_registry", "events", *arguments, config)
        status, out, err = run(*command, cwd=tmp_path)
        return status, out.splitlines(), err

    return run_command


@pytest.mark.usefixtures("queue")
def test_events_are_listed(events):
    status, lines, _ = events("list")
    assert status == 0
    time = "2023-11-14T22:13:20.250000Z"
    image = f"team/app:one@{DIGEST}"
    assert lines == [
        f"1  {time}  hook  push manifest  {image}  refused: status 400 Bad Request",
        f"2  {time}  hook  push manifest  {image}  waits",
        f"3  {time}  hook  delete tag  team/app:one  refused: status 422",
        f"4  {time}  hook  push manifest  {image}  waits",
    ]
    assert events("list", "--refused")[1] == [lines[0], lines[2]]


@pytest.mark.usefixtures("queue")
def test_the_list_as_json(events):
    _, lines, _ = events("list", "--json-lines", "--refused")
    documents = [json.loads(line) for line in lines]
    _, (line,), _ = events("list", "--json", "--refused")
    assert json.loads(line) == {"events": documents}
    assert [(each["number"], each["refusal"]) for each in documents] == [
        (1, "status 400 Bad Request"), (3, "status 422"),
    ]  # fmt: skip
    assert documents[0]["event"] == record("1")
    assert documents[0]["endpoint"] == "hook"


def waiting(queue):
    return [event.record["id"] for event in queue.next_events("hook", 10)]


def test_refused_events_are_replayed(events, queue):
    assert events("replay", "--event", "3") == (0, ["1 event will be sent again"], [])
    assert waiting(queue) == ["2", "3", "4"]
    assert events("replay", "--all") == (0, ["1 event will be sent again"], [])
    assert waiting(queue) == ["1", "2", "3", "4"]
    assert events("replay", "--all") == (0, ["0 events will be sent again"], [])


def test_only_refused_events_are_discarded(events, queue):
    status, out, err = events("discard", "--event", "1", "--event", "2")
    assert (status, out) == (1, ["1 event deleted"])
    assert "1 of the numbers name no refused event" in err[0]
    assert events("discard", "--all")[1] == ["1 event deleted"]
    assert waiting(queue) == ["2", "4"]


@pytest.mark.usefixtures("queue")
def test_changes_are_in_the_audit_log(events, tmp_path):
    audit = tmp_path / "audit.log"
    config = tmp_path / "registry.yml"
    config.write_text(f"{config.read_text()}log: {{audit: {audit}}}\n")
    events("list")
    events("replay", "--event", "3", "--event", "4")
    events("discard", "--all")
    names = ("event", "outcome", "login", "target", "events")
    assert [
        tuple(json.loads(line).get(name) for name in names)
        for line in audit.read_text().splitlines()
    ] == [
        ("events.replay", "success", "command", "3, 4", 1),
        ("events.discard", "success", "command", "all", 1),
    ]


@pytest.mark.parametrize("action", ["replay", "discard"])
def test_the_events_must_be_named(events, action):
    for which in ((), ("--all", "--event", "1")):
        status, _, err = events(action, *which)
        assert (status, len(err)) == (2, 1)
        assert f"events {action}: exactly one of --all and --event is required" in err[0]


def test_without_a_queue_there_is_one_line(events, path):
    status, (document,), (line,) = events("list", "--json")
    assert (status, json.loads(document)) == (0, {"events": []})
    assert f"{path}: no such file: the registry has had no events" in line
    status, out, lines = events("discard", "--all")
    assert (status, out, lines) == (1, [], [line])
    assert not path.exists()


def test_a_damaged_queue_is_left_alone(events, queue, path):
    queue.close()
    path.write_bytes(b"this is no database" * 1000)
    status, _, (line,) = events("list")
    assert status == 1
    assert f"{path} cannot be read: file is not a database" in line
    assert path.exists()


def test_a_queue_of_another_version(events, queue, path):
    queue.close()
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")
    status, _, (line,) = events("list")
    assert status == 1
    assert "its version is 99" in line


def test_a_queue_in_memory(tmp_path):
    config = write_configuration(tmp_path, "version: 0.1\nstorage: inmemory\n")
    command = (sys.executable, "-m", "twisted_registry", "events", "list", config)
    status, _, (line,) = run(*command, cwd=tmp_path)
    assert status == 1
    assert "notifications.queue.path: not set: events are in the memory" in line
