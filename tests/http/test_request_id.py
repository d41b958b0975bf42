"""Every response has a request id, which a proxy may have chosen."""

from __future__ import annotations

import re

import pytest

from tests.http.connection_kit import Kit, MemoryConnection, get
from twisted_registry.http.request_id import choose_request_id


@pytest.fixture
def wire():
    return MemoryConnection(Kit())


def ids(sent):
    return re.findall(rb"\r\nX-Request-Id: ([^\r]*)\r\n", sent)


@pytest.mark.parametrize(
    "sent", [b"7", b"0aab6428-25df-45a5-b2c4-fac4e3cb3c23", b"Root=1-67:ab/c+d@e.f~g_h", b"x" * 128]
)
def test_a_well_formed_id_of_the_client_is_used(wire, sent):
    wire.send(get(b"/hello", b"X-Request-ID: " + sent))
    assert ids(wire.sent()) == [sent]


@pytest.mark.parametrize(
    "sent", [b"", b"x" * 129, b"a b", b'a"b', b"\x1b[31m", b"\xff", b"a,b", b"a\tb", b"%0a"]
)
def test_other_ids_are_replaced(wire, sent):
    wire.send(get(b"/hello", b"X-Request-ID: " + sent))
    (found,) = ids(wire.sent())
    assert re.fullmatch(rb"[0-9a-f]{12}-[0-9]+", found)


@pytest.mark.parametrize(
    "request_head",
    [
        get(b"/hello"),
        get(b"/whole"),
        get(b"/whole?status=404"),
        get(b"/hello", method=b"HEAD"),
        get(b"*", method=b"OPTIONS"),
        get(b"/" + b"x" * 10_000),
        b"nonsense\r\n\r\n",
    ],
)
def test_every_response_has_an_id(wire, request_head):
    wire.send(request_head)
    sent = wire.sent()
    assert sent.count(b"HTTP/1.1 ") == len(ids(sent)) == 1


def test_each_request_gets_another_id(wire):
    wire.send(get(b"/hello") * 50)
    assert len(set(ids(wire.sent()))) == 50


def test_an_id_is_only_replaced_as_a_whole():
    assert choose_request_id(b"abc\n") != "abc"
