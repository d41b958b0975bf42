from __future__ import annotations

import os
from collections import namedtuple

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, execute, succeed
from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from twisted_registry.storage.s3.credentials import (
    Credentials,
    CredentialsError,
    ICredentialsProvider,
    find_credentials,
)

try:
    from twisted_registry.storage.s3.botocore_credentials import (
        MAX_AGE_S,
        REFRESH_AFTER_S,
        make_botocore_credentials,
    )
except ImportError:
    if os.environ.get("CI") == "true":
        raise
    pytest.skip("botocore is not installed", allow_module_level=True)

case = SynchronousTestCase()
result_of, failure_of, no_result = (
    case.successResultOf,
    case.failureResultOf,
    case.assertNoResult,
)
Frozen = namedtuple("Frozen", "access_key secret_key token")  # noqa: PYI024 - as botocore's


class Library:
    """Hands out the next credentials each time, or an error."""

    def __init__(self):
        self.calls = 0
        self.error = None

    def get_frozen_credentials(self):
        self.calls += 1
        if self.error is not None:
            raise self.error
        return Frozen(f"AK{self.calls}", "hush", None)


class HeldThreads:
    """Runs what it was given when told to."""

    def __init__(self):
        self.held = []
        self.closed = False

    def run_blocking(self, work):
        answer = Deferred()
        self.held.append((work, answer))
        return answer

    def step(self):
        work, answer = self.held.pop(0)
        execute(work).chainDeferred(answer)

    def close(self):
        self.closed = True
        return succeed(None)


@pytest.fixture
def clock():
    clock = Clock()
    clock.advance(1_000_000)
    return clock


@pytest.fixture
def library():
    return Library()


@pytest.fixture
def threads():
    return HeldThreads()


@pytest.fixture
def source(clock, threads, library):
    source = make_botocore_credentials(clock, threads, lambda: library)
    verifyObject(ICredentialsProvider, source)
    return source


@pytest.fixture
def warnings():
    events = []

    def observe(event):
        if event["log_level"] is LogLevel.warn:
            events.append(event["log_format"].format(**event))

    globalLogPublisher.addObserver(observe)
    yield events
    globalLogPublisher.removeObserver(observe)


def first(source, threads):
    asked = source.current()
    threads.step()
    return result_of(asked)


def test_concurrent_callers_share_one_refresh(source, threads, library):
    asked = [source.current() for _ in range(3)]
    no_result(asked[0])
    threads.step()
    assert [result_of(one) for one in asked] == [Credentials("AK1", "hush")] * 3
    assert library.calls == 1
    assert threads.held == []


def test_credentials_are_kept_for_a_while(source, threads, clock):
    first(source, threads)
    clock.advance(REFRESH_AFTER_S - 1)
    assert result_of(source.current()).access_key == "AK1"
    assert threads.held == []


def test_credentials_are_refreshed_in_the_background(source, threads, clock):
    first(source, threads)
    clock.advance(REFRESH_AFTER_S)
    assert result_of(source.current()).access_key == "AK1"
    assert result_of(source.current()).access_key == "AK1"
    assert len(threads.held) == 1
    threads.step()
    assert result_of(source.current()).access_key == "AK2"


def test_old_credentials_are_refreshed_before_use(source, threads, clock):
    first(source, threads)
    clock.advance(MAX_AGE_S)
    asked = source.current()
    no_result(asked)
    threads.step()
    assert result_of(asked).access_key == "AK2"


def test_cancelled_caller_is_skipped(source, threads):
    asked, other = source.current(), source.current()
    asked.cancel()
    failure_of(asked, CancelledError)
    threads.step()
    assert result_of(other).access_key == "AK1"


def test_first_failure_is_raised_and_retried(source, threads, library):
    library.error = OSError("no route")
    asked = source.current()
    threads.step()
    assert str(failure_of(asked, CredentialsError).value) == "OSError: no route"
    library.error = None
    assert first(source, threads).access_key == "AK2"


def test_later_failure_is_logged(source, threads, library, clock, warnings):
    first(source, threads)
    library.error = OSError("no route")
    clock.advance(MAX_AGE_S)
    asked = source.current()
    threads.step()
    assert result_of(asked).access_key == "AK1"
    assert warnings == [
        "cannot refresh the s3 credentials, using the previous ones: error=OSError: no route"
    ]
    assert result_of(source.current()).access_key == "AK1"
    assert threads.held == []
    clock.advance(REFRESH_AFTER_S)
    source.current()
    assert len(threads.held) == 1


def test_no_credentials_found(clock, threads):
    asked = make_botocore_credentials(clock, threads, lambda: None).current()
    threads.step()
    assert "no credentials and no role" in str(failure_of(asked, CredentialsError).value)


def test_refused_credentials_are_looked_for_from_the_beginning(clock, threads):
    """Those of botocore are replaced only shortly before the end of their life."""
    chains = [Library(), Library()]
    chains[1].calls = 10
    source = make_botocore_credentials(clock, threads, lambda: chains.pop(0))
    refused = first(source, threads)
    clock.advance(3)
    renewing = [source.renew(refused) for _ in range(3)]
    threads.step()
    assert [result_of(one).access_key for one in renewing] == ["AK11"] * 3
    assert threads.held == []
    # A request that was signed before.
    assert result_of(source.renew(refused)).access_key == "AK11"
    assert threads.held == []


def test_refusal_during_a_refresh_is_followed_by_a_renewal(clock, threads, library):
    chains = [library, Library()]
    chains[1].calls = 10
    source = make_botocore_credentials(clock, threads, lambda: chains.pop(0))
    refused = first(source, threads)
    clock.advance(REFRESH_AFTER_S)
    assert result_of(source.current()) == refused
    renewing = source.renew(refused)
    threads.step()
    no_result(renewing)
    threads.step()
    assert result_of(renewing).access_key == "AK11"


def test_refused_credentials_are_not_renewed_for_every_request(source, threads, clock, library):
    refused = first(source, threads)
    assert result_of(source.renew(refused)) == refused
    assert threads.held == []
    clock.advance(3)
    library.error = OSError("no route")
    renewing = source.renew(refused)
    threads.step()
    assert result_of(renewing) == refused
    assert result_of(source.renew(refused)) == refused
    assert threads.held == []


def test_closing_stops_the_thread(source, threads):
    result_of(source.close())
    assert threads.closed


@pytest_twisted.ensureDeferred
async def test_botocore_runs_a_credential_process(tmp_path, monkeypatch):
    program = tmp_path / "program"
    program.write_text(
        '#!/bin/sh\necho \'{"Version": 1, "AccessKeyId": "AKPROGRAM", "SecretAccessKey": "hush",'
        ' "SessionToken": "token"}\'\n'
    )
    program.chmod(0o755)
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "config").write_text(f"[default]\ncredential_process = {program}\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    source = find_credentials(reactor, {"HOME": str(tmp_path)})
    try:
        assert await source.current() == Credentials("AKPROGRAM", "hush", "token")
    finally:
        await source.close()
