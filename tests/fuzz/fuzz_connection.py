"""Fuzzer for HTTP connections.

    python -m tests.fuzz.fuzz_connection --seconds 600 --seed 1

Every input is a mutation of the corpus or of requests from a grammar. The connection receives it
in one piece and in random pieces. These properties must hold:

- nothing is raised, and nothing is logged as a failure;
- the responses are well-formed HTTP, one for each request, and at most one refusal, the last;
- however the bytes are split, the same requests reach the Resources, with the same responses;
- every request that reaches a Resource is also found by a second, independent and simple parser
  of RFC 9112; any other request would be smuggled;
- the cache of heads finds nothing that llhttp refuses or reads differently.

An input that breaks a property is written to ``tests/fuzz/found``, and the run ends with 1.
``--input FILE`` runs one input again.
"""

import argparse
import hashlib
import random
import re
import sys
import time
from pathlib import Path

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import LogLevel, globalLogPublisher
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from tests.fuzz.fuzz_inputs import load_corpus, make_cuts, make_input
from twisted_registry.http.interfaces import IStreamingResource, Limits
from twisted_registry.http.parser import HeadCache, RequestHead, RequestParser
from twisted_registry.http.site import HTTPSite

FOUND = Path(__file__).parent / "found"

# Small limits, so that inputs exceed them.
LIMITS = Limits(
    url_bytes=300, header_bytes=600, header_count=12, content_bytes=400, linger_bytes=500
)


REFUSED = b"refused: "


def make_error_body(_status, message):
    return b"text/plain", REFUSED + message.encode()


class Sink:
    def __init__(self):
        self.received = b""

    def write(self, piece):
        self.received += piece


class Echo(Resource):
    """Responds with method, target and length of the body, and records the request."""

    isLeaf = True

    def __init__(self, recorded):
        super().__init__()
        self.recorded = recorded

    def render(self, request):
        return self.respond(request, request.content.read())

    def respond(self, request, body):
        self.recorded.append((request.method, request.uri, body))
        return b"%b %b %d" % (request.method, request.uri, len(body))


@implementer(IStreamingResource)
class Streaming(Echo):
    """Reads the body as a stream, or refuses it."""

    def render(self, request):
        if request.path.startswith(b"/s/refuse"):
            request.setResponseCode(401)
            self.recorded.append((request.method, request.uri, None))
            return b"no"
        sink = Sink()

        def done(_):
            response = self.respond(request, sink.received)
            request.setHeader(b"Content-Length", b"%d" % len(response))
            request.write(response)
            request.finish()

        request.body.startProducing(sink).addCallbacks(done, lambda _: None)
        return NOT_DONE_YET


class Root(Resource):
    def __init__(self, recorded):
        super().__init__()
        self.recorded = recorded

    def getChild(self, name, request):
        return (Streaming if name == b"s" else Echo)(self.recorded)


class Transport(StringTransport):
    def abortConnection(self):
        self.disconnecting = True


class PropertyViolated(Exception):
    """A property does not hold."""


def run(data, cuts):
    """Feed ``data``, split at ``cuts``; return recorded requests, sent bytes, whether it closed."""
    recorded, failures = [], []

    def observe(event):
        if event.get("log_level") in {LogLevel.critical, LogLevel.error}:
            failures.append(event)

    clock = Clock()
    site = HTTPSite(Root(recorded), clock, limits=LIMITS, make_error_body=make_error_body)
    transport = Transport()
    channel = site.buildProtocol(None)
    globalLogPublisher.addObserver(observe)
    try:
        channel.makeConnection(transport)
        for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            if start < end:
                channel.dataReceived(data[start:end])
            if transport.producerState == "paused":
                raise PropertyViolated("the connection is paused, but no request is unfinished")
        sent = _REQUEST_ID.sub(b"", transport.value())
        closed = transport.disconnecting
        channel.connectionLost(None)
    finally:
        globalLogPublisher.removeObserver(observe)
    if failures:
        raise PropertyViolated(f"logged: {failures[0]}")
    if clock.getDelayedCalls():
        raise PropertyViolated("a delayed call is left")
    return recorded, sent, closed


def check_responses(methods, sent, closed):
    """Check that ``sent`` is one response for each request, with at most one refusal at the end."""
    text = sent.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
    count = 0
    while text:
        head, blank, rest = text.partition(b"\r\n\r\n")
        if not blank or not head.startswith(b"HTTP/1.1 "):
            raise PropertyViolated(f"not a response: {text[:60]!r}")
        length = re.search(rb"\r\nContent-Length: (\d+)", head)
        # A request line that is refused is not known to be a HEAD.
        bodiless = (
            count < len(methods) and methods[count] == b"HEAD" and not rest.startswith(REFUSED)
        )
        size = 0 if bodiless or length is None else int(length[1])
        close = b"\r\nConnection: close" in head
        # A HEAD that was refused is not recorded.
        if len(rest) < size and not (close and not rest):
            raise PropertyViolated("a response is cut off")
        text = rest[size:]
        count += 1
        if close and text:
            raise PropertyViolated("a response follows the last one")
        if close and not closed:
            raise PropertyViolated("the connection is not closed")


#: Another one in each run.
_REQUEST_ID = re.compile(rb"X-Request-Id: [0-9a-f]{12}-[0-9]+\r\n")
_REFUSAL = re.compile(rb"HTTP/1\.1 (?:400|413|414|431|501|505) .*\Z", re.DOTALL)
_LINE = re.compile(rb"([A-Z-]+) +(\S+) +(?:HTTP|RTSP)/1\.([01])\Z")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*?)[ \t]*\Z")
_SIZE = re.compile(rb"([0-9A-Fa-f]+)(?:;[^\r\n]*)?\Z")


def parse_independently(data):
    """Return the requests in ``data`` by RFC 9112, parsed without a state machine.

    It is less strict than the connection where strictness only means a refusal.
    """
    found = []
    at = 0
    while True:
        while data[at : at + 1] in {b"\r", b"\n"}:
            at += 1
        end = data.find(b"\r\n\r\n", at)
        if end < 0:
            return found
        lines = data[at:end].split(b"\r\n")
        line = _LINE.match(lines[0])
        fields = [_FIELD.match(field) for field in lines[1:]]
        if line is None or None in fields:
            return found
        values = {}
        for field in fields:
            values.setdefault(field[1].lower(), []).append(field[2])
        at = end + 4
        codings, lengths = values.get(b"transfer-encoding"), values.get(b"content-length")
        if lengths and (codings or len(lengths) > 1 or not lengths[0].isdigit()):
            return found
        if codings:
            body, at = dechunk(data, at)
        else:
            size = int(lengths[0]) if lengths else 0
            body = data[at : at + size] if len(data) - at >= size else None
            at += size
        found.append((line[1], line[2], body))
        if body is None:
            return found


def dechunk(data, at):
    body = b""
    while True:
        end = data.find(b"\r\n", at)
        size = _SIZE.match(data[at:end]) if end >= 0 else None
        if size is None:
            return None, at
        length = int(size[1], 16)
        at = end + 2
        if length == 0:
            end = data.find(b"\r\n", at)
            while end > at:
                at = end + 2
                end = data.find(b"\r\n", at)
            return (body, end + 2) if end >= 0 else (None, at)
        body += data[at : at + length]
        if data[at + length : at + length + 2] != b"\r\n":
            return None, at
        at += length + 2


def requests_match(recorded, found):
    """Return whether the recorded requests equal the first ones found by the independent parser."""
    for (method, target, body), (their_method, their_target, their_body) in zip(
        recorded, found, strict=False
    ):
        origin = re.sub(rb"(?i)^https?://[^/?]*", b"", their_target)
        if not origin.startswith((b"/", b"*")):
            origin = b"/" + origin
        if (method, target) != (their_method, origin):
            return False
        if body is not None and body != their_body:
            return False
    return len(recorded) <= len(found)


def check(data, cuts):
    """Raise :class:`PropertyViolated` unless the properties hold."""
    check_head_cache(data)
    recorded, sent, closed = run(data, [])
    found = parse_independently(data)
    check_responses([method for method, _, _ in found], sent, closed)
    # OPTIONS * reaches no Resource
    found = [request for request in found if request[1] != b"*"]
    if not requests_match(recorded, found):
        raise PropertyViolated(f"recorded {recorded}, but the input has {found}")
    for places in cuts:
        again = run(data, places)
        if b"refuse" in data:
            # Whether the connection stays open after an unread body depends on how much of it
            # had arrived when the response began.
            shorter, longer = sorted((recorded, again[0]), key=len)
            is_equal = longer[: len(shorter)] == shorter and requests_match(again[0], found)
        elif is_above_limit(data):
            is_equal = (recorded, without_refusal(sent)) == (again[0], without_refusal(again[1]))
        else:
            is_equal = (recorded, closed) == (again[0], again[2]) and (
                without_varying_parts(sent) == without_varying_parts(again[1])
            )
        if not is_equal:
            whole = recorded, sent, closed
            raise PropertyViolated(f"cut at {places}: {again}, in one piece: {whole}")


def parse_head(data, cache=None):
    """Return what the head says if ``data`` is one request without a body, or None."""
    parser = RequestParser(LIMITS, cache)
    parser.feed(data)
    (head, *more) = parser.events or [None]
    return None if more or not isinstance(head, RequestHead) else describe_head(head)


def describe_head(head):
    return head.method, head.target, head.version, sorted(head.headers), head.keep_alive


def check_head_cache(data):
    """Check that a cache which has seen ``data`` finds only what is parsed to the same head."""
    cache = HeadCache(LIMITS)
    parse_head(data, cache)
    hashed = hashlib.sha256(data)
    for candidate in (
        *(data, data[:-1], data[1:], data + b"\r\n", b"\r\n" + data, data.swapcase()),
        *(hashed.digest(), hashed.hexdigest().encode(), b"%d" % hash(data)),
    ):
        head = cache.find(candidate)
        if head is not None and parse_head(candidate) != describe_head(head):
            raise PropertyViolated(f"the cache of heads takes {candidate!r} for {head!r}")


def without_varying_parts(sent):
    """Return ``sent`` without parts that depend on the split.

    These are ``100 Continue``, and which of several faults was found first.
    """
    return _REFUSAL.sub(b"refused", sent.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b""))


def is_above_limit(data):
    """Return whether ``data`` ends within a head, or chunk framing, above the limit.

    The bytes of the read in which it begins are not counted, so the refusal comes a read later.
    """
    return len(data) - data.rfind(b"\r\n\r\n") - 4 > LIMITS.url_bytes + LIMITS.header_bytes


def without_refusal(sent):
    """Return ``sent`` without a refusal at the end."""
    return _REFUSAL.sub(b"", sent.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b""))


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--input", type=Path, help="run this input only, split at every byte")
    options = parser.parse_args(arguments)
    if options.input is not None:
        data = options.input.read_bytes()
        check(data, [list(range(1, len(data)))])
        return 0
    rng = random.Random(options.seed)
    corpus = load_corpus()
    begun = time.monotonic()
    count = requests = 0
    while time.monotonic() - begun < options.seconds:
        data = make_input(rng, corpus)
        cuts = make_cuts(rng, len(data))
        try:
            check(data, cuts)
        except Exception as error:  # noqa: BLE001
            FOUND.mkdir(exist_ok=True)
            path = FOUND / f"{hashlib.sha256(data).hexdigest()[:16]}.http"
            path.write_bytes(data)
            print(f"{path}: {type(error).__name__}: {error}")
            print(f"after {count} inputs, seed {options.seed}, cuts {cuts}")
            return 1
        count += 1
        requests += len(parse_independently(data))
    print(f"{count} inputs with {requests} requests in {options.seconds:.0f} s: nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main())
