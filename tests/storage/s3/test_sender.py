from __future__ import annotations

import hashlib

import pytest
from attrs import evolve
from twisted.internet.defer import CancelledError, succeed
from twisted.internet.error import ConnectError
from twisted.logger import globalLogPublisher

from tests.storage.s3.fake_agent import (
    ADDRESS,
    CREDENTIALS,
    NOW,
    Agent,
    Response,
    Sink,
    endless,
    failure_of,
    make_sender,
    no_result,
    refusal,
    result_of,
)
from tests.storage.s3.sender_helpers import GET, LATER, FakeCredentials, collect, run
from twisted_registry.storage.s3.address import endpoint_address
from twisted_registry.storage.s3.credentials import Credentials
from twisted_registry.storage.s3.errors import (
    AccessDenied,
    ClockSkewed,
    InvalidResponse,
    NotFound,
    S3Error,
    SlowDown,
    Stalled,
    Unreachable,
    WrongRegion,
)
from twisted_registry.storage.s3.interfaces import Operation
from twisted_registry.storage.s3.sender import MAX_INLINE_HASH_BYTES, Backoff, RequestLog
from twisted_registry.storage.s3.sigv4 import UNSIGNED_PAYLOAD, Signer


@pytest.fixture
def logged():
    texts = []

    def observe(event):
        if str(event.get("log_namespace", "")).startswith("twisted_registry"):
            texts.append(event["log_format"].format(**event))

    globalLogPublisher.addObserver(observe)
    yield texts
    globalLogPublisher.removeObserver(observe)


def test_request_is_signed(clock):
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


LARGE = b"x" * (MAX_INLINE_HASH_BYTES + 1)
SECURE = endpoint_address("images", "https://objects:9000")


@pytest.mark.parametrize(
    ("content", "sha256", "on_thread"),
    [
        (b"", "", False),
        ([b"bo", b"dy"], "", False),
        (LARGE[1:], "", False),
        (LARGE, "", True),
        ([LARGE[1:], b"x"], "", True),
        (LARGE, hashlib.sha256(LARGE).hexdigest(), False),
    ],
)
@pytest.mark.parametrize("secure", [False, True])
def test_every_body_has_its_digest_and_large_ones_are_hashed_once_on_a_thread(
    clock, content, sha256, on_thread, secure
):
    agent = Agent(refusal(500, "InternalError"), Response())
    calls = []

    def run_blocking(work, *arguments):
        calls.append(arguments)
        return succeed(work(*arguments))

    options = {"address": SECURE} if secure else {"sign_payloads": False}
    sender = make_sender(clock, agent, run_blocking=run_blocking, **options)
    operation = Operation("PutObject", "PUT", "a", content=content, sha256=sha256)
    result_of(run(sender, clock, operation))
    whole = content if isinstance(content, bytes) else b"".join(content)
    expected = hashlib.sha256(whole).hexdigest()
    assert [r.headers["x-amz-content-sha256"] for r in agent.requests] == [expected] * 2
    assert len(calls) == on_thread


@pytest.mark.parametrize("size", [len(LARGE) - 1, len(LARGE)])
def test_large_bodies_over_tls_are_unsigned_if_configured(clock, size):
    agent = Agent(Response())
    sender = make_sender(clock, agent, address=SECURE, sign_payloads=False)
    result_of(run(sender, clock, Operation("PutObject", "PUT", "a", content=LARGE[:size])))
    found = agent.last.headers["x-amz-content-sha256"]
    assert (found == UNSIGNED_PAYLOAD) == (size > MAX_INLINE_HASH_BYTES)


@pytest.mark.parametrize("code", ["BadDigest", "XAmzContentSHA256Mismatch"])
def test_body_that_was_damaged_on_its_way_is_sent_again(clock, code):
    agent = Agent(refusal(400, code), Response(body=b"content"))
    operation = Operation("PutObject", "PUT", "a", content=b"body")
    assert result_of(run(make_sender(clock, agent), clock, operation)) == b"content"
    assert [request.sent for request in agent.requests] == [b"body"] * 2


def test_transient_errors_are_retried(clock):
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
    # Delays of 0.2, 0.4 and 0.8 s, and 8 s after SlowDown; each attempt has a new signature.
    assert clock.seconds() - NOW == pytest.approx(9.4, abs=0.5)
    assert len({request.headers["x-amz-date"] for request in agent.requests}) > 1


def test_delays_are_random_up_to_their_maximum():
    error = Unreachable("GetObject", "no", retryable=True)
    numbers = iter([0.0, 0.5, 1.0])
    backoff = Backoff(jitter=lambda: next(numbers))
    assert [backoff.retry_delay_s(error, 3, 0.0) for _ in range(3)] == [0.0, 0.4, 0.8]
    assert 0.0 <= Backoff().retry_delay_s(error, 1, 0.0) <= 0.2


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
def test_delay_depends_on_error_and_attempt(error, attempt, elapsed, expected):
    assert Backoff(jitter=lambda: 1.0).retry_delay_s(error, attempt, elapsed) == expected


def test_delay_has_an_upper_limit():
    backoff = Backoff(attempts=50, jitter=lambda: 1.0)
    assert backoff.retry_delay_s(SlowDown("x", "no", retryable=True), 40, 0) == 10.0


def test_last_attempt_raises_its_error(clock):
    agent = Agent(*[refusal(503, "SlowDown", x_amz_request_id="7A") for _ in range(5)])
    error = failure_of(run(make_sender(clock, agent), clock), SlowDown).value
    assert len(agent.requests) == 5
    assert str(error) == "GetObject images/a b: no (SlowDown, 503, request 7A)"


@pytest.mark.parametrize(
    ("answers", "may_have_applied"),
    [
        ([refusal(404, "NoSuchKey")], False),
        ([refusal(400, "RequestTimeout"), refusal(404, "NoSuchKey")], False),
        ([ConnectError(), refusal(404, "NoSuchKey")], True),
        ([refusal(500, "InternalError"), refusal(404, "NoSuchKey")], True),
        ([ConnectError(), refusal(400, "RequestTimeout"), refusal(404, "NoSuchKey")], True),
    ],
)
def test_error_says_whether_an_earlier_attempt_may_have_succeeded(clock, answers, may_have_applied):
    sending = run(make_sender(clock, Agent(*answers)), clock)
    assert failure_of(sending, NotFound).value.may_have_applied is may_have_applied


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [(403, "AccessDenied", AccessDenied), (404, "NoSuchKey", NotFound), (400, "Strange", S3Error)],
)
def test_permanent_errors_are_not_retried(clock, status, code, kind):
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
        (
            403, b"<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>",
            AccessDenied, "Forbidden",
        ),
    ],
)  # fmt: skip
def test_error_responses_without_details(clock, status, body, kind, message):
    sending = run(make_sender(clock, Agent(Response(status, body=body))), clock)
    assert failure_of(sending, kind).value.message == message


def test_truncated_error_response_is_retried(clock):
    broken = endless(404, length=10)
    agent = Agent(broken, refusal(404, "NoSuchKey"))
    sending = make_sender(clock, agent).send(GET, collect)
    broken.cut()
    clock.advance(0.2)
    failure_of(sending, NotFound)


def test_response_that_cannot_be_read_is_retried(clock):
    def read(answer):
        if len(agent.requests) == 1:
            answer.close()
            raise InvalidResponse(answer.operation_name, "broken", retryable=True)
        return collect(answer)

    agent = Agent(Response(body=b"a"), Response(body=b"b"))
    assert result_of(run(make_sender(clock, agent), clock, read=read)) == b"b"


@pytest.mark.parametrize(
    ("operation", "requests"),
    [
        (GET, 2),
        (Operation("PutObject", "PUT", "a", content=b"x"), 2),
        # One more asks whether the store still responds.
        (Operation("CopyObject", "PUT", "a", slow_s=600), 2),
    ],
)
def test_store_that_stalls_is_given_up_within_30_seconds(clock, operation, requests):
    agent = Agent()
    sender = make_sender(clock, agent)
    began = clock.seconds()
    stall(clock, agent, sender.send(operation, collect))
    assert len(agent.requests) == requests
    # What follows in the request of the client: saving and cleaning up.
    for follower in (Operation("PutObject", "PUT", "b", content=b"x"), GET, DELETE):
        stall(clock, agent, sender.send(follower, collect))
    assert len(agent.requests) == requests + 3
    assert clock.seconds() - began < 30


DELETE = Operation("DeleteObject", "DELETE", "a")


def stall(clock, agent, sending, meanwhile=lambda: None):
    """Let the store accept requests, and never respond, until an operation is given up."""
    began = clock.seconds()
    while not sending.called:
        meanwhile()
        clock.advance(0.1)
        for request in agent.requests:
            if request.body is not None and not request.sent:
                request.body.startProducing(Sink())
                request.sent = True
    failure_of(sending, Stalled)
    return clock.seconds() - began


def test_store_that_stalls_on_writes_only_is_given_up_within_30_seconds(clock):
    """Reads of other clients are answered all the time, at their usual speed."""
    agent = Agent()
    sender = make_sender(clock, agent)
    began = clock.seconds()

    def read():
        agent.answers = [Response()]
        result_of(sender.send(GET, collect))

    piece = sender.send(Operation("PutObject", "PUT", "piece"), collect)
    agent.answers = [Response()]
    result_of(sender.send(Operation("PutObject", "PUT", "the piece before it"), collect))
    stall(clock, agent, piece, read)
    stall(clock, agent, sender.send(Operation("PutObject", "PUT", "list"), collect), read)
    assert clock.seconds() - began < 30
    sending = sender.send(GET, collect)
    clock.advance(9)
    agent.last.answer.callback(Response())
    result_of(sending)


@pytest.mark.parametrize("recovery", ["response", "time"])
def test_store_that_has_stalled_gets_its_usual_time_again(clock, recovery):
    agent = Agent()
    sender = make_sender(clock, agent)
    usual_s = stall(clock, agent, sender.send(GET, collect))
    assert stall(clock, agent, sender.send(GET, collect)) < 2
    if recovery == "time":
        clock.advance(5)
    else:
        agent.answers = [refusal(404, "NoSuchKey")]
        failure_of(sender.send(GET, collect), NotFound)
    assert stall(clock, agent, sender.send(GET, collect)) == pytest.approx(usual_s, abs=0.2)


def test_stall_beside_responses_does_not_shorten_other_requests(clock):
    agent = Agent()
    sender = make_sender(clock, agent)
    began = clock.seconds()
    sending = sender.send(GET, collect)
    for _ in range(110):  # the second attempt has begun
        clock.advance(0.1)
    agent.answers = [Response()]
    result_of(sender.send(GET, collect))
    stall(clock, agent, sending)
    usual_s = clock.seconds() - began
    assert stall(clock, agent, sender.send(GET, collect)) >= usual_s


def test_one_stall_of_several_errors_is_repeated(clock):
    agent = Agent(refusal(500, "InternalError"))
    sending = make_sender(clock, agent).send(GET, collect)
    clock.advance(0.2)
    assert len(agent.requests) == 2
    clock.advance(10)
    clock.advance(0.4)
    agent.last.answer.callback(Response(body=b"a"))
    assert result_of(sending) == b"a"


def is_check(request):
    return request.method == "DELETE"


def answer_checks(agent):
    for request in agent.requests:
        if is_check(request) and not request.answer.called:
            request.answer.callback(Response(404))


def test_slow_operations_may_last_while_the_store_responds_to_others(clock):
    agent = Agent()
    operation = Operation("CopyObject", "PUT", "a", slow_s=300)
    sending = make_sender(clock, agent).send(operation, collect)
    for _ in range(299):
        clock.advance(1)
        answer_checks(agent)
    no_result(sending)
    copies = [request for request in agent.requests if not is_check(request)]
    copies[0].answer.callback(Response(body=b"copied"))
    assert result_of(sending) == b"copied"
    assert len(copies) == 1
    assert clock.getDelayedCalls() == []


def test_slow_operations_end_some_time(clock):
    agent = Agent()
    operation = Operation("CopyObject", "PUT", "a", slow_s=60)
    sending = make_sender(clock, agent).send(operation, collect)
    assert stall(clock, agent, sending, lambda: answer_checks(agent)) == pytest.approx(60, abs=0.2)


def test_slow_operation_whose_response_has_begun_ends_when_the_store_stalls(clock):
    """Some stores send the head at once, and the rest after the work."""
    agent = Agent(endless(200, length=10))
    operation = Operation("CompleteMultipartUpload", "POST", "a", slow_s=600)
    sending = make_sender(clock, agent).send(operation, collect)
    assert stall(clock, agent, sending) < 24


def test_slow_operation_outlives_lost_connections_of_others(clock):
    agent = Agent()
    sending = make_sender(clock, agent).send(
        Operation("CopyObject", "PUT", "a", slow_s=600), collect
    )
    for _ in range(30):
        agent.answers = [ConnectError()]
        clock.advance(1)
    agent.requests[0].answer.callback(Response())
    result_of(sending)


@pytest.mark.parametrize("when", ["request", "wait", "body"])
@pytest.mark.parametrize("slow_s", [0, 600])
def test_cancelling_stops_requests_delays_and_bodies(clock, when, slow_s):
    broken = endless(length=10)
    agent = Agent(*{"request": [], "wait": [ConnectError()], "body": [broken]}[when])
    sending = make_sender(clock, agent).send(evolve(GET, slow_s=slow_s), collect)
    no_result(sending)
    sending.cancel()
    failure_of(sending, CancelledError)
    clock.advance(100)
    assert len(agent.requests) == 1
    assert broken.connection.dropped is (when == "body")


def test_clock_of_the_store_is_adopted_if_it_refuses_ours(clock, logged):
    agent = Agent(refusal(403, "RequestTimeTooSkewed", date=LATER), Response(), Response())
    sender = make_sender(clock, agent)
    result_of(run(sender, clock))
    assert clock.seconds() == NOW
    assert [request.headers["x-amz-date"] for request in agent.requests] == [
        "20130524T000000Z",
        "20130524T010000Z",
    ]
    result_of(run(sender, clock))
    assert agent.last.headers["x-amz-date"] == "20130524T010000Z"
    (line,) = logged
    assert line.startswith("the clocks of the store and of this machine differ")
    assert line.endswith("offset_s=+3600")
    assert "20130524T010000Z" in result_of(sender.presign(ADDRESS, "GET", "a", 60))


def test_clock_is_corrected_by_the_date_of_a_head_response(clock):
    agent = Agent(Response(403, {"date": LATER}), Response())
    result_of(run(make_sender(clock, agent), clock, Operation("HeadObject", "HEAD", "a")))
    assert agent.last.headers["x-amz-date"] == "20130524T010000Z"


def test_access_denied_with_a_correct_clock_is_raised(clock):
    agent = Agent(Response(403, {"date": "Fri, 24 May 2013 00:04:59 GMT"}))
    failure_of(run(make_sender(clock, agent), clock), AccessDenied)
    assert len(agent.requests) == 1


def test_clock_skew_after_a_correction_is_raised(clock):
    agent = Agent(*[refusal(403, "RequestTimeTooSkewed", date=LATER) for _ in range(2)])
    error = failure_of(run(make_sender(clock, agent), clock), ClockSkewed).value
    assert "the clock of the store is +3600 s ahead of this machine" in str(error)
    assert len(agent.requests) == 2


@pytest.mark.parametrize("date", ["", "yesterday", "Fri, 24 Mai 2013 00:00:00 GMT"])
def test_clock_is_not_corrected_without_a_valid_date(clock, date):
    agent = Agent(*[refusal(403, "RequestTimeTooSkewed", date=date) for _ in range(2)])
    failure_of(run(make_sender(clock, agent), clock), ClockSkewed)
    assert agent.last.headers["x-amz-date"] == "20130524T000000Z"


@pytest.mark.parametrize(
    ("answer", "region", "text"),
    [
        (
            Response(301, {"x-amz-bucket-region": "eu-west-1"}),
            "eu-west-1",
            "the bucket is in the region eu-west-1, not in us-east-1",
        ),
        (
            refusal(400, "AuthorizationHeaderMalformed", more="<Region>eu-west-1</Region>"),
            "eu-west-1",
            "the bucket is in the region eu-west-1, not in us-east-1",
        ),
        (
            refusal(301, "PermanentRedirect", more="<Endpoint>b.s3-eu.example</Endpoint>"),
            "",
            "the bucket has another endpoint: b.s3-eu.example",
        ),
        (Response(307, {"location": "http://elsewhere/"}), "", "the bucket is in another region"),
        (refusal(400, "AuthorizationHeaderMalformed", "bad"), "", "bad"),
    ],
)
def test_wrong_region_is_explained_and_not_followed(clock, answer, region, text):
    agent = Agent(answer)
    error = failure_of(run(make_sender(clock, agent), clock), WrongRegion).value
    assert error.region == region
    assert error.message == text
    assert len(agent.requests) == 1


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("off", []),
        ("nonsense", []),
        (
            "debug",
            [
                "s3 response: operation=GetObject images/a b status=500 seconds=",
                "s3 response: operation=GetObject images/a b status=404 seconds=",
            ],
        ),
        (
            "debugwithsigning",
            [
                "s3 request signed: method=GET url=http://objects:9000/images/a%20b headers=",
                "s3 response: ",
                "s3 request signed: ",
                "s3 response: ",
            ],
        ),
        (
            "debugwithhttpbody",
            [
                "s3 request: method=GET url=http://objects:9000/images/a%20b headers={",
                "s3 response: ",
                "s3 request: ",
                "s3 response: ",
            ],
        ),
        (
            "debugwithrequestretries",
            [
                "s3 response: ",
                "s3 request failed, retrying: attempt=1 delay_s=0.200 error=GetObject",
                "s3 response: ",
            ],
        ),
        (
            "debugwithrequesterrors",
            [
                "s3 response: ",
                "s3 response: ",
                "s3 request failed: attempt=2 error=GetObject images/a b: no (",
            ],
        ),
        ("debugwitheventstreambody", ["s3 response: ", "s3 response: "]),
    ],
)
def test_log_levels_select_lines_without_secrets(clock, logged, level, expected):
    agent = Agent(refusal(500, "InternalError", x_amz_request_id="7A"), refusal(404, "NoSuchKey"))
    credentials = FakeCredentials(
        *[succeed(Credentials("AKID", "hush", "token")) for _ in range(2)]
    )
    sender = make_sender(clock, agent, credentials=credentials, request_log=RequestLog(level))
    failure_of(run(sender, clock), NotFound)
    assert len(logged) == len(expected)
    for text, begin in zip(logged, expected, strict=True):
        assert text.startswith(begin)
        assert "hush" not in text
        assert "token'" not in text
        assert "Signature=" not in text
