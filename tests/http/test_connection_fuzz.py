"""Properties of connections for any bytes, however they are split.

The long run over the same properties is ``tests/fuzz/fuzz_connection.py``.
"""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.web.server import Site

from tests.fuzz import fuzz_connection, fuzz_inputs

TOKEN = st.text("abcXYZ019-_.~", min_size=1, max_size=8).map(str.encode)
VALUE = st.text('abc XYZ;,="/*\\\t', max_size=20).map(lambda text: text.strip().encode())


@st.composite
def requests(draw, targets=("/", "/a/b?c=d", "/s/x", "/%2e")):
    """A valid request."""
    method = draw(st.sampled_from([b"GET", b"HEAD", b"PUT", b"POST", b"DELETE"]))
    target = draw(st.sampled_from(targets)).encode()
    fields = [b"Host: x"]
    fields += [b"X-%b: %b" % (draw(TOKEN), draw(VALUE)) for _ in range(draw(st.integers(0, 3)))]
    body = b""
    if method in {b"PUT", b"POST"}:
        pieces = draw(st.lists(st.binary(min_size=1, max_size=40), max_size=3))
        if draw(st.booleans()):
            body = b"".join(pieces)
            fields.append(b"Content-Length: %d" % len(body))
        else:
            body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
            body += b"0\r\n\r\n"
            fields.append(b"Transfer-Encoding: chunked")
    order = draw(st.permutations(fields))
    return b"\r\n".join([method + b" " + target + b" HTTP/1.1", *order]) + b"\r\n\r\n" + body


def cuts(draw, data):
    return sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))


@given(st.data())
def test_valid_requests_are_answered_however_they_are_split(data):
    stream = b"".join(data.draw(st.lists(requests(), min_size=1, max_size=4)))
    seen, sent, closed = fuzz_connection.run(stream, [])
    assert len(seen) == len(fuzz_connection.parse_independently(stream))
    assert sent.count(b"HTTP/1.1 200 OK\r\n") == len(seen)
    assert not closed
    fuzz_connection.check(stream, [cuts(data.draw, stream), list(range(1, len(stream)))])


@given(st.data())
def test_any_bytes_keep_the_properties(data):
    pieces = st.one_of(
        requests(("/", "/s/x", "/s/refuse", "*", "http://h/p")),
        st.sampled_from(fuzz_inputs.TOKENS),
        st.binary(max_size=20),
    )
    stream = b"".join(data.draw(st.lists(pieces, max_size=6)))
    fuzz_connection.check(stream, [cuts(data.draw, stream)])


@given(st.randoms(use_true_random=False))
def test_mutations_of_the_corpus_keep_the_properties(rng):
    data = fuzz_inputs.make_input(rng, fuzz_inputs.load_corpus())
    fuzz_connection.check(data, fuzz_inputs.make_cuts(rng, len(data)))


@pytest.mark.parametrize("path", sorted(fuzz_inputs.CORPUS.glob("*.http")), ids=lambda p: p.stem)
def test_the_corpus_keeps_the_properties(path):
    data = path.read_bytes()
    fuzz_connection.check(data, [list(range(1, len(data)))])


def stock(some):
    """Return what twisted.web itself answers to the same requests with the same Resources."""
    seen = []
    site = Site(fuzz_connection.Root(seen), reactor=Clock())
    site.log = lambda request: None
    transport = StringTransport()
    channel = site.buildProtocol(None)
    channel.makeConnection(transport)
    # One by one: older versions forget what follows a chunked body in the same read.
    for one in some:
        channel.dataReceived(one)
    return seen, transport.value()


@given(st.lists(requests(("/", "/a/b?c=d", "/%2e", "/x//y")), min_size=1, max_size=4))
def test_valid_requests_are_answered_as_by_twisted_web(some):
    stream = b"".join(some)
    seen, sent, _ = fuzz_connection.run(stream, [])
    their_seen, theirs = stock(some)
    assert seen == their_seen
    # Server is not sent, and Date differs.
    untold = re.compile(rb"(?:Server|Date): [^\r]*\r\n")
    assert sorted(untold.sub(b"", sent).split(b"\r\n")) == sorted(
        untold.sub(b"", theirs).split(b"\r\n")
    )


def test_the_fuzzer_detects_smuggling(monkeypatch):
    """A check of the fuzzer itself."""
    monkeypatch.setattr(fuzz_connection, "parse_independently", lambda _: [])
    with pytest.raises(fuzz_connection.PropertyViolated):
        fuzz_connection.check(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", [])
