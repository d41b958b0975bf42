"""The cache of parsed heads: equal bytes have an equal head, and no credentials are kept."""

from __future__ import annotations

import gc
import hashlib
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.http.connection_kit import chunks, get, put
from twisted_registry.http.interfaces import Limits
from twisted_registry.http.parser import (
    MAX_CACHED_HEAD_BYTES,
    MAX_CACHED_HEADS,
    MAX_CACHED_PART_BYTES,
    HeadCache,
    ParseError,
    RequestHead,
    RequestParser,
)

REQUEST = get(b"/path?x=y", b"Accept: a", b"accept: b")


@pytest.fixture
def cache():
    return HeadCache(Limits())


def take_events(parser):
    events = list(parser.events)
    parser.events.clear()
    return events


def parse(data, cache=None):
    """Return the events of a new connection."""
    parser = RequestParser(Limits(), cache)
    parser.feed(data)
    return take_events(parser)


def content(event):
    """Return what an event says. The order of different fields has no meaning."""
    if not isinstance(event, RequestHead):
        return event
    return (
        *(event.method, event.target, event.version, sorted(event.headers), event.fields),
        *(event.keep_alive, event.length, event.complete, event.expects_continue),
    )


def held_bytes(cache):
    """Return all bytes that are reachable from a cache."""
    found, seen, todo = [], set(), [cache]
    while todo:
        each = todo.pop()
        if id(each) in seen or isinstance(each, type):
            continue
        seen.add(id(each))
        if isinstance(each, bytes):
            found.append(each)
        todo.extend(gc.get_referents(each))
    return found


def test_connections_share_the_head_of_equal_requests(cache):
    (first,), (second,) = parse(REQUEST, cache), parse(REQUEST, cache)
    assert second is first
    assert first.fields[b"accept"] == b"b"


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
        get(b"/", *[b"X: " + 256 * b"x"] * (MAX_CACHED_HEAD_BYTES // 256)),
        get(b"/", b"X: " + (MAX_CACHED_PART_BYTES + 1) * b"x"),
        get(b"/" + MAX_CACHED_PART_BYTES * b"a"),
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
def test_other_input_than_one_plain_head_is_not_cached(cache, data):
    before = held_bytes(cache)
    parse(data, cache)
    assert held_bytes(cache) == before


def test_the_cache_is_not_used_inside_a_request(cache):
    """The same bytes may be a body, or the end of a head."""
    (cached,) = parse(REQUEST, cache)
    for start in (
        get(b"/a", b"Content-Length: %d" % len(REQUEST)),
        b"GET /b HTTP/1.1\r\nHost: y\r\nA: ",
    ):
        parser = RequestParser(Limits(), cache)
        parser.feed(start)
        parser.feed(REQUEST)
        assert all(event is not cached for event in parser.events)


def test_the_cache_is_not_used_after_an_error(cache):
    parse(REQUEST, cache)
    parser = RequestParser(Limits(), cache)
    parser.feed(b"nonsense\r\n\r\n")
    parser.feed(REQUEST)
    assert len(parser.events) == 1


def test_the_digest_of_a_cached_head_is_not_a_request(cache):
    """Heads that are too long for a key are kept by their digest."""
    long = get(b"/a", *[b"X: " + 200 * b"x"] * 3)
    parse(long, cache)
    digest = hashlib.sha256(long).digest()
    assert parse(digest, cache) == parse(digest) == [ParseError(400)]


def test_the_oldest_head_is_dropped_when_the_cache_is_full(cache):
    (oldest,) = parse(get(b"/0"), cache)
    (second,) = parse(get(b"/1"), cache)
    for number in range(2, MAX_CACHED_HEADS + 1):
        parse(get(b"/%d" % number), cache)
    assert parse(get(b"/1"), cache) == [second]
    assert parse(get(b"/0"), cache) != [oldest]


def test_the_bytes_that_were_read_are_not_kept(cache):
    """They are part of the large block that was allocated for the read."""
    short, long = get(b"/a"), get(b"/b", b"X: " + MAX_CACHED_PART_BYTES * b"x", b"Y: " + 400 * b"y")
    for data in (short, long):
        parse(data, cache)
    held = held_bytes(cache)
    assert MAX_CACHED_PART_BYTES * b"x" in held
    assert all(sys.getsizeof(each) <= 512 for each in held)
    assert all(each is not data for each in held for data in (short, long))


CREDENTIALS = [b"Bearer secret", b"Basic YTpi", b"xsecretx", b"y" * 3000, b"a  b c"]


@pytest.mark.parametrize("before", [(), (b"Accept: a",), (b"Accept: a", b"accept: b")])
@pytest.mark.parametrize("after", [(), (b"Range: bytes=0-1",)])
def test_a_cached_head_serves_any_credentials_and_holds_none(cache, before, after):
    (bare,) = parse(get(b"/a", *before, *after), cache)
    for credentials in CREDENTIALS:
        request = get(b"/a", *before, b"Authorization: " + credentials, *after)
        (cached,), (parsed,) = parse(request, cache), parse(request)
        assert content(cached) == content(parsed)
        assert not any(credentials in each for each in held_bytes(cache))
    assert b"authorization" not in bare.fields
    assert parse(get(b"/a", *before, *after), cache) == [bare]


def test_a_request_with_credentials_fills_the_cache_without_them(cache):
    request = get(b"/a", b"Accept: a", b"Authorization: Bearer secret", b"Range: bytes=0-1")
    parse(request, cache)
    assert not any(b"secret" in each for each in held_bytes(cache))
    rest = get(b"/a", b"Accept: a", b"Range: bytes=0-1")
    (first,), (second,) = parse(rest, cache), parse(rest, cache)
    assert first is second
    assert content(first) == content(*parse(rest))


def test_credentials_count_against_the_limits():
    limits = Limits(header_bytes=300, header_count=3)
    parser = RequestParser(limits, HeadCache(limits))
    for fields, status in (
        ((b"Authorization: a", b"X: b"), None),
        ((b"Authorization: " + b"a" * 400, b"X: b"), 431),
    ):
        parser.feed(get(b"/", *fields))
        (event,) = take_events(parser)
        assert getattr(event, "status", None) == status
    parser = RequestParser(limits, HeadCache(limits))
    parser.feed(get(b"/", b"X: b", b"Y: c"))
    parser.feed(get(b"/", b"X: b", b"Authorization: a", b"Y: c"))
    assert take_events(parser)[-1].status == 431


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
def test_a_parser_with_a_cache_finds_what_one_without_finds(pieces):
    cache = HeadCache(Limits())
    for piece in PIECES[:2]:
        parse(piece, cache)
    with_cache, without = RequestParser(Limits(), cache), RequestParser(Limits())
    for piece in pieces:
        with_cache.feed(piece)
        without.feed(piece)
        assert with_cache.stopped == without.stopped
        assert with_cache.in_head == without.in_head
        found, expected = take_events(with_cache), take_events(without)
        assert [*map(content, found)] == [*map(content, expected)]
