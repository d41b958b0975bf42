from __future__ import annotations

import gc

import pytest
from twisted.internet.defer import CancelledError, Deferred, succeed

from twisted_registry.api.response import run_until_wait


def test_what_does_not_wait_needs_no_deferred():
    async def work():
        ended.append(await succeed(1))

    ended = []
    assert run_until_wait(work()) is None
    assert ended == [1]


def test_what_is_raised_at_once_is_raised():
    async def work():
        raise KeyError

    with pytest.raises(KeyError):
        run_until_wait(work())


def test_what_waits_goes_on_with_each_result():
    async def work():
        got.append(await first)
        try:
            await second
        except ValueError as error:
            got.append(error)
        return await third

    got = []
    first, second, third = Deferred(), Deferred(), Deferred()
    over = []
    run_until_wait(work()).addBoth(over.append)
    first.callback("one")
    error = ValueError()
    second.errback(error)
    assert got == ["one", error]
    assert over == []
    third.callback("three")
    assert over == ["three"]


def test_what_is_raised_later_is_a_failure():
    async def work():
        await waiting
        raise KeyError

    waiting = Deferred()
    over = []
    run_until_wait(work()).addErrback(lambda failure: over.append(failure.type))
    waiting.callback(None)
    assert over == [KeyError]


def test_cancelling_reaches_what_is_waited_for():
    async def work():
        try:
            await waiting
        finally:
            freed.append(True)

    cancelled, freed, over = [], [], []
    waiting = Deferred(cancelled.append)
    work = run_until_wait(work())
    work.addErrback(lambda failure: over.append(failure.type))
    work.cancel()
    assert (cancelled, freed, over) == ([waiting], [True], [CancelledError])


def test_what_is_forgotten_frees_what_it_holds():
    async def work():
        try:
            await Deferred()
        finally:
            freed.append(True)

    freed = []
    waiting = run_until_wait(work())
    del waiting
    gc.collect()
    assert freed == [True]
