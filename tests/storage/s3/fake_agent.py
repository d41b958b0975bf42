"""A fake Agent that tests answer, and responses for it."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone, ResponseFailed
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent
from zope.interface import implementer

from twisted_registry.storage.s3.address import endpoint_address
from twisted_registry.storage.s3.client import S3Client
from twisted_registry.storage.s3.credentials import Credentials, StaticCredentials
from twisted_registry.storage.s3.sender import Backoff, Sender
from twisted_registry.storage.s3.transport import Transport

case = SynchronousTestCase()
result_of, failure_of, no_result = (
    case.successResultOf,
    case.failureResultOf,
    case.assertNoResult,
)

#: Friday, 24 May 2013, 00:00:00 GMT.
NOW = 1369353600
ADDRESS = endpoint_address("images", "http://objects:9000")
CREDENTIALS = StaticCredentials(Credentials("AKID", "hush"))


class Connection:
    """The transport of a body protocol."""

    def __init__(self):
        self.paused = True
        self.dropped = False

    def pauseProducing(self):
        self.paused = True

    def resumeProducing(self):
        self.paused = False

    def stopProducing(self):
        self.dropped = True


class Response:
    """A response whose body the test sends, at once or in pieces."""

    def __init__(self, code=200, headers=None, body=b"", length=None, whole=True):
        self.code = code
        self.headers = Headers({name: [value] for name, value in (headers or {}).items()})
        self.length = len(body) if length is None else length
        self.connection = Connection()
        self._waiting = [body] if body else []
        self._whole = whole
        self.protocol = None

    def deliverBody(self, protocol):
        assert self.protocol is None
        self.protocol = protocol
        protocol.makeConnection(self.connection)
        for data in self._waiting:
            protocol.dataReceived(data)
        if self._whole:
            self.end()
        else:
            self.connection.resumeProducing()

    def send(self, data):
        self.protocol.dataReceived(data)

    def end(self, error=None):
        self.protocol.connectionLost(Failure(error or ResponseDone()))

    def cut(self):
        self.end(ResponseFailed([Failure(ConnectionLost())]))

    def end_somewhere(self):
        self.end(PotentialDataLoss())


def xml(root, content="", code=200, **headers):
    body = f'<?xml version="1.0"?>\n<{root} xmlns="http://s3">{content}</{root}>'
    return Response(code, headers, body.encode())


def refusal(status, code, message="no", more="", **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return xml("Error", f"<Code>{code}</Code><Message>{message}</Message>{more}", status, **named)


def endless(code=200, headers=None, length=None):
    """A response of which only the head has arrived."""
    return Response(code, headers, length=UNKNOWN_LENGTH if length is None else length, whole=False)


@define
class Request:
    """A request that the agent received."""

    method: str
    url: str
    headers: dict[str, str]
    body: object
    answer: Deferred = field(factory=Deferred)
    sent: bytes = b""


@implementer(IAgent)
class Agent:
    """Records requests, and answers them from ``answers``; without any, the test answers.

    An answer is a response, an exception, or a function of the request that returns a response.
    """

    def __init__(self, *answers):
        self.answers = list(answers)
        self.requests = []

    def request(self, method, uri, headers=None, bodyProducer=None):
        request = Request(
            method.decode(),
            uri.decode(),
            {
                name.decode().lower(): values[0].decode()
                for name, values in headers.getAllRawHeaders()
            },
            bodyProducer,
        )
        self.requests.append(request)
        if bodyProducer is not None and self.answers:
            sink = Sink()
            bodyProducer.startProducing(sink)
            request.sent = sink.content
        if self.answers:
            answer = self.answers.pop(0)
            if isinstance(answer, Exception):
                request.answer.errback(answer)
            else:
                request.answer.callback(answer(request) if callable(answer) else answer)
        return request.answer

    @property
    def last(self):
        return self.requests[-1]


class Sink:
    """A consumer that may pause its producer."""

    def __init__(self, pause_after=None):
        self.pieces = []
        self.producer = None
        self.registered = 0
        self.pause_after = pause_after

    @property
    def content(self):
        return b"".join(self.pieces)

    def registerProducer(self, producer, streaming):
        assert streaming
        self.producer = producer
        self.registered += 1

    def unregisterProducer(self):
        self.producer = None

    def write(self, data):
        self.pieces.append(data)
        if self.pause_after is not None and len(self.pieces) >= self.pause_after:
            self.producer.pauseProducing()


def make_sender(clock, agent, **options):
    options = {
        "address": ADDRESS,
        "credentials": CREDENTIALS,
        "user_agent": "tests/1",
        "backoff": Backoff(jitter=lambda: 1.0),
        **options,
    }
    return Sender(clock, Transport(clock, agent), **options)


def make_client(clock, agent, object_options=None, public=None, **options):
    sender = make_sender(clock, agent, **options)
    more = {} if object_options is None else {"object_options": object_options}
    return S3Client(sender, public=public, **more)


ETAG = "5d41402abc4b2a76b9719d911017c592"
DATE = "Fri, 24 May 2013 00:00:00 GMT"
TYPE = {"content-type": "application/octet-stream"}


def asked(request):
    """Return method, path, query and operation-specific headers of a request."""
    parts = urlsplit(request.url)
    assert parts.netloc == "objects:9000"
    usual = {"host", "user-agent", "authorization", "x-amz-date", "x-amz-content-sha256"}
    headers = {name: value for name, value in request.headers.items() if name not in usual}
    signed = request.headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0]
    assert {*signed.split(";")} == {*request.headers} - {"user-agent", "authorization"}
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    return request.method, parts.path.removeprefix("/images"), query, headers
