"""Sign, send and retry operations, and log them as ``loglevel`` of the s3 driver says.

Each request carries the SHA-256 of its content in the signed header ``x-amz-content-sha256``, and
the store refuses a content that has another one. Request contents can be resent, so any request
that got no response, or whose error is temporary, is retried. The error of an operation that must
not be repeated tells by :attr:`S3Error.may_have_applied` whether an earlier attempt may have been
executed.
"""

from __future__ import annotations

import hashlib
import random
from math import inf
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar

from attrs import define, evolve, field, frozen
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks, maybeDeferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import stringToDatetime

from twisted_registry.storage.s3.credentials import CredentialsError
from twisted_registry.storage.s3.errors import (
    AccessDenied,
    BadCredentials,
    ClockSkewed,
    S3Error,
    SlowDown,
    Stalled,
)
from twisted_registry.storage.s3.interfaces import Operation, content_size
from twisted_registry.storage.s3.responses import parse_error
from twisted_registry.storage.s3.sigv4 import EMPTY_SHA256, UNSIGNED_PAYLOAD, Signer, encoded_query

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.storage.s3.address import BucketAddress
    from twisted_registry.storage.s3.credentials import Credentials, ICredentialsProvider
    from twisted_registry.storage.s3.interfaces import Content, DeferredGenerator
    from twisted_registry.storage.s3.transport import S3Response, Transport

_T = TypeVar("_T")

log = Logger()

#: Values of ``loglevel``: those of AWS's library for Go, which Distribution uses. All levels
#: except ``off`` include ``debug``.
LOG_LEVELS: Final = (
    "off",
    "debug",
    "debugwithsigning",
    "debugwithhttpbody",
    "debugwithrequestretries",
    "debugwithrequesterrors",
    "debugwitheventstreambody",
)
#: Headers that must not be logged.
_SECRET_HEADERS: Final = frozenset({"authorization", "x-amz-security-token"})
#: Contents up to this size are hashed on the reactor's thread; that takes less than 0.2 ms.
MAX_INLINE_HASH_BYTES: Final = 64 * 1024
#: Maximum size of an error response.
MAX_ERROR_BYTES: Final = 64 * 1024
#: How often an operation may stall; see :class:`~twisted_registry.storage.s3.transport.Timeouts`.
_MAX_STALLS: Final = 2
#: How long to wait for a store that has just stalled and not responded since, and for how long.
_PROBE_S: Final = 1.5
_SUSPECT_S: Final = 5.0
#: How often a store that takes long for a slow operation is asked whether it still responds.
_CHECK_INTERVAL_S: Final = 10.0
#: Statuses of refused credentials: 400 for an expired token, 403 for others.
_REFUSAL_STATUSES: Final = frozenset({400, 403})
#: Clock difference above which a HEAD that was refused without a code is taken for ClockSkewed.
#: Stores refuse differences above 900 s.
MAX_CLOCK_SKEW_S: Final = 300.0


@frozen
class Backoff:
    """Exponential backoff with full jitter.

    :ivar attempts: maximum number of attempts.
    :ivar base_s: maximum first delay; each following maximum is twice as long.
    :ivar slow_base_s: the same after :class:`SlowDown`.
    :ivar max_delay_s: upper limit of all delays.
    :ivar max_elapsed_s: time since the first attempt after which no other is made.
    :ivar jitter: returns a random number from 0 to 1.
    """

    attempts: int = 5
    base_s: float = 0.2
    slow_base_s: float = 1.0
    max_delay_s: float = 10.0
    max_elapsed_s: float = 60.0
    jitter: Callable[[], float] = random.random

    def retry_delay_s(self, error: S3Error, attempt: int, elapsed_s: float) -> float | None:
        """Return the delay before the next attempt, or None if there is none.

        :param error: the result of the attempt.
        :param attempt: number of the attempt, from 1.
        :param elapsed_s: seconds since the first attempt began.
        """
        if not error.retryable or attempt >= self.attempts or elapsed_s >= self.max_elapsed_s:
            return None
        return self.delay_s(attempt, slow=isinstance(error, SlowDown))

    def delay_s(self, attempt: int, *, slow: bool) -> float:
        """Return the delay after an attempt.

        :param attempt: number of the attempt, from 1.
        :param slow: whether the store limits the request rate.
        """
        base_s = self.slow_base_s if slow else self.base_s
        return min(self.max_delay_s, base_s * 2.0 ** (attempt - 1)) * self.jitter()


@frozen
class RequestLog:
    """Logs requests at level ``info``, without secrets.

    :ivar level: one of :data:`LOG_LEVELS`; other values mean ``off``, as in Distribution.
    """

    level: str = "off"

    @property
    def is_on(self) -> bool:
        """Whether anything is logged."""
        return self.level != "off" and self.level in LOG_LEVELS

    def log_request(self, method: str, url: str, headers: Mapping[str, str]) -> None:
        """Log a request before it is sent."""
        if self.level == "debugwithsigning":
            log.info(
                "s3 request signed: method={method} url={url} headers={names} date={date}",
                method=method,
                url=url,
                names=", ".join(sorted(headers)),
                date=headers["x-amz-date"],
            )
        elif self.level == "debugwithhttpbody":
            shown = {name: value for name, value in headers.items() if name not in _SECRET_HEADERS}
            log.info(
                "s3 request: method={method} url={url} headers={shown}",
                method=method,
                url=url,
                shown=shown,
            )

    def log_response(self, response: S3Response, attempt: int, seconds: float) -> None:
        """Log the head of a response."""
        if self.is_on:
            log.info(
                "s3 response: operation={operation_name} status={status} seconds={seconds:.3f}"
                " attempt={attempt} request_id={id}",
                operation_name=response.operation_name,
                status=response.status,
                seconds=seconds,
                attempt=attempt,
                id=response.header("x-amz-request-id") or "-",
            )

    def log_failure(self, error: S3Error, attempt: int, delay_s: float | None) -> None:
        """Log a failed attempt; ``delay_s`` is None if no other follows."""
        if delay_s is not None:
            if self.level == "debugwithrequestretries":
                log.info(
                    "s3 request failed, retrying: attempt={attempt} delay_s={delay_s:.3f}"
                    " error={error}",
                    attempt=attempt,
                    delay_s=delay_s,
                    error=error,
                )
        elif self.level == "debugwithrequesterrors":
            log.info(
                "s3 request failed: attempt={attempt} error={error}", attempt=attempt, error=error
            )


@define(eq=False)
class Sender:
    """Sends operations on one bucket.

    An operation is given up when it has stalled twice. What follows in the same request, such as
    saving and cleaning up, would stall as well and hold the client for minutes. So for some seconds
    operations have to be answered quickly, until the store responds to one of the same method: it
    may answer reads while writes stall.

    During a slow operation, such as a copy, many stores send nothing until its end. It is given up
    when the store does not respond to a small one meanwhile.

    :ivar address: of the bucket.
    :ivar credentials: source of the credentials; closed with the sender.
    :ivar user_agent: value of the ``User-Agent`` header.
    :ivar run_blocking: calls a function on a thread, and fires with its result; used to hash large
        contents. The default calls it at once.
    :ivar sign_payloads: whether contents above :data:`MAX_INLINE_HASH_BYTES` are hashed even if TLS
        protects them on their way.
    :ivar clock_offset_s: clock of the store minus clock of this machine.
    """

    _clock: IReactorTime
    _transport: Transport
    address: BucketAddress
    _credentials: ICredentialsProvider
    _user_agent: str
    _backoff: Backoff = field(factory=Backoff)
    _request_log: RequestLog = field(factory=RequestLog)
    _run_blocking: Callable[..., Deferred[str]] = maybeDeferred
    sign_payloads: bool = True
    clock_offset_s: float = 0.0
    _signer: Signer | None = field(init=False, default=None)
    #: when the store responded last, by method
    _responded_at: dict[str, float] = field(init=False, factory=dict)
    #: when the last attempt of an operation began and ended, without any response to its method
    _stall: tuple[float, float] = field(init=False, default=(-inf, -inf))

    @inlineCallbacks
    def send(
        self, operation: Operation, read: Callable[[S3Response], Deferred[_T]]
    ) -> DeferredGenerator[_T]:
        """Send an operation until it succeeds, and fire with what ``read`` fires with.

        :param read: called with a successful response. If it fails with a retryable error, the
            operation is sent again.
        :raises S3Error: the error of the last attempt.
        """
        payload = operation.sha256 or self._quick_payload(operation.content)
        if payload is None:
            payload = yield self._run_blocking(sha256_of, operation.content)
        started = self._clock.seconds()
        attempt, may_have_applied = 0, False
        remedies: set[type[S3Error]] = set()
        timeout_s, stalls_left = self._patience(operation)
        while True:
            attempt += 1
            began = self._clock.seconds()
            signer: Signer = yield self._current_signer(self._operation_name(operation))
            try:
                receiving = self._attempt(operation, payload, attempt, signer, timeout_s)
                result: _T = yield self._while_responding(
                    operation, receiving.addCallback(read), signer
                )
            except S3Error as error:
                if (yield self._remedy(error, signer.credentials, remedies)):
                    continue
                elapsed_s = self._clock.seconds() - started
                stalls_left -= isinstance(error, Stalled)
                delay_s = None
                if stalls_left:
                    delay_s = self._backoff.retry_delay_s(error, attempt, elapsed_s)
                elif self._last_response(operation) < began:
                    self._stall = (began, self._clock.seconds())
                self._request_log.log_failure(error, attempt, delay_s)
                if delay_s is None:
                    if may_have_applied:
                        raise evolve(error, may_have_applied=True) from error
                    raise
                may_have_applied = may_have_applied or not 400 <= error.status < 500
            else:
                return result
            yield deferLater(self._clock, delay_s)

    def wait_before_retry(self, attempt: int) -> Deferred[None]:
        """Fire when an operation may be retried that the store was too busy for.

        :param attempt: number of the last attempt, from 1.
        """
        return deferLater(self._clock, self._backoff.delay_s(attempt, slow=True))

    @inlineCallbacks
    def presign(
        self, address: BucketAddress, method: str, key: str, expires: int
    ) -> DeferredGenerator[str]:
        """Fire with a presigned URL.

        :param address: of the bucket in the URL.
        :param expires: seconds.
        """
        signer: Signer = yield self._current_signer(f"presign {method} {key}")
        path = address.path(key)
        query = signer.query(method, address.host, path, (), expires, self._store_time())
        return address.url(path, query)

    @inlineCallbacks
    def close(self) -> DeferredGenerator[None]:
        """Close the transport and the source of the credentials."""
        yield self._transport.close()
        yield self._credentials.close()

    @inlineCallbacks
    def _attempt(
        self,
        operation: Operation,
        payload: str,
        attempt: int,
        signer: Signer,
        timeout_s: float | None,
    ) -> DeferredGenerator[S3Response]:
        address, started = self.address, self._clock.seconds()
        operation_name = self._operation_name(operation)
        path, query = address.path(operation.key), encoded_query(operation.parameters)
        headers = {"host": address.host, **operation.headers}
        headers.update(
            signer.headers(operation.method, path, query, headers, payload, self._store_time())
        )
        headers["user-agent"] = self._user_agent
        url = address.url(path, query)
        self._request_log.log_request(operation.method, url, headers)
        response: S3Response = yield self._transport.send(
            operation_name, operation.method, url, headers, operation.content, timeout_s
        )  # fmt: skip
        self._responded_at[operation.method] = self._clock.seconds()
        self._request_log.log_response(response, attempt, self._clock.seconds() - started)
        if response.status // 100 == 2:
            return response
        content: bytes = yield response.collect(MAX_ERROR_BYTES)
        error = parse_error(response, content, address.region)
        raise self._correct_clock(error, response) or error

    def _while_responding(
        self, operation: Operation, receiving: Deferred[_T], signer: Signer
    ) -> Deferred[_T]:
        """Give up a slow operation if the store stalls on another one meanwhile.

        :param receiving: fires with the result; it fails with Stalled if it is given up.
        """
        if not operation.slow_s:
            return receiving
        stalls: list[Stalled] = []

        def stop(failure: Failure) -> None:
            failure.trap(Stalled, CancelledError)
            if isinstance(failure.value, Stalled):
                stalls.append(failure.value)
                receiving.cancel()

        def end(result: _T | Failure) -> _T | Failure:
            checking.cancel()
            return Failure(stalls[0]) if stalls else result

        checking = self._check_repeatedly(operation.key, signer).addErrback(stop)
        return receiving.addBoth(end)

    @inlineCallbacks
    def _check_repeatedly(self, key: str, signer: Signer) -> DeferredGenerator[None]:
        """Send an operation that changes nothing at intervals, until cancelled.

        :raises Stalled: if the store does not respond to one.
        """
        # A store that stalls on writes only is likely to stall on this one, too.
        check = Operation("AbortMultipartUpload", "DELETE", key, (("uploadId", "none"),))
        while True:
            yield deferLater(self._clock, _CHECK_INTERVAL_S)
            try:
                response: S3Response = yield self._attempt(check, EMPTY_SHA256, 1, signer, None)
            except Stalled:
                raise
            except S3Error:
                # A response; or there is no connection, which the operation notices itself.
                continue
            response.close()

    def _quick_payload(self, content: Content) -> str | None:
        """Return the value of ``x-amz-content-sha256``; None if it takes long to compute."""
        if not content:
            return EMPTY_SHA256
        if content_size(content) <= MAX_INLINE_HASH_BYTES:
            return sha256_of(content)
        if self.address.scheme == "https" and not self.sign_payloads:
            return UNSIGNED_PAYLOAD
        return None

    def _patience(self, operation: Operation) -> tuple[float | None, int]:
        """Return how long to wait for a response, None as usual, and how often it may stall."""
        began, ended = self._stall
        is_recent = self._clock.seconds() - ended < _SUSPECT_S
        if is_recent and self._last_response(operation) < began:
            return _PROBE_S, 1
        return (operation.slow_s, 1) if operation.slow_s else (None, _MAX_STALLS)

    def _last_response(self, operation: Operation) -> float:
        """Return when the store last responded to an operation of the same method."""
        return self._responded_at.get(operation.method, -inf)

    def _operation_name(self, operation: Operation) -> str:
        """Return the name of an operation and its object, for errors."""
        return f"{operation.name} {self.address.bucket}/{operation.key}"

    def _current_signer(self, operation_name: str) -> Deferred[Signer]:
        def fail(failure: Failure) -> NoReturn:
            failure.trap(CredentialsError)
            raise BadCredentials(operation_name, failure.getErrorMessage()) from failure.value

        return self._credentials.current().addCallbacks(self._signer_for, fail)

    def _signer_for(self, credentials: Credentials) -> Signer:
        signer = self._signer
        if signer is None or signer.credentials != credentials:
            signer = self._signer = Signer(credentials, self.address.region)
        return signer

    @inlineCallbacks
    def _remedy(
        self, error: S3Error, used: Credentials, remedies: set[type[S3Error]]
    ) -> DeferredGenerator[bool]:
        """Remove the cause of an error if that is possible; fire with whether it was.

        :param used: credentials of the request.
        :param remedies: the errors of which that was tried for this operation; it is tried once.
        """
        if isinstance(error, ClockSkewed):
            # The clock is corrected.
            was_tried = ClockSkewed in remedies
            remedies.add(ClockSkewed)
            return not was_tried
        if BadCredentials in remedies or not _may_refuse_credentials(error):
            return False
        remedies.add(BadCredentials)
        try:
            renewed: Credentials = yield self._credentials.renew(used)
        except CredentialsError:
            return False
        if renewed == used:
            return False
        log.info(
            "the store has refused the s3 credentials, using renewed ones: error={error}",
            error=error,
        )
        return True

    def _store_time(self) -> float:
        """Return seconds since the epoch by the clock of the store."""
        return self._clock.seconds() + self.clock_offset_s

    def _correct_clock(self, error: S3Error, response: S3Response) -> ClockSkewed | None:
        """Adopt the clock of the store if it refused that of this machine.

        A HEAD response has no body that could name the error, but it has a date.

        :returns: the error to raise instead; None if the clock was not the reason.
        """
        try:
            store_time = stringToDatetime(response.header("date").encode())
        except (ValueError, IndexError, KeyError):
            return None
        skew_s = store_time - self._store_time()
        is_unexplained = (
            isinstance(error, AccessDenied) and not error.code and abs(skew_s) > MAX_CLOCK_SKEW_S
        )
        if not (isinstance(error, ClockSkewed) or is_unexplained):
            return None
        self.clock_offset_s += skew_s
        log.warn(
            "the clocks of the store and of this machine differ, adopting that of the store:"
            " offset_s={offset_s:+.0f}",
            offset_s=self.clock_offset_s,
        )
        return ClockSkewed(
            error.operation,
            f"the clock of the store is {self.clock_offset_s:+.0f} s ahead of this machine",
            code=error.code, status=error.status, request_id=error.request_id,
        )  # fmt: skip


def _may_refuse_credentials(error: S3Error) -> bool:
    """Return whether other credentials may help. A response to HEAD does not name its error."""
    if isinstance(error, BadCredentials):
        return True
    return not error.code and error.status in _REFUSAL_STATUSES


def sha256_of(content: Content) -> str:
    """Return the hexadecimal SHA-256 of a content."""
    blocks: Sequence[bytes] = [content] if isinstance(content, bytes) else content
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()
