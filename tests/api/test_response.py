"""Encoding of response headers, and coroutines that rarely wait."""

from __future__ import annotations

import gc

import pytest
from twisted.internet.defer import CancelledError, Deferred, succeed

from twisted_registry.api.response import Response, encode_headers, run_until_wait


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("plain", b"plain"),
        ("\u00e4", b"\xc3\xa4"),
        ("a\r\nX-B: b", b"a X-B: b"),
        ("c\n\nd", b"c  d"),
        ("e\x85f\u2028g", b"e f g"),
    ],
)
def test_line_breaks_in_header_values_become_spaces(value, expected):
    assert encode_headers([("X-A", value), ("X-B", "x")]) == b"X-A: %b\r\nX-B: x\r\n" % expected


def test_a_coroutine_that_does_not_wait_returns_no_deferred():
    async def work():
        ended.append(await succeed(1))

    ended = []
    assert run_until_wait(work()) is None
    assert ended == [1]


def test_an_error_before_the_first_wait_is_raised():
    async def work():
        raise KeyError

    with pytest.raises(KeyError):
        run_until_wait(work())


def test_a_waiting_coroutine_gets_each_result():
    async def work():
        results.append(await first)
        try:
            await second
        except ValueError as error:
            results.append(error)
        return await third

    results = []
    first, second, third = Deferred(), Deferred(), Deferred()
    outcomes = []
    run_until_wait(work()).addBoth(outcomes.append)
    first.callback("one")
    error = ValueError()
    second.errback(error)
    assert results == ["one", error]
    assert outcomes == []
    third.callback("three")
    assert outcomes == ["three"]


def test_an_error_after_a_wait_is_a_failure():
    async def work():
        await waiting
        raise KeyError

    waiting = Deferred()
    outcomes = []
    run_until_wait(work()).addErrback(lambda failure: outcomes.append(failure.type))
    waiting.callback(None)
    assert outcomes == [KeyError]


def test_cancelling_cancels_the_awaited_deferred():
    async def work():
        try:
            await waiting
        finally:
            closed.append(True)

    cancelled, closed, outcomes = [], [], []
    waiting = Deferred(cancelled.append)
    work = run_until_wait(work())
    work.addErrback(lambda failure: outcomes.append(failure.type))
    work.cancel()
    assert (cancelled, closed, outcomes) == ([waiting], [True], [CancelledError])


def test_a_dropped_deferred_closes_its_coroutine():
    async def work():
        try:
            await Deferred()
        finally:
            closed.append(True)

    closed = []
    waiting = run_until_wait(work())
    del waiting
    gc.collect()
    assert closed == [True]


def test_the_repr_has_neither_headers_nor_body():
    response = Response.json({"token": "secret"}, 201, [("Location", "/?_state=secret")])
    assert repr(response) == "Response(status=201, length=None)"
