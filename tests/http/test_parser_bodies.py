"""Large bodies of known length bypass llhttp without a difference in the events."""

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


def joined(events):
    """Return the events of a parser with the pieces of each body joined."""
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


def cut(data, *ends):
    edges = [0, *sorted(min(place, len(data)) for place in ends), len(data)]
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
def test_events_do_not_depend_on_the_ends_of_reads(ends):
    data = put(BODY) + NEXT + put(b"small") + put(BODY) + NEXT
    events = joined(parsed(*cut(data, *ends)).events)
    assert events == [
        (b"/x", len(BODY), len(BODY), True), BODY, END_OF_BODY,
        (b"/next", 0, 0, True),
        (b"/x", 5, 5, True), b"small", END_OF_BODY,
        (b"/x", len(BODY), len(BODY), True), BODY, END_OF_BODY,
        (b"/next", 0, 0, True),
    ]  # fmt: skip


def test_small_reads_after_a_large_one_are_part_of_the_body():
    whole = put(BODY)
    head = len(whole) - len(BODY)
    parser = parsed(*cut(whole, head, head + 70 * KIB, head + 70 * KIB + 1, len(whole) - 1))
    parser.feed(NEXT)
    assert joined(parser.events)[1:] == [BODY, END_OF_BODY, (b"/next", 0, 0, True)]


@pytest.mark.parametrize(
    ("rest", "expected"),
    [(b"GET /\x00 HTTP/1.1\r\n\r\n", [ParseError(400)]), (b"", []), (b"GE", [])],
)
def test_input_after_a_large_body_is_parsed_strictly(rest, expected):
    whole = put(BODY)
    parser = parsed(*cut(whole, len(whole) - len(BODY)))
    parser.feed(rest)
    assert joined(parser.events)[3:] == expected
    assert parser.in_head is (rest == b"GE")


def test_input_after_the_last_request_is_ignored():
    whole = put(BODY, b"Connection: close\r\n")
    parser = parsed(*cut(whole + NEXT, len(whole) - len(BODY)))
    assert joined(parser.events)[1:] == [BODY, END_OF_BODY]
    assert parser.stopped


def test_an_upgrade_before_a_large_body_is_ignored():
    whole = put(BODY, b"Connection: upgrade\r\nUpgrade: other\r\n")
    parser = parsed(*cut(whole + NEXT, len(whole) - len(BODY) + 5))
    assert joined(parser.events)[1:] == [BODY, END_OF_BODY, (b"/next", 0, 0, True)]


def test_a_large_chunked_body_is_parsed():
    chunk = b"%x\r\n%b\r\n" % (len(BODY), BODY)
    head = b"PUT /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    parser = parsed(head, chunk[: 100 * KIB], chunk[100 * KIB :], b"0\r\n\r\n" + NEXT)
    assert joined(parser.events)[1:] == [BODY, END_OF_BODY, (b"/next", 0, 0, True)]
