"""The way of events out of the queue."""

from __future__ import annotations

import json
import sqlite3

import pytest
from attrs import evolve, field, frozen
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone, ResponseNeverReceived
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.notifications.events import record
from tests.support.inline_thread import InlineThread
from twisted_registry.notifications.envelope import sign
from twisted_registry.notifications.queue import IN_MEMORY, EventCount, EventQueue
from twisted_registry.notifications.sender import (
    POLL_S,
    RETRY_S,
    STOP_S,
    EndpointSender,
    EndpointSettings,
)

SETTINGS = EndpointSettings("a", "http://hook.test/events?key=1", threshold=3, backoff_s=20.0)


class FakeTransport:
    """The connection of a body.

    :ivar is_closed: whether the client has closed it.
    """

    is_closed = False

    def stopProducing(self):
        """Close it."""
        self.is_closed = True


@frozen
class FakeResponse:
    """A response, whose body is empty.

    :ivar hangs: whether the body does not end.
    """

    code: int
    headers: Headers = field(factory=Headers)
    hangs: bool = False
    transport: FakeTransport = field(factory=FakeTransport)

    def deliverBody(self, protocol):
        """End the body."""
        protocol.makeConnection(self.transport)
        if not self.hangs:
            protocol.connectionLost(Failure(ResponseDone()))


def answer(status, **fields):
    """Return a response with headers."""
    return FakeResponse(
        status, Headers({name.replace("_", "-"): [value] for name, value in fields.items()})
    )


@frozen
class Request:
    """A request that the endpoint got."""

    url: str
    headers: Headers
    body: bytes
    response: Deferred

    @property
    def event_id(self):
        """The id of the event."""
        return json.loads(self.body)["events"][0]["id"]


class Consumer:
    """Collects a body."""

    content = b""

    def write(self, data):
        """Add to it."""
        self.content += data


def _lose_response(response):
    """Fail as the response of Twisted's Agent does when its request is cancelled."""
    response.errback(ResponseNeverReceived([Failure(CancelledError())]))


@implementer(IAgent)
class FakeEndpoint:
    """An endpoint that answers as its list says; afterwards it hangs."""

    def __init__(self):
        self.answers = []
        self.requests = []

    def request(self, method, uri, headers=None, bodyProducer=None):
        """Take a request."""
        assert method == b"POST"
        verifyObject(IBodyProducer, bodyProducer)
        consumer = Consumer()
        bodyProducer.startProducing(consumer)
        assert len(consumer.content) == bodyProducer.length
        response = Deferred(_lose_response)
        if self.answers:
            given = self.answers.pop(0)
            response = fail(given) if isinstance(given, Exception) else succeed(given)
        self.requests.append(Request(uri.decode(), headers, consumer.content, response))
        return response

    @property
    def event_ids(self):
        """The ids of all events that it got."""
        return [request.event_id for request in self.requests]


class UnreliableQueue(EventQueue):
    """A queue whose calls fail when the test says so.

    :ivar failures: the next error of a method, by its name.
    :ivar is_locked: whether another process sends.
    """

    def __init__(self):
        super().__init__(IN_MEMORY, 1000)
        self.failures = {}
        self.is_locked = False

    def _fail(self, name):
        if name in self.failures:
            raise self.failures.pop(name)

    def next_events(self, endpoint, limit):
        self._fail("next_events")
        return super().next_events(endpoint, limit)

    def remove(self, number):
        self._fail("remove")
        super().remove(number)

    def refuse(self, number, reason):
        self._fail("refuse")
        super().refuse(number, reason)

    def try_lock(self):
        return not self.is_locked


@pytest.fixture
def endpoint():
    return FakeEndpoint()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def queue():
    queue = UnreliableQueue()
    yield queue
    queue.close()


@pytest.fixture
def start(queue, endpoint, clock):
    """Return a function that starts a sender; it is stopped at the end."""
    started = []

    def start_one(settings=SETTINGS, **more):
        sender = EndpointSender(settings, queue, InlineThread(), endpoint, clock, **more)
        sender.startService()
        started.append(sender)
        return sender

    yield start_one
    for each in started:
        if each.running:
            stopped = each.stopService()
            clock.advance(STOP_S)
            assert stopped.called
    assert clock.getDelayedCalls() == []


def add(queue, *names):
    queue.add([("a", record(name)) for name in names])


def counts(queue):
    return queue.counts().get("a", EventCount())


def test_events_are_sent_in_order_and_removed(start, queue, endpoint, clock):
    add(queue, "1", "2")
    endpoint.answers = [answer(200), answer(204), answer(302), answer(199 + 1)]
    sender = start()
    assert endpoint.event_ids == ["1", "2"]
    assert counts(queue) == EventCount()
    add(queue, "3")
    sender.wake()
    assert endpoint.event_ids == ["1", "2", "3"]
    add(queue, "4")  # by another process
    clock.advance(POLL_S)
    assert endpoint.event_ids == ["1", "2", "3", "4"]
    assert counts(queue) == EventCount()


def test_one_request_at_a_time(start, queue, endpoint):
    add(queue, "1", "2")
    start()
    assert endpoint.event_ids == ["1"]
    assert counts(queue) == EventCount(2)
    endpoint.requests[0].response.callback(answer(200))
    assert endpoint.event_ids == ["1", "2"]
    assert counts(queue) == EventCount(1)


def test_the_request(start, queue, endpoint):
    add(queue, "1")
    headers = {"Authorization": ["Bearer hunter2"], "X-Several": ["1", "2"]}
    start(evolve(SETTINGS, headers=headers, secret="hunter2"))
    (request,) = endpoint.requests
    assert request.url == "http://hook.test/events?key=1"
    fields = {name.lower(): values for name, values in request.headers.getAllRawHeaders()}
    assert fields == {
        b"authorization": [b"Bearer hunter2"],
        b"content-type": [b"application/vnd.docker.distribution.events.v2+json"],
        b"user-agent": [b"twisted-registry"],
        b"x-hub-signature-256": [sign(request.body, "hunter2").encode()],
        b"x-several": [b"1", b"2"],
    }


def test_without_a_secret_there_is_no_signature(start, queue, endpoint):
    add(queue, "1")
    start(evolve(SETTINGS, form="cloudevents"))
    (request,) = endpoint.requests
    assert not request.headers.hasHeader("X-Hub-Signature-256")
    assert request.headers.getRawHeaders("Content-Type") == [
        "application/cloudevents+json; charset=utf-8"
    ]


def test_credentials_in_the_url_are_sent_as_basic(start, queue, endpoint):
    add(queue, "1")
    start(evolve(SETTINGS, url="https://me:p%40ss@h\u00f6ok.test:8443/a"))
    (request,) = endpoint.requests
    assert request.url == "https://xn--hok-sna.test:8443/a"
    assert request.headers.getRawHeaders("Authorization") == ["Basic bWU6cEBzcw=="]


@pytest.mark.parametrize("status", [100, 401, 403, 404, 408, 429, 500, 503])
def test_a_failure_is_repeated_with_pauses_after_the_threshold(
    start, queue, endpoint, clock, status
):
    add(queue, "1", "2")
    endpoint.answers = [answer(status)] * 5
    start()
    assert endpoint.event_ids == ["1"] * 3
    for count in (4, 5):
        clock.advance(19)
        assert len(endpoint.requests) == count - 1
        clock.advance(1)
        assert len(endpoint.requests) == count
    assert counts(queue) == EventCount(2)
    endpoint.answers = [answer(200)] * 2
    clock.advance(20)
    assert endpoint.event_ids[5:] == ["1", "2"]
    # The count begins anew.
    endpoint.answers = [answer(status)] * 2 + [answer(200)]
    add(queue, "3")
    clock.advance(POLL_S)
    assert endpoint.event_ids[7:] == ["3"] * 3
    assert counts(queue) == EventCount()


def test_an_endpoint_that_is_down(start, queue, endpoint, clock, log_lines):
    add(queue, "1")
    endpoint.answers = [Refused()] * 4
    start()
    clock.advance(20)
    assert len(endpoint.requests) == 4
    endpoint.answers = [answer(200)]
    clock.advance(20)
    begin = "notifications: endpoint=a"
    ends = [
        " event=1 failures=1: events wait: Connection was refused",
        " event=1 failures=3: events wait: Connection was refused",
        " failures=4: accepts events again",
    ]
    assert len(log_lines) == len(ends)
    for line, end in zip(log_lines, ends, strict=True):
        assert line.startswith(begin + end)
    assert not [line for line in log_lines if "key=1" in line]


def test_an_endpoint_that_hangs(start, queue, endpoint, clock, log_lines):
    add(queue, "1")
    start(evolve(SETTINGS, timeout_s=5.0))
    clock.advance(4.9)
    assert len(endpoint.requests) == 1
    endpoint.answers = [answer(200)]
    clock.advance(0.1)
    assert endpoint.event_ids == ["1", "1"]
    assert counts(queue) == EventCount()
    assert log_lines[0].endswith("events wait: no response within 5 s")


def test_a_body_that_hangs_does_not_count(start, queue, endpoint, clock):
    add(queue, "1", "2")
    response = FakeResponse(200, hangs=True)
    endpoint.answers = [response, answer(200)]
    start()
    assert endpoint.event_ids == ["1"]
    clock.advance(SETTINGS.timeout_s)
    assert response.transport.is_closed
    assert endpoint.event_ids == ["1", "2"]
    assert counts(queue) == EventCount()


def test_an_endpoint_can_ask_for_a_longer_pause(start, queue, endpoint, clock):
    add(queue, "1")
    endpoint.answers = [answer(429, retry_after="60"), answer(200)]
    start()
    clock.advance(59)
    assert len(endpoint.requests) == 1
    clock.advance(1)
    assert counts(queue) == EventCount()


@pytest.mark.parametrize("value", ["", "x", "-1", "1e9", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_another_retry_after_has_no_effect(start, queue, endpoint, value):
    add(queue, "1")
    endpoint.answers = [answer(503, retry_after=value), answer(200)]
    start()
    assert counts(queue) == EventCount()


def test_a_pause_has_a_limit(start, queue, endpoint, clock):
    add(queue, "1")
    endpoint.answers = [answer(503, retry_after="999999"), answer(200)]
    start()
    clock.advance(300)
    assert counts(queue) == EventCount()


@pytest.mark.parametrize("status", [400, 406, 409, 411, 413, 415, 422])
def test_a_refused_event_is_set_apart(start, queue, endpoint, log_lines, status):
    add(queue, "1", "2")
    endpoint.answers = [answer(status), answer(200)]
    start()
    assert endpoint.event_ids == ["1", "2"]
    assert counts(queue) == EventCount(0, 1)
    (event,) = queue.list_events(refused_only=True, after=0, limit=5)
    assert event.refusal.startswith(f"status {status}")
    assert "event=1: refused for good" in log_lines[0]


def test_a_replayed_event_is_sent(start, queue, endpoint, clock):
    add(queue, "1")
    endpoint.answers = [answer(400), answer(200)]
    start()
    queue.replay(None)
    clock.advance(POLL_S)
    assert endpoint.event_ids == ["1", "1"]
    assert counts(queue) == EventCount()


@pytest.mark.parametrize(
    ("url", "location", "expected"),
    [
        ("http://hook.test/a", "/b?c", "http://hook.test/b?c"),
        ("http://hook.test/a", "http://hook.test/b", "http://hook.test/b"),
        ("http://hook.test/a", "https://hook.test/a", "https://hook.test/a"),
        ("http://hook.test/a", "http://other.test/a", None),
        ("http://hook.test/a", "//other.test/a", None),
        ("https://hook.test/a", "http://hook.test/a", None),
        ("https://hook.test/a", "https://hook.test:444/a", None),
    ],
)
@pytest.mark.parametrize("status", [307, 308])
def test_redirects_are_followed_within_the_host(
    start, queue, endpoint, url, location, expected, status
):
    add(queue, "1")
    endpoint.answers = [answer(status, location=location)]
    start(evolve(SETTINGS, url=url, threshold=1))
    assert [request.url for request in endpoint.requests] == [url, expected][: 1 + bool(expected)]
    assert endpoint.event_ids[-1] == "1"


def test_redirects_in_a_circle_are_a_failure(start, queue, endpoint, clock, log_lines):
    add(queue, "1")
    endpoint.answers = [answer(307, location="/events")] * 6
    start(evolve(SETTINGS, threshold=1))
    assert len(endpoint.requests) == 6
    assert "more than 5 redirects" in log_lines[0]


def test_a_result_that_cannot_be_recorded_is_not_sent_again(start, queue, endpoint, clock):
    """A full disk: the queue can be read, and not written."""
    add(queue, "1", "2")
    endpoint.answers = [answer(200), answer(400)]
    queue.failures = {
        name: sqlite3.OperationalError("database or disk is full") for name in ("remove", "refuse")
    }
    start()
    assert endpoint.event_ids == ["1"]
    clock.advance(RETRY_S)
    assert endpoint.event_ids == ["1", "2"]
    clock.advance(RETRY_S)
    assert endpoint.event_ids == ["1", "2"]
    assert counts(queue) == EventCount(0, 1)


def test_a_queue_that_cannot_be_used_is_tried_again(start, queue, endpoint, clock, log_lines):
    add(queue, "1")
    start()
    queue.failures["remove"] = OSError("no space")
    endpoint.requests[0].response.callback(answer(200))
    for _ in range(3):
        queue.failures["remove"] = OSError("no space")
        clock.advance(RETRY_S)
    begin = "notifications: endpoint=a queue=:memory:: it"
    assert log_lines == [f"{begin} cannot be used: no space"]
    add(queue, "2")
    clock.advance(RETRY_S)
    assert endpoint.event_ids == ["1", "2"]
    assert log_lines[1:] == [f"{begin} can be used again"]


def test_a_queue_that_cannot_be_read_is_tried_again(start, queue, endpoint, clock):
    add(queue, "1")
    queue.failures["next_events"] = OSError("no such disk")
    start()
    assert endpoint.requests == []
    clock.advance(RETRY_S)
    assert endpoint.event_ids == ["1"]


def test_only_the_process_with_the_lock_sends(queue, endpoint, start, clock):
    add(queue, "1")
    queue.is_locked = True
    start()
    clock.advance(POLL_S)
    assert endpoint.requests == []
    queue.is_locked = False
    clock.advance(POLL_S)
    assert endpoint.event_ids == ["1"]


def test_the_stop_waits_for_the_attempt(start, queue, endpoint, clock):
    add(queue, "1", "2")
    stopped = start(evolve(SETTINGS, timeout_s=60.0)).stopService()
    assert not stopped.called
    endpoint.requests[0].response.callback(answer(200))
    assert stopped.called
    assert endpoint.event_ids == ["1"]
    assert counts(queue) == EventCount(1)


def test_the_stop_does_not_wait_for_long(start, queue, endpoint, clock, log_lines):
    add(queue, "1")
    seen = []
    observe = lambda *attempt: seen.append(attempt)  # noqa: E731
    stopped = start(evolve(SETTINGS, timeout_s=60.0), observe=observe).stopService()
    clock.advance(STOP_S)
    assert stopped.called
    assert counts(queue) == EventCount(1)
    assert (seen, log_lines) == ([], [])


@pytest.mark.parametrize("answers", [[], [answer(500)] * 3], ids=["idle", "pausing"])
def test_the_stop_ends_a_pause(start, queue, endpoint, answers):
    if answers:
        add(queue, "1")
    endpoint.answers = answers
    assert start().stopService().called


def test_attempts_are_observed(start, queue, endpoint, clock):
    add(queue, "1", "2")
    endpoint.answers = [Refused(), answer(500), answer(400), answer(202)]
    seen = []
    start(observe=lambda name, attempt: seen.append((name, attempt.status, attempt.is_refusal)))
    assert seen == [("a", 0, False), ("a", 500, False), ("a", 400, True), ("a", 202, False)]


def test_settings_show_no_secret():
    settings = evolve(
        SETTINGS,
        url="http://me:hunter2@a",
        headers={"Authorization": ["hunter2"]},
        secret="hunter2",
    )
    assert "hunter2" not in repr(settings)
