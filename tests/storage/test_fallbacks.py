"""Substitutes for the optional interfaces, over a driver that has none."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.testing.dict_driver import DictDriver
from twisted_registry.storage import fallbacks
from twisted_registry.storage.interfaces import (
    IBulkLookup,
    IFastLookup,
    IFolders,
    IHostLock,
    ILeftovers,
    PathInvalid,
    StorageError,
)

case = SynchronousTestCase()
result_of, failure_of = case.successResultOf, case.failureResultOf


@pytest.fixture
def driver():
    return DictDriver()


@pytest.mark.parametrize(
    ("adapt", "interface"),
    [
        (fallbacks.fast_lookup, IFastLookup),
        (fallbacks.bulk_lookup, IBulkLookup),
        (fallbacks.folders, IFolders),
        (fallbacks.leftovers, ILeftovers),
        (fallbacks.host_lock, IHostLock),
    ],
)
def test_substitutes_provide_the_interface(driver, adapt, interface):
    verifyObject(interface, adapt(driver))


def test_no_fast_lookup_knows_nothing(driver):
    result_of(driver.put("file", b"1"))
    lookup = fallbacks.fast_lookup(driver)
    assert lookup.peek("file") is None
    assert not lookup.validate([])
    assert lookup.open_cached("file", None) is None


def test_urls_and_marker_listings_have_no_substitute(driver):
    assert fallbacks.find_presigner(driver) is None
    assert fallbacks.find_marker_listing(driver) is None


def test_delete_many_deletes_all_others_before_it_fails(driver):
    for path in ("a", "folder/file", "z"):
        result_of(driver.put(path, b""))
    failure_of(fallbacks.bulk_lookup(driver).delete_many(["a", "folder", "z"]), PathInvalid)
    assert list(driver.files) == ["folder/file"]


def test_get_many_fails_with_the_first_error(driver):
    for path in ("small", "large"):
        result_of(driver.put(path, path.encode() * 100))
    error = failure_of(fallbacks.bulk_lookup(driver).get_many(["large", "small"], 10), StorageError)
    assert error.value.path == "large"


def test_many_paths_are_read_a_few_at_a_time_and_can_be_cancelled():
    calls = []

    class Slow(DictDriver):
        def get(self, path, limit):
            calls.append(Deferred())
            return calls[-1]

    paths = [f"file{number:02}" for number in range(50)]
    reading = fallbacks.bulk_lookup(Slow()).get_many(paths, 10)
    assert 1 < len(calls) < 50
    started = len(calls)
    calls[0].callback(b"0")
    assert len(calls) == started + 1
    reading.cancel()
    failure_of(reading, CancelledError)
