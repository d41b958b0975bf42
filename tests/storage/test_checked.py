from __future__ import annotations

import pytest
from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from twisted_registry.storage.checked import CheckedDriver
from twisted_registry.storage.interfaces import (
    OPTIONAL_INTERFACES,
    IBulkLookup,
    IFolders,
    IMarkerListing,
    IPresigner,
    IStorageDriver,
    IStorageObserver,
    Move,
    PathInvalid,
    PathNotFound,
    Put,
    Remove,
    StorageError,
    is_name,
    is_path,
)
from twisted_registry.storage.memory import MemoryDriver

case = SynchronousTestCase()
result_of, failure_of = case.successResultOf, case.failureResultOf

BAD = [
    "/a", "a/", "a//b", ".", "..", "a/../b", "a/./b", ".hidden", "a/.tmp", "a/b/..",
    "a\0b", "a\nb", "a\x7f", "a/\ud800", "x" * 256, "a/" + "\u00e9" * 128, "\U0001f4e6" * 64,
]  # fmt: skip
GOOD = ["a", "a/b", "a.b/c..", "_uploads", "x" * 255, "a b", "\u00e9" * 127, "-", "~", "a:b", "\\"]

CALLS = {
    "get": lambda driver, path: driver.get(path, 10),
    "get_many": lambda driver, path: IBulkLookup(driver).get_many(["fine", path], 10),
    "put": lambda driver, path: driver.put(path, b""),
    "create": lambda driver, path: driver.create(path, b""),
    "stat": lambda driver, path: driver.stat(path),
    "copy": lambda driver, path: driver.copy("fine", path),
    "copy from": lambda driver, path: driver.copy(path, "fine"),
    "move": lambda driver, path: driver.move("fine", path),
    "move from": lambda driver, path: driver.move(path, "fine"),
    "delete": lambda driver, path: driver.delete(path),
    "delete_many": lambda driver, path: IBulkLookup(driver).delete_many(["fine", path]),
    "prune": lambda driver, path: IFolders(driver).prune(["fine", path]),
    "open": lambda driver, path: driver.open(path),
    "writer": lambda driver, path: driver.writer(path),
    "writer with destination": lambda driver, path: driver.writer("fine", 0, destination=path),
    "writer with present": lambda driver, path: driver.writer("fine", 0, present=path),
    "writer with absent": lambda driver, path: driver.writer("fine", 0, absent=path),
    "list": lambda driver, path: driver.list(path),
    "folders": lambda driver, path: IBulkLookup(driver).list_folders(path),
    "folders containing": lambda driver, path: IBulkLookup(driver).list_folders(
        "", containing=path
    ),
    "folders_many": lambda driver, path: IBulkLookup(driver).list_folders_many(["fine", path], 10),
    "marked": lambda driver, path: IMarkerListing(driver).list_marked(path, "_", ("_a",), "", 10),
    "marked with sign": lambda driver, path: IMarkerListing(driver).list_marked(
        "fine", path, ("_a",), "", 10
    ),
    "marked with mark": lambda driver, path: IMarkerListing(driver).list_marked(
        "fine", "_", ("_a", path), "", 10
    ),
    "walk": lambda driver, path: driver.walk(path),
    "presign": lambda driver, path: IPresigner(driver).presign(path, "GET", 60),
}
#: The empty path is the root, or means nothing in particular.
OF_THE_ROOT = {"stat", "list", "folders", "folders containing", "walk"}


@implementer(IStorageObserver)
@define
class Observer:
    seen: list = field(factory=list)

    def call_ended(self, driver, action, seconds, failed):
        self.seen.append((driver, action, seconds, failed))


@implementer(IStorageDriver, *sorted(OPTIONAL_INTERFACES, key=str))
class Broken:
    """A driver whose methods all do the same."""

    name = "broken"
    min_chunk_bytes = 5

    def __init__(self, action):
        self._action = action

    def __conform__(self, _interface):
        return None

    @property
    def privileged(self):
        return self

    def __getattr__(self, name):
        return lambda *_, **__: self._action()


@pytest.fixture
def checked():
    driver = CheckedDriver(MemoryDriver(Clock()), Clock())
    result_of(driver.put("fine", b""))
    return driver


@pytest.mark.parametrize("path", BAD)
def test_invalid_paths_are_recognized(path):
    assert not is_path(path)


@pytest.mark.parametrize("path", GOOD)
def test_valid_paths_are_recognized(path):
    assert is_path(path)
    assert is_name(path) == ("/" not in path)


@pytest.mark.parametrize("call", CALLS)
def test_invalid_paths_never_reach_the_driver(call):
    def never():
        raise AssertionError("reached the driver")

    driver = CheckedDriver(Broken(never), Clock())
    for path in BAD if call in OF_THE_ROOT else [*BAD, ""]:
        failure_of(CALLS[call](driver, path), PathInvalid)


@pytest.mark.parametrize("call", sorted(OF_THE_ROOT))
def test_the_root_is_valid_where_a_folder_is(checked, call):
    result_of(CALLS[call](checked, ""))


def test_it_has_the_attributes_of_the_driver(checked):
    verifyObject(IStorageDriver, checked)
    broken = CheckedDriver(Broken(None), Clock())
    assert (broken.name, broken.min_chunk_bytes) == ("broken", 5)
    assert checked.name == "inmemory"


@pytest.mark.parametrize("interface", sorted(OPTIONAL_INTERFACES, key=str))
def test_optional_interfaces_of_the_driver_are_provided(interface):
    whole = CheckedDriver(Broken(None), Clock())
    verifyObject(interface, interface(whole))
    assert interface(CheckedDriver(whole, Clock()), None) is not None


@pytest.mark.parametrize("interface", sorted(OPTIONAL_INTERFACES, key=str))
def test_no_other_optional_interface_is_provided(checked, interface):
    assert (interface(checked, None) is None) == (interface(checked.driver, None) is None)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("synchronous", [True, False])
def test_foreign_exceptions_become_storage_errors(call, synchronous):
    def action():
        if synchronous:
            raise KeyError("surprise")
        return fail(KeyError("surprise"))

    events = []
    globalLogPublisher.addObserver(events.append)
    try:
        driver = CheckedDriver(Broken(action), Clock())
        error = failure_of(CALLS[call](driver, "path"), StorageError).value
    finally:
        globalLogPublisher.removeObserver(events.append)
    assert type(error) is StorageError
    assert "broken" in str(error)
    assert "surprise" in str(error)
    assert [event for event in events if event.get("driver") == "broken"]


def test_storage_errors_and_cancellation_are_passed_on():
    error = PathNotFound("path")
    driver = CheckedDriver(Broken(lambda: fail(error)), Clock())
    assert failure_of(driver.stat("path"), PathNotFound).value is error
    pending = Deferred()
    driver = CheckedDriver(Broken(lambda: pending), Clock())
    answer = driver.stat("path")
    answer.cancel()
    failure_of(answer, CancelledError)


def test_observer_receives_duration_and_failure_of_calls():
    clock, observer = Clock(), Observer()
    answers = []

    def action():
        answers.append(Deferred())
        return answers[-1]

    driver = CheckedDriver(Broken(action), clock, observer)
    ended = [driver.stat("path"), driver.open("path"), driver.list(""), driver.close()]
    clock.advance(2)
    answers[0].callback(None)
    answers[1].errback(PathNotFound("path"))
    clock.advance(1)
    answers[2].errback(StorageError("path", "disk on fire"))
    answers[3].errback(KeyError("surprise"))
    assert observer.seen == [
        ("broken", "stat", 2, False),
        ("broken", "open", 2, False),
        ("broken", "list", 3, True),
        ("broken", "close", 3, True),
    ]
    for answer in ended[1:]:
        failure_of(answer, StorageError)


def test_a_cancelled_call_is_not_reported_as_failed():
    observer = Observer()
    driver = CheckedDriver(Broken(Deferred), Clock(), observer)
    answer = driver.stat("path")
    answer.cancel()
    failure_of(answer, CancelledError)
    assert observer.seen == [("broken", "stat", 0, False)]


@pytest.mark.parametrize("path", BAD)
@pytest.mark.parametrize(
    "change",
    [
        lambda path: Put(path, b""),
        lambda path: Move(path, "fine"),
        lambda path: Move("fine", path),
        Remove,
    ],
    ids=["put", "move from", "move to", "remove"],
)
def test_changes_refuse_invalid_paths(path, change):
    with pytest.raises(PathInvalid):
        change(path)
