"""A request that was read before is not read again, and nothing else is taken for it."""

from __future__ import annotations

import pytest
from channel_kit import chunks, get, put
from hypothesis import given
from hypothesis import strategies as st

from twisted_registry.api.limits import Limits
from twisted_registry.api.parser import LONGEST, REMEMBERED, Head, RequestParser

REQUEST = get(b"/path?x=y", b"Accept: a", b"accept: b")


def events(parser):
    found = list(parser.events)
    parser.events.clear()
    return found


def shown(event):
    """What an event says, whoever read it."""
    if not isinstance(event, Head):
        return event
    return (event.method, event.target, event.version, event.headers, event.keep, event.length)


def test_the_second_time_it_is_the_same_head():
    heads = {}
    first, second = RequestParser(Limits(), heads), RequestParser(Limits(), heads)
    first.feed(REQUEST)
    second.feed(REQUEST)
    first.feed(REQUEST)
    (head, again), (same,) = events(first), events(second)
    assert head is same is again
    assert head.fields[b"accept"] == b"b"


@pytest.mark.parametrize(
    "data",
    [
        get(b"/", b"Authorization: Bearer secret"),
        get(b"/", b"Cookie: secret"),
        get(b"/", b"Proxy-Authorization: secret"),
        get(b"/", b"Upgrade: h2c", b"Connection: Upgrade"),
        get(b"/", b"Connection: close"),
        get(b"/", b"X: " + LONGEST * b"x"),
        get(b"/", version=b"HTTP/1.0"),
        get(b"/") + get(b"/"),
        get(b"/") + b"GET",
        get(b"/")[:-2],
        put(b"/", b"body"),
        put(b"/", b"body")[:-1],
        chunks(b"/", b"piece"),
        b"nonsense\r\n\r\n",
        b"\r\n",
    ],
)
def test_what_is_not_remembered(data):
    heads = {}
    RequestParser(Limits(), heads).feed(data)
    assert heads == {}


def test_in_the_middle_of_a_request_nothing_is_recognised():
    """The same bytes may be the body, or the end of a head."""
    heads = {}
    RequestParser(Limits(), heads).feed(REQUEST)
    for start in (
        get(b"/a", b"Content-Length: %d" % len(REQUEST)),
        b"GET /b HTTP/1.1\r\nHost: y\r\nA: ",
    ):
        parser = RequestParser(Limits(), heads)
        parser.feed(start)
        parser.feed(REQUEST)
        assert all(event is not heads[REQUEST] for event in parser.events)
    parser = RequestParser(Limits(), heads)
    parser.feed(b"nonsense\r\n\r\n")
    parser.feed(REQUEST)
    assert len(events(parser)) == 1


def test_only_so_many_are_remembered():
    heads = {}
    parser = RequestParser(Limits(), heads)
    for number in range(REMEMBERED + 2):
        parser.feed(get(b"/%d" % number))
    assert len(heads) == REMEMBERED
    assert get(b"/1") not in heads
    assert get(b"/2") in heads


PIECES = [
    REQUEST,
    get(b"/other"),
    put(b"/", b"body"),
    chunks(b"/", b"x", REQUEST),
    b"\r\n",
    b"\r",
    get(b"/", b"Connection: close"),
    b"G",
    b"\r\n\r\n",
]


@given(st.lists(st.sampled_from(PIECES), max_size=12))
def test_it_makes_no_difference(pieces):
    """A parser that remembers reads the same out of any reads as one that does not."""
    heads = {}
    for piece in PIECES[:2]:
        RequestParser(Limits(), heads).feed(piece)
    with_memory, without = RequestParser(Limits(), heads), RequestParser(Limits())
    for piece in pieces:
        without._heads.clear()
        with_memory.feed(piece)
        without.feed(piece)
        assert with_memory.stopped == without.stopped
        assert with_memory.in_head == without.in_head
        ours, theirs = events(with_memory), events(without)
        assert [*map(shown, ours)] == [*map(shown, theirs)]
