from __future__ import annotations

import pytest
from twisted.logger import ILogObserver, Logger, LogPublisher
from zope.interface.verify import verifyObject

from twisted_registry.http.request_id import current_request_id
from twisted_registry.logs.context import CALLER_KEY, CallerObserver, RequestIdObserver
from twisted_registry.logs.lines import event_fields


@pytest.fixture
def events():
    return []


def test_an_event_gets_the_id_of_the_current_request(events):
    observer = RequestIdObserver(events.append)
    verifyObject(ILogObserver, observer)
    log = Logger(observer=LogPublisher(observer))
    log.info("outside")
    token = current_request_id.set("7")
    log.info("inside")
    log.info("another", **{"http.request.id": "8"})
    current_request_id.reset(token)
    assert [event.get("http.request.id") for event in events] == [None, "7", "8"]


def test_an_event_names_the_code_that_has_logged_it(events):
    observer = CallerObserver(RequestIdObserver(events.append))
    verifyObject(ILogObserver, observer)
    Logger(observer=LogPublisher(observer)).info("here")
    function, place = events[0][CALLER_KEY]
    assert function == f"{__name__}.test_an_event_names_the_code_that_has_logged_it"
    file, _, line = place.rpartition(":")
    assert file == __file__
    assert line.isdigit()
    assert event_fields(events[0]) == {"func": function, "file": place}
