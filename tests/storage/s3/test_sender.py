from __future__ import annotations

import hashlib

import pytest
from twisted.internet.defer import CancelledError, succeed
from twisted.internet.error import ConnectError
from twisted.logger import globalLogPublisher

from tests.storage.s3.fake_agent import (
    ADDRESS,
    CREDENTIALS,
    NOW,
    Agent,
    Response,
    endless,
    failure_of,
    make_sender,
    no_result,
    refusal,
    result_of,
)
from tests.storage.s3.sender_helpers import GET, LATER, Source, collect, run
from twisted_registry.storage.s3.credentials import Credentials
from twisted_registry.storage.s3.errors import (
    AccessDenied,
    ClockSkewed,
    InvalidResponse,
    NotFound,
    S3Error,
    SlowDown,
    Unreachable,
    WrongRegion,
)
from twisted_registry.storage.s3.interfaces import Operation
from twisted_registry.storage.s3.sender import MAX_HASHED_BYTES, Backoff, RequestLog
from twisted_registry.storage.s3.sigv4 import EMPTY_SHA256, UNSIGNED_PAYLOAD, Signer


@pytest.fixture
def logged():
    texts = []

    def observe(event):
        if str(event.get("log_namespace", "")).startswith("twisted_registry"):
            texts.append(event["log_format"].format(**event))

    globalLogPublisher.addObserver(observe)
    yield texts
    globalLogPublisher.removeObserver(observe)


def test_a_request_is_signed(clock):
    agent = Agent(Response(body=b"content"))
    operation = Operation(
        "PutObject", "PUT", "a b/c+d", (("x", "1"), ("a", "/")), {"x-amz-acl": "private"}, b"body"
    )
    assert result_of(run(make_sender(clock, agent), clock, operation)) == b"content"
    request = agent.last
    assert request.method == "PUT"
    assert request.url == "http://objects:9000/images/a%20b/c%2Bd?a=%2F&x=1"
    assert request.sent == b"body"
    digest = hashlib.sha256(b"body").hexdigest()
    expected = Signer(CREDENTIALS.credentials, "us-east-1").headers(
        "PUT", "/images/a%20b/c%2Bd", "a=%2F&x=1",
        {"host": "objects:9000", "x-amz-acl": "private"}, digest, NOW,
    )  # fmt: skip
    assert request.headers == {
        "host": "objects:9000",
        "user-agent": "tests/1",
        "x-amz-acl": "private",
        **expected,
    }


@pytest.mark.parametrize(
    ("content", "sha256", "expected"),
    [
        (b"", "", EMPTY_SHA256),
        ([b"bo", b"dy"], "", hashlib.sha256(b"body").hexdigest()),
        (b"x" * MAX_HASHED_BYTES, "", hashlib.sha256(b"x" * MAX_HASHED_BYTES).hexdigest()),
        (b"x" * (MAX_HASHED_BYTES + 1), "", UNSIGNED_PAYLOAD),
        ([b"x" * MAX_HASHED_BYTES, b"x"], "", UNSIGNED_PAYLOAD),
        (b"x" * (MAX_HASHED_BYTES + 1), "known", "known"),
    ],
)
def test_small_bodies_are_hashed_here(clock, content, sha256, expected):
    agent = Agent(Response())
    operation = Operation("PutObject", "PUT", "a", content=content, sha256=sha256)
    result_of(run(make_sender(clock, agent), clock, operation))
    assert agent.last.headers["x-amz-content-sha256"] == expected


def test_what_passes_is_tried_again(clock):
    agent = Agent(
        ConnectError("refused"),
        refusal(500, "InternalError"),
        refusal(400, "RequestTimeout"),
        refusal(503, "SlowDown"),
        Response(body=b"content"),
    )
    operation = Operation("PutObject", "PUT", "a", content=b"body")
    assert result_of(run(make_sender(clock, agent), clock, operation)) == b"content"
    assert [request.sent for request in agent.requests] == [b"body"] * 5
    # 0.2, 0.4 and 0.8 s, and 8 s where the store was too busy; each time signed anew.
    assert clock.seconds() - NOW == pytest.approx(9.4, abs=0.5)
    assert len({request.headers["x-amz-date"] for request in agent.requests}) > 1


def test_waits_differ():
    error = Unreachable("GetObject", "no", retryable=True)
    chances = iter([0.0, 0.5, 1.0])
    backoff = Backoff(jitter=lambda: next(chances))
    assert [backoff.delay(error, 3, 0.0) for _ in range(3)] == [0.0, 0.4, 0.8]
    assert 0.0 <= Backoff().delay(error, 1, 0.0) <= 0.2


@pytest.mark.parametrize(
    ("error", "attempt", "elapsed", "expected"),
    [
        (Unreachable("x", "no", retryable=True), 1, 0, 0.2),
        (Unreachable("x", "no", retryable=True), 4, 0, 1.6),
        (Unreachable("x", "no", retryable=True), 5, 0, None),
        (Unreachable("x", "no", retryable=True), 1, 60, None),
        (Unreachable("x", "no"), 1, 0, None),
        (SlowDown("x", "no", retryable=True), 1, 0, 1.0),
        (SlowDown("x", "no", retryable=True), 4, 0, 8.0),
    ],
)
def test_when_to_try_again(error, attempt, elapsed, expected):
    assert Backoff(jitter=lambda: 1.0).delay(error, attempt, elapsed) == expected


def test_no_wait_is_longer_than_the_longest():
    backoff = Backoff(attempts=50, jitter=lambda: 1.0)
    assert backoff.delay(SlowDown("x", "no", retryable=True), 40, 0) == backoff.max_delay


def test_at_last_the_error_comes_out(clock):
    agent = Agent(*[refusal(503, "SlowDown", x_amz_request_id="7A") for _ in range(5)])
    error = failure_of(run(make_sender(clock, agent), clock), SlowDown).value
    assert len(agent.requests) == 5
    assert str(error) == "GetObject images/a b: no (SlowDown, 503, request 7A)"


@pytest.mark.parametrize(
    ("answers", "repeated"),
    [
        ([refusal(404, "NoSuchKey")], False),
        ([refusal(400, "RequestTimeout"), refusal(404, "NoSuchKey")], False),
        ([ConnectError(), refusal(404, "NoSuchKey")], True),
        ([refusal(500, "InternalError"), refusal(404, "NoSuchKey")], True),
        ([ConnectError(), refusal(400, "RequestTimeout"), refusal(404, "NoSuchKey")], True),
    ],
)
def test_an_error_says_whether_an_earlier_attempt_may_have_succeeded(clock, answers, repeated):
    sending = run(make_sender(clock, Agent(*answers)), clock)
    assert failure_of(sending, NotFound).value.repeated is repeated


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [(403, "AccessDenied", AccessDenied), (404, "NoSuchKey", NotFound), (400, "Strange", S3Error)],
)
def test_what_does_not_pass_is_not_tried_again(clock, status, code, kind):
    agent = Agent(refusal(status, code, "  a\n sentence "))
    error = failure_of(run(make_sender(clock, agent), clock), kind).value
    assert (error.code, error.status, error.message) == (code, status, "a sentence")
    assert len(agent.requests) == 1


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (404, b"", NotFound, "Not Found"),
        (403, b"<html><body>no</body></html>", AccessDenied, "Forbidden"),
        (599, b"", S3Error, "refused"),
        (403, b"<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>", AccessDenied,
         "Forbidden"),
    ],
)  # fmt: skip
def test_answers_that_explain_little(clock, status, body, kind, message):
    sending = run(make_sender(clock, Agent(Response(status, body=body))), clock)
    assert failure_of(sending, kind).value.message == message


def test_an_explanation_that_breaks_off_is_asked_for_again(clock):
    broken = endless(404, length=10)
    agent = Agent(broken, refusal(404, "NoSuchKey"))
    sending = make_sender(clock, agent).send(GET, collect)
    broken.cut()
    clock.advance(0.2)
    failure_of(sending, NotFound)


def test_an_answer_that_can_not_be_used_is_asked_for_again(clock):
    def finish(answer):
        if len(agent.requests) == 1:
            answer.close()
            raise InvalidResponse(answer.what, "broken", retryable=True)
        return collect(answer)

    agent = Agent(Response(body=b"a"), Response(body=b"b"))
    assert result_of(run(make_sender(clock, agent), clock, finish=finish)) == b"b"


def test_a_stall_is_tried_again(clock):
    agent = Agent()
    sending = make_sender(clock, agent).send(GET, collect)
    clock.advance(40)
    clock.advance(0.2)
    assert len(agent.requests) == 2
    # But not for ever: a client waits for us.
    clock.advance(40)
    failure_of(sending, Unreachable)


def test_slow_operations_get_their_time(clock):
    agent = Agent()
    operation = Operation("CopyObject", "PUT", "a", slow=True)
    sending = make_sender(clock, agent).send(operation, collect)
    clock.advance(309)
    no_result(sending)
    agent.last.answer.callback(Response())
    result_of(sending)


@pytest.mark.parametrize("when", ["request", "wait", "body"])
def test_leaving(clock, when):
    broken = endless(length=10)
    agent = Agent(*{"request": [], "wait": [ConnectError()], "body": [broken]}[when])
    sending = make_sender(clock, agent).send(GET, collect)
    no_result(sending)
    sending.cancel()
    failure_of(sending, CancelledError)
    clock.advance(100)
    assert len(agent.requests) == 1
    assert broken.connection.dropped is (when == "body")


# Clocks.


def test_a_clock_that_is_wrong_is_corrected(clock, logged):
    agent = Agent(refusal(403, "RequestTimeTooSkewed", date=LATER), Response(), Response())
    sender = make_sender(clock, agent)
    result_of(run(sender, clock))
    assert clock.seconds() == NOW
    assert [request.headers["x-amz-date"] for request in agent.requests] == [
        "20130524T000000Z",
        "20130524T010000Z",
    ]
    # And stays so.
    result_of(run(sender, clock))
    assert agent.last.headers["x-amz-date"] == "20130524T010000Z"
    assert logged == ["the clock of the store is +3600 s ahead of ours"]
    assert "20130524T010000Z" in result_of(sender.presign(ADDRESS, "GET", "a", 60))


def test_head_is_refused_without_a_reason_but_with_a_date(clock):
    agent = Agent(Response(403, {"date": LATER}), Response())
    result_of(run(make_sender(clock, agent), clock, Operation("HeadObject", "HEAD", "a")))
    assert agent.last.headers["x-amz-date"] == "20130524T010000Z"


def test_a_refusal_at_the_right_time_is_one(clock):
    agent = Agent(Response(403, {"date": "Fri, 24 May 2013 00:04:59 GMT"}))
    failure_of(run(make_sender(clock, agent), clock), AccessDenied)
    assert len(agent.requests) == 1


def test_a_clock_that_can_not_be_corrected(clock):
    agent = Agent(*[refusal(403, "RequestTimeTooSkewed", date=LATER) for _ in range(2)])
    error = failure_of(run(make_sender(clock, agent), clock), ClockSkewed).value
    assert "the store's clock is +3600 s ahead of ours" in str(error)
    assert len(agent.requests) == 2


@pytest.mark.parametrize("date", ["", "yesterday", "Fri, 24 Mai 2013 00:00:00 GMT"])
def test_without_a_date_nothing_is_corrected(clock, date):
    agent = Agent(*[refusal(403, "RequestTimeTooSkewed", date=date) for _ in range(2)])
    failure_of(run(make_sender(clock, agent), clock), ClockSkewed)
    assert agent.last.headers["x-amz-date"] == "20130524T000000Z"


# Regions.


@pytest.mark.parametrize(
    ("answer", "region", "text"),
    [
        (
            Response(301, {"x-amz-bucket-region": "eu-west-1"}),
            "eu-west-1",
            "the bucket is in the region eu-west-1, and not in us-east-1",
        ),
        (
            refusal(400, "AuthorizationHeaderMalformed", more="<Region>eu-west-1</Region>"),
            "eu-west-1",
            "the bucket is in the region eu-west-1, and not in us-east-1",
        ),
        (
            refusal(301, "PermanentRedirect", more="<Endpoint>b.s3-eu.example</Endpoint>"),
            "",
            "the bucket is to be asked for at b.s3-eu.example",
        ),
        (Response(307, {"location": "http://elsewhere/"}), "", "the bucket is elsewhere"),
        (refusal(400, "AuthorizationHeaderMalformed", "bad"), "", "bad"),
    ],
)
def test_another_region_is_explained_and_not_followed(clock, answer, region, text):
    agent = Agent(answer)
    error = failure_of(run(make_sender(clock, agent), clock), WrongRegion).value
    assert error.region == region
    assert error.message == text
    assert len(agent.requests) == 1


# Credentials.


# URLs.


# The log.


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("off", []),
        ("nonsense", []),
        ("debug", ["s3: GetObject images/a b: 500", "s3: GetObject images/a b: 404"]),
        (
            "debugwithsigning",
            ["s3 signs: GET http://objects:9000/images/a%20b with ", "s3: ", "s3 signs: ", "s3: "],
        ),
        (
            "debugwithhttpbody",
            ["s3 sends: GET http://objects:9000/images/a%20b {", "s3: ", "s3 sends: ", "s3: "],
        ),
        (
            "debugwithrequestretries",
            ["s3: Get", "s3: attempt 1 failed, another in 0.200 s: GetObject", "s3: Get"],
        ),
        (
            "debugwithrequesterrors",
            ["s3: Get", "s3: Get", "s3: attempt 2 failed: GetObject images/a b: no ("],
        ),
        ("debugwitheventstreambody", ["s3: ", "s3: "]),
    ],
)
def test_what_is_logged(clock, logged, level, expected):
    agent = Agent(refusal(500, "InternalError", x_amz_request_id="7A"), refusal(404, "NoSuchKey"))
    credentials = Source(*[succeed(Credentials("AKID", "hush", "token")) for _ in range(2)])
    sender = make_sender(clock, agent, credentials=credentials, request_log=RequestLog(level))
    failure_of(run(sender, clock), NotFound)
    assert len(logged) == len(expected)
    for text, begin in zip(logged, expected, strict=True):
        assert text.startswith(begin)
        assert "hush" not in text
        assert "token'" not in text
        assert "Signature=" not in text
