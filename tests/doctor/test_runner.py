"""Checks run at the same time, and each ends."""

from __future__ import annotations

from threading import Event

import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from twisted_registry.doctor.findings import Finding
from twisted_registry.doctor.runner import Check, on_thread, run_checks

FINDING = Finding("a", "is wrong", "seen", "mend it")


def test_a_check_that_does_not_end_is_a_finding():
    clock = Clock()
    checks = [Check("slow", Deferred, 5.0), Check("quick", lambda: succeed([FINDING]))]
    results = []
    Deferred.fromCoroutine(run_checks(checks, clock)).addCallback(results.extend)
    assert results == []
    clock.advance(5.0)
    slow, quick = results
    assert str(slow.findings[0]).startswith("slow: the check did not end within 5 s (timeout); ")
    assert quick.findings == (FINDING,)


@pytest_twisted.ensureDeferred
async def test_a_blocking_check_runs_on_a_thread_and_its_failure_is_a_finding():
    entered = Event()

    def good():
        entered.wait(30)
        return [FINDING]

    def bad():
        entered.set()
        raise LookupError("no such thing")

    checks = [Check("good", on_thread(reactor, good)), Check("bad", on_thread(reactor, bad))]
    good_result, bad_result = await run_checks(checks, reactor)
    assert good_result.findings == (FINDING,)
    assert bad_result.findings[0].problem == "the check failed: no such thing"


@pytest_twisted.ensureDeferred
async def test_a_thread_that_hangs_does_not_hold_up_the_result():
    release = Event()
    check = Check("disk", on_thread(reactor, lambda: [FINDING] * release.wait(60)), 0.01)
    (result,) = await run_checks([check], reactor)
    release.set()
    assert result.findings[0].evidence == "timeout"
