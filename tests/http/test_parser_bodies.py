"""Large bodies of known length pass by llhttp, and nobody can tell from the events."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_registry.http.interfaces import Limits
from twisted_registry.http.parser import END_OF_BODY, ParseError, RequestHead, RequestParser

KIB = 1024
BODY = bytes(range(251)) * 1200
NEXT = b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n"


def put(body, fields=b""):
    head = b"PUT /x HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n" % (fields, len(body))
    return head + body


def told(events):
    """What a parser found, with the pieces of a body put together."""
    found = []
    for event in events:
        if isinstance(event, bytes) and found and isinstance(found[-1], bytes):
            found[-1] += event
        elif isinstance(event, RequestHead):
            found.append((event.target, event.length, event.body_bytes_read, event.complete))
        else:
            found.append(event)
    return found


def parsed(*reads):
    parser = RequestParser(Limits())
    for read in reads:
        parser.feed(read)
    return parser


def cut(data, *places):
    edges = [0, *sorted(min(place, len(data)) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def test_a_large_read_is_not_copied():
    parser = parsed(put(BODY)[: -len(BODY)])
    first, second = BODY[: 100 * KIB], BODY[100 * KIB :]
    for read in (first, second):
        parser.feed(read)
    _, one, other, end = parser.events
    assert one is first
    assert other is second
    assert end is END_OF_BODY


@given(st.lists(st.integers(0, 2 * len(BODY) + 400), max_size=6))
def test_it_does_not_matter_where_the_reads_end(places):
    data = put(BODY) + NEXT + put(b"small") + put(BODY) + NEXT
    events = told(parsed(*cut(data, *places)).events)
    assert events == [
        (b"/x", len(BODY), len(BODY), True), BODY, END_OF_BODY,
        (b"/next", 0, 0, True),
        (b"/x", 5, 5, True), b"small", END_OF_BODY,
        (b"/x", len(BODY), len(BODY), True), BODY, END_OF_BODY,
        (b"/next", 0, 0, True),
    ]  # fmt: skip


def test_small_reads_follow_a_large_one():
    whole = put(BODY)
    head = len(whole) - len(BODY)
    parser = parsed(*cut(whole, head, head + 70 * KIB, head + 70 * KIB + 1, len(whole) - 1))
    parser.feed(NEXT)
    assert told(parser.events)[1:] == [BODY, END_OF_BODY, (b"/next", 0, 0, True)]


@pytest.mark.parametrize(
    ("rest", "expected"),
    [(b"GET /\x00 HTTP/1.1\r\n\r\n", [ParseError(400)]), (b"", []), (b"GE", [])],
)
def test_what_follows_is_read_as_strictly_as_ever(rest, expected):
    whole = put(BODY)
    parser = parsed(*cut(whole, len(whole) - len(BODY)))
    parser.feed(rest)
    assert told(parser.events)[3:] == expected
    assert parser.in_head is (rest == b"GE")


def test_a_client_that_asks_to_close_is_not_heard_any_more():
    whole = put(BODY, b"Connection: close\r\n")
    parser = parsed(*cut(whole + NEXT, len(whole) - len(BODY)))
    assert told(parser.events)[1:] == [BODY, END_OF_BODY]
    assert parser.stopped


def test_an_upgrade_is_ignored_before_a_large_body_too():
    whole = put(BODY, b"Connection: upgrade\r\nUpgrade: other\r\n")
    parser = parsed(*cut(whole + NEXT, len(whole) - len(BODY) + 5))
    assert told(parser.events)[1:] == [BODY, END_OF_BODY, (b"/next", 0, 0, True)]


def test_a_chunked_body_is_parsed():
    chunk = b"%x\r\n%b\r\n" % (len(BODY), BODY)
    head = b"PUT /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    parser = parsed(head, chunk[: 100 * KIB], chunk[100 * KIB :], b"0\r\n\r\n" + NEXT)
    assert told(parser.events)[1:] == [BODY, END_OF_BODY, (b"/next", 0, 0, True)]
