"""A request that was read before is not read again, and nothing else is taken for it."""

from __future__ import annotations

import gc
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.http.connection_kit import chunks, get, put
from twisted_registry.http.interfaces import Limits
from twisted_registry.http.parser import LONGEST, REMEMBERED, RequestHead, RequestParser, ShownHead

REQUEST = get(b"/path?x=y", b"Accept: a", b"accept: b")


def events(parser):
    found = list(parser.events)
    parser.events.clear()
    return found


def shown(event):
    """What an event says, whoever read it."""
    if isinstance(event, ShownHead):
        head, fields = event.head, {**event.head.fields, b"authorization": event.shown.encode()}
    elif isinstance(event, RequestHead):
        head, fields = event, event.fields
    else:
        return event
    return (
        *(head.method, head.target, head.version, event.headers, fields),
        *(head.keep_alive, head.length, head.complete, head.expects_continue),
    )


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
        get(b"/", b"authorization: Bearer secret"),
        get(b"/") + b"\r\n",
        b"\r\n" + get(b"/"),
        get(b"/", b"Authorization:Bearer secret"),
        get(b"/", b"Authorization: Bearer secret "),
        get(b"/", b"Authorization: \xff"),
        get(b"/", b"Authorization: "),
        get(b"/", b"Authorization: a", b"Authorization: b"),
        get(b"/", b"Authorization: a", b"authorization: b"),
        get(b"/", b"Authorization: a", b"Cookie: b"),
        b"\r\n" + get(b"/", b"Authorization: a"),
        get(b"/", b"Authorization: a") + b"\r\n",
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


CREDENTIALS = [b"Bearer secret", b"Basic YTpi", b"x", b"y" * 3000, b"a  b c"]


@pytest.mark.parametrize("before", [(), (b"Accept: a",), (b"Accept: a", b"accept: b")])
@pytest.mark.parametrize("after", [(), (b"Range: bytes=0-1",)])
def test_credentials_are_not_remembered_and_what_stands_beside_them_is(before, after):
    heads = {}
    parser = RequestParser(Limits(), heads)
    for credentials in CREDENTIALS:
        request = get(b"/a", *before, b"Authorization: " + credentials, *after)
        alone = RequestParser(Limits())
        for each in (parser, alone):
            each.feed(request)
        ((ours,), (theirs,)) = events(parser), events(alone)
        assert shown(ours) == shown(theirs)
    ((data, head),) = heads.items()
    assert data == get(b"/a", *before, *after)
    assert not head.fields.keys() & {b"authorization"}
    # Whoever shows none gets the head without any.
    parser.feed(data)
    assert events(parser) == [head]


def test_credentials_count_against_the_limits():
    limits = Limits(header_bytes=300, header_count=3)
    parser = RequestParser(limits, {})
    for fields, status in (
        ((b"Authorization: a", b"X: b"), None),
        ((b"Authorization: " + b"a" * 400, b"X: b"), 431),
    ):
        parser.feed(get(b"/", *fields))
        (event,) = events(parser)
        assert getattr(event, "status", None) == status
    parser = RequestParser(limits, {})
    parser.feed(get(b"/", b"X: b", b"Y: c"))
    parser.feed(get(b"/", b"X: b", b"Authorization: a", b"Y: c"))
    assert events(parser)[-1].status == 431


def test_who_shows_the_same_again_brings_the_same_along():
    """Whatever else they ask for; and whoever shows something else does not."""
    heads = {}
    parser, other = RequestParser(Limits(), heads), RequestParser(Limits(), heads)
    for target in (b"/a", b"/b"):
        parser.feed(get(target))
    mine, yours = b"Authorization: Bearer mine", b"Authorization: Bearer yours"
    for target, line in ((b"/a", mine),) * 3 + ((b"/b", mine), (b"/b", yours), (b"/b", yours)):
        parser.feed(get(target, line))
    for _ in range(2):
        other.feed(get(b"/a", mine))
    first, again, more, elsewhere, new, changed = events(parser)[2:]
    theirs, _ = events(other)
    assert first is again is more
    assert first.shown is elsewhere.shown
    assert new is changed
    assert (first.shown, new.shown, theirs.shown) == (
        *("Bearer mine", "Bearer yours", "Bearer mine"),
    )
    assert first.shown is not theirs.shown, "connections share no credentials"
    assert all(isinstance(head, RequestHead) for head in heads.values())


def test_who_changes_what_they_show_brings_that_along():
    parser = RequestParser(Limits(), {})
    parser.feed(get(b"/"))
    for credentials in (b"mine", b"yours", b"mine", b"yours"):
        parser.feed(get(b"/", b"Authorization: " + credentials))
    assert [head.shown for head in events(parser)[1:]] == ["mine", "yours", "mine", "yours"]


def test_what_is_shown_again_stands_where_it_stood():
    """Among the other fields, whichever these are."""
    line = b"Authorization: Bearer mine"
    parser, alone = RequestParser(Limits(), {}), RequestParser(Limits())
    others = [(), (b"Accept: a",), (b"Accept: a", b"Range: bytes=0-1")]
    requests = [
        get(b"/", *fields[:place], line, *fields[place:])
        for fields in others
        for place in range(len(fields) + 1)
    ]
    for fields in others:
        parser.feed(get(b"/", *fields))
    parser.events.clear()
    for request in [requests[0], *requests, *requests]:
        parser.feed(request)
        (ours,) = events(parser)
        alone._known.heads.clear()
        alone.feed(request)
        assert shown(ours) == shown(*events(alone))
    assert ours.shown == "Bearer mine"


@pytest.mark.parametrize(
    "after",
    [
        get(b"/"),
        get(b"/unknown"),
        get(b"/", b"Authorization: Bearer other")[:-2],
        get(b"/", b"Authorization:Bearer secret"),
        get(b"/unknown", b"Authorization: Bearer secret"),
        put(b"/", b"body", b"Authorization: Bearer secret"),
        get(b"/", b"X: " + 20000 * b"x"),
        b"nonsense\r\n\r\n",
        None,
    ],
)
def test_a_secret_goes_when_the_next_request_is_in(after):
    parser = RequestParser(Limits(), {})
    for fields in ((), *[(b"Authorization: Bearer secret",)] * 2):
        parser.feed(get(b"/", *fields))
    secret = weakref.ref(events(parser).pop())
    assert secret() is not None, "the connection keeps it"
    if after is None:
        parser.close()
    else:
        parser.feed(after)
    gc.collect()
    assert secret() is None


PIECES = [
    REQUEST,
    get(b"/other"),
    get(b"/other", b"Authorization: a b"),
    get(b"/path?x=y", b"Accept: a", b"Authorization: c", b"accept: b"),
    get(b"/path?x=y", b"Accept: a", b"Authorization: a b", b"accept: b"),
    get(b"/path?x=y", b"Authorization: a b", b"Accept: a", b"accept: b"),
    get(b"/path?x=y", b"Accept: a", b"Authorization: a bc", b"accept: b"),
    get(b"/other")[:-2] + b"Authorization: a b\r\n",
    get(b"/other") + b"Authorization: a b\r\n\r\n",
    put(b"/other", b"body", b"Authorization: a b"),
    get(b"/other", b"Authorization: a b", b"Authorization: a b"),
    get(b"/other") + b"Authorization: a\r\n\r\n",
    b"Authorization: a\r\n",
    b"\r\nAuthorization: a" + get(b"/other"),
    get(b"/other")[:-2] + b"Authorization: a\r\n\r\n\r\n",
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
        without._known.heads.clear()
        with_memory.feed(piece)
        without.feed(piece)
        assert with_memory.stopped == without.stopped
        assert with_memory.in_head == without.in_head
        ours, theirs = events(with_memory), events(without)
        assert [*map(shown, ours)] == [*map(shown, theirs)]
