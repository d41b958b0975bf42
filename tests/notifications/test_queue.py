"""The queue of events, on disk."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from tests.notifications.events import record
from tests.support.processes import ROOT
from twisted_registry.notifications.queue import (
    IN_MEMORY,
    EventCount,
    EventQueue,
    QueueDamaged,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "below" / "events.sqlite"


@pytest.fixture
def open_queue(path):
    """Return a function that opens the queue of the test once more."""
    opened = []

    def open_one(max_events=1000, **more):
        opened.append(EventQueue(str(path), max_events, **more))
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()


def waiting(queue, endpoint="a"):
    return [event.record["id"] for event in queue.next_events(endpoint, 1000)]


def add(queue, *names, endpoint="a"):
    return queue.add([(endpoint, record(name)) for name in names])


def test_events_wait_in_order_for_each_endpoint(open_queue):
    queue = open_queue()
    queue.add([("a", record("1")), ("b", record("2")), ("a", record("3"))])
    (first, second), (other,) = queue.next_events("a", 5), queue.next_events("b", 5)
    assert [first.record["id"], second.record["id"], other.record["id"]] == ["1", "3", "2"]
    assert first.record == record("1")
    assert queue.next_events("a", 1) == [first]
    queue.remove(first.number)
    assert waiting(queue) == ["3"]


def test_events_survive_a_kill(open_queue, path):
    code = (
        "import os, sys\n"
        "from twisted_registry.notifications.queue import EventQueue\n"
        "queue = EventQueue(sys.argv[1], 1000)\n"
        "assert queue.try_lock()\n"
        "queue.add([('a', {'id': '1'}), ('a', {'id': '2'})])\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, check=False)
    assert done.returncode == -9
    queue = open_queue()
    assert waiting(queue) == ["1", "2"]
    assert queue.try_lock()


def test_only_one_process_holds_the_lock(open_queue):
    first, second = open_queue(), open_queue()
    add(first, "1")
    assert first.try_lock()
    assert first.try_lock()
    assert not second.try_lock()
    first.close()
    assert second.try_lock()


def test_two_processes_add_to_one_file(open_queue):
    first, second = open_queue(), open_queue()
    add(first, "1")
    add(second, "2")
    assert waiting(first) == waiting(second) == ["1", "2"]


@pytest.mark.parametrize("maximum", [1, 3])
def test_the_oldest_are_dropped_beyond_the_maximum(open_queue, maximum):
    queue = open_queue(maximum)
    add(queue, "other", endpoint="b")
    names = [str(number) for number in range(5)]
    dropped = [add(queue, name).get("a", 0) for name in names]
    assert dropped == [int(number >= maximum) for number in range(5)]
    assert waiting(queue) == names[-maximum:]
    assert waiting(queue, "b") == ["other"]


def test_a_long_queue_exceeds_the_maximum_by_a_hundredth_at_most(open_queue):
    queue = open_queue(1000)
    for _ in range(12):
        add(queue, *["x"] * 101)
        assert queue.counts()["a"].waiting <= 1010


def test_refused_events_are_apart(open_queue):
    queue = open_queue()
    add(queue, "1", "2", "3")
    add(queue, "4", endpoint="b")
    first, _, third = queue.next_events("a", 3)
    queue.refuse(first.number, "status 400")
    queue.refuse(third.number, "status 422")
    assert waiting(queue) == ["2"]
    assert queue.counts() == {"a": EventCount(1, 2), "b": EventCount(1, 0)}
    listed = queue.list_events(refused_only=True, after=0, limit=10)
    assert [(each.number, each.refusal) for each in listed] == [
        (first.number, "status 400"), (third.number, "status 422"),
    ]  # fmt: skip
    assert len(queue.list_events(refused_only=False, after=first.number, limit=10)) == 3
    assert len(queue.list_events(refused_only=False, after=0, limit=2)) == 2


def test_refused_events_are_replayed_or_discarded(open_queue):
    queue = open_queue()
    add(queue, "1", "2", "3", "4")
    numbers = [event.number for event in queue.next_events("a", 4)]
    for number in numbers[:3]:
        queue.refuse(number, "status 400")
    assert queue.replay([numbers[1], numbers[3], 999]) == 1
    assert waiting(queue) == ["2", "4"]
    assert queue.discard([numbers[0], numbers[3]]) == 1
    assert queue.replay(None) == 1
    assert waiting(queue) == ["2", "3", "4"]
    assert queue.discard(None) == 0


def test_events_of_other_endpoints_are_removed(open_queue):
    queue = open_queue()
    for endpoint in "abb":
        add(queue, "1", endpoint=endpoint)
    assert queue.remove_other_endpoints(["a", "c"]) == {"b": 2}
    assert {*queue.counts()} == {"a"}


def test_the_file_is_for_its_owner_only(open_queue, path):
    add(open_queue(), "1")
    for each in path.parent.iterdir():
        assert each.stat().st_mode & 0o077 == 0, each
    assert path.parent.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("damage", ["bytes", "version"])
def test_a_file_that_cannot_be_read_is_moved_aside(open_queue, path, damage):
    queue = open_queue()
    add(queue, "1")
    queue.close()
    if damage == "bytes":
        path.write_bytes(b"this is no database" * 1000)
    else:
        with closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA user_version = 99")
    command = open_queue(must_exist=True)
    with pytest.raises(QueueDamaged, match=r"events\.sqlite cannot be read"):
        command.counts()
    with pytest.raises(QueueDamaged, match=r"was renamed to .*events\.sqlite\.damaged"):
        add(queue, "2")
    add(queue, "2")
    assert waiting(queue) == ["2"]
    assert path.with_name("events.sqlite.damaged").exists()


def test_a_deleted_file_is_made_again(open_queue, path):
    queue = open_queue()
    add(queue, "1")
    for each in path.parent.iterdir():
        each.unlink()
    add(queue, "2")
    assert waiting(open_queue()) == ["2"]


def test_a_file_that_cannot_be_written_can_be_read(open_queue, path):
    """As on a full disk."""
    add(open_queue(), "1")
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        queue = open_queue()
        assert queue.counts() == {"a": EventCount(1, 0)}
        assert waiting(queue) == ["1"]


def test_a_command_makes_no_file(open_queue, path):
    with pytest.raises(FileNotFoundError):
        open_queue(must_exist=True).counts()
    assert not path.parent.exists()


def test_a_queue_in_memory():
    queue = EventQueue(IN_MEMORY, 10)
    add(queue, "1")
    assert queue.try_lock()
    assert waiting(queue) == ["1"]
    queue.close()
