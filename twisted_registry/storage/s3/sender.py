"""Signs operations, sends them, and sends them again where that helps.

Every content can be sent again, so any request that got no answer, or one that asks for
patience, is repeated; whoever sends what must not be done twice learns from
:attr:`S3Error.repeated` that it may have been.

When to ask again: later each time, and never all at once.

What ``loglevel`` of the s3 driver adds to the log: requests, without secrets.

The levels are those of AWS's library for Go, which Distribution uses. Each includes ``debug``.
"""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.web.http import stringToDatetime

from twisted_registry.storage.s3.credentials import CredentialsError
from twisted_registry.storage.s3.errors import (
    AccessDenied,
    BadCredentials,
    ClockSkewed,
    S3Error,
    SlowDown,
)
from twisted_registry.storage.s3.responses import error_from_response
from twisted_registry.storage.s3.sigv4 import EMPTY_SHA256, UNSIGNED_PAYLOAD, Signer, encoded_query
from twisted_registry.storage.s3.transport import content_size

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from twisted.internet.interfaces import IReactorTime
    from twisted.python.failure import Failure

    from twisted_registry.storage.s3.address import BucketAddress
    from twisted_registry.storage.s3.credentials import Credentials, ICredentialsProvider
    from twisted_registry.storage.s3.interfaces import Content, Operation
    from twisted_registry.storage.s3.transport import S3Response, Transport


@frozen
class Backoff:
    """Exponential back-off with full jitter.

    :ivar attempts: how often a request is sent at most.
    :ivar base: seconds that the first wait is shorter than; each next one may be twice as long.
    :ivar slow_base: the same, where the store asks for fewer requests.
    :ivar longest: seconds that no wait exceeds.
    :ivar patience: seconds after the first attempt after which there is no other.
    :ivar chance: answers a number from 0 to 1.
    """

    attempts: int = 5
    base: float = 0.2
    slow_base: float = 1.0
    max_delay: float = 10.0
    max_elapsed: float = 60.0
    jitter: Callable[[], float] = random.random

    def delay(self, error: S3Error, attempt: int, elapsed: float) -> float | None:
        """Answer after how many seconds to try again, or None for not at all.

        :param error: what the attempt ended with.
        :param attempt: the number of the attempt, from 1.
        :param elapsed: seconds since the first began.
        """
        if not error.retryable or attempt >= self.attempts or elapsed >= self.max_elapsed:
            return None
        return self.wait(attempt, slow=isinstance(error, SlowDown))

    def wait(self, attempt: int, *, slow: bool) -> float:
        """Answer how many seconds lie between an attempt and the next."""
        base = self.slow_base if slow else self.base
        return min(self.max_delay, base * 2.0 ** (attempt - 1)) * self.jitter()


log = Logger()

LOG_LEVELS: Final = (
    "off",
    "debug",
    "debugwithsigning",
    "debugwithhttpbody",
    "debugwithrequestretries",
    "debugwithrequesterrors",
    "debugwitheventstreambody",
)
#: Headers that let others do what we may.
_SECRET: Final = frozenset({"authorization", "x-amz-security-token"})


@frozen
class RequestLog:
    """Writes what was asked for, as ``info``: who sets the level wants to see it.

    :ivar level: one of :data:`LOG_LEVELS`; anything else is ``off``, as in Distribution.
    """

    level: str = "off"

    @property
    def is_on(self) -> bool:
        """Whether anything is written at all."""
        return self.level != "off" and self.level in LOG_LEVELS

    def log_request(self, method: str, url: str, headers: Mapping[str, str]) -> None:
        """A request goes out."""
        if self.level == "debugwithsigning":
            log.info(
                "s3 signs: {method} {url} with {names} at {date}",
                method=method,
                url=url,
                names=", ".join(sorted(headers)),
                date=headers["x-amz-date"],
            )
        elif self.level == "debugwithhttpbody":
            shown = {name: value for name, value in headers.items() if name not in _SECRET}
            log.info("s3 sends: {method} {url} {shown}", method=method, url=url, shown=shown)

    def log_response(self, response: S3Response, attempt: int, seconds: float) -> None:
        """The head of an answer is there."""
        if self.is_on:
            log.info(
                "s3: {what}: {status} after {seconds:.3f} s, attempt {attempt}, request {id}",
                what=response.what,
                status=response.status,
                seconds=seconds,
                attempt=attempt,
                id=response.header("x-amz-request-id") or "without an id",
            )

    def log_failure(self, error: S3Error, attempt: int, wait: float | None) -> None:
        """An attempt failed; ``wait`` is None if it was the last."""
        if wait is not None:
            if self.level == "debugwithrequestretries":
                log.info(
                    "s3: attempt {attempt} failed, another in {wait:.3f} s: {error}",
                    attempt=attempt,
                    wait=wait,
                    error=error,
                )
        elif self.level == "debugwithrequesterrors":
            log.info("s3: attempt {attempt} failed: {error}", attempt=attempt, error=error)


_T = TypeVar("_T")

#: Bytes that are hashed on the reactor's thread: a fraction of a millisecond.
MAX_HASHED_BYTES: Final = 256 * 1024
#: Bytes of an answer that is no success.
MAX_ERROR_BYTES: Final = 64 * 1024
#: Seconds that a slow operation may take before it answers.
SLOW_TIMEOUT_S: Final = 300.0
#: Seconds that clocks may differ by; stores refuse more than 900.
MAX_CLOCK_SKEW_S: Final = 300.0


@define(eq=False)
class Sender:
    """Sends operations on one bucket.

    :ivar address: of the bucket.
    :ivar user_agent: what we call ourselves.
    """

    _clock: IReactorTime
    _transport: Transport
    address: BucketAddress
    _credentials: ICredentialsProvider
    _user_agent: str
    _backoff: Backoff = field(factory=Backoff)
    _request_log: RequestLog = field(factory=RequestLog)
    _clock_offset: float = field(init=False, default=0.0)
    _signer: Signer | None = field(init=False, default=None)

    @inlineCallbacks
    def send(
        self, operation: Operation, finish: Callable[[S3Response], Deferred[_T]]
    ) -> Generator[Any, Any, _T]:
        """Fire with what ``finish`` makes of the answer, if that is a success.

        :param finish: called with the answer; if it fails with an error that may pass, the
            operation is sent again.
        :raises S3Error: if none of the attempts was a success.
        """
        began = self._clock.seconds()
        attempt, repeated, corrected = 0, False, False
        while True:
            attempt += 1
            try:
                response = yield self._attempt(operation, attempt)
                result: _T = yield finish(response)
            except S3Error as error:
                if isinstance(error, ClockSkewed) and not corrected:
                    corrected = True
                    continue
                wait = self._backoff.delay(error, attempt, self._clock.seconds() - began)
                self._request_log.log_failure(error, attempt, wait)
                if wait is None:
                    if repeated:
                        raise evolve(error, repeated=True) from error
                    raise
                repeated = repeated or not 400 <= error.status < 500
            else:
                return result
            yield deferLater(self._clock, wait)

    def wait_before_retry(self, attempt: int) -> Deferred[None]:
        """Fire when an attempt at what the store was too busy for may be followed by another.

        :param attempt: its number, from 1.
        """
        return deferLater(self._clock, self._backoff.wait(attempt, slow=True))

    @inlineCallbacks
    def presign(
        self, address: BucketAddress, method: str, key: str, expires: int
    ) -> Generator[Any, Any, str]:
        """Fire with a URL that needs no signature.

        :param address: the bucket, as the bearer of the URL is to find it.
        :param expires: seconds.
        """
        signer = yield self._current_signer(f"presign {method} {key}")
        path = address.path(key)
        query = signer.query(method, address.host, path, (), expires, self._now())
        return address.url(path, query)

    @inlineCallbacks
    def close(self) -> Generator[Any, Any, None]:
        """Close the connections, and the source of the credentials."""
        yield self._transport.close()
        yield self._credentials.close()

    @inlineCallbacks
    def _attempt(self, operation: Operation, attempt: int) -> Generator[Any, Any, S3Response]:
        address, began = self.address, self._clock.seconds()
        what = f"{operation.name} {address.bucket}/{operation.key}"
        signer = yield self._current_signer(what)
        path, query = address.path(operation.key), encoded_query(operation.parameters)
        headers = {"host": address.host, **operation.headers}
        payload = operation.sha256 or _digest(operation.content)
        headers.update(signer.headers(operation.method, path, query, headers, payload, self._now()))
        headers["user-agent"] = self._user_agent
        url = address.url(path, query)
        self._request_log.log_request(operation.method, url, headers)
        response: S3Response = yield self._transport.send(
            what, operation.method, url, headers, operation.content,
            SLOW_TIMEOUT_S if operation.slow else None,
        )  # fmt: skip
        self._request_log.log_response(response, attempt, self._clock.seconds() - began)
        if response.status // 100 == 2:
            return response
        content = yield response.collect(MAX_ERROR_BYTES)
        error = error_from_response(response, content, address.region)
        raise self._correct_clock(error, response) or error

    def _current_signer(self, what: str) -> Deferred[Signer]:
        def explain(failure: Failure) -> NoReturn:
            failure.trap(CredentialsError)
            raise BadCredentials(what, failure.getErrorMessage()) from failure.value

        return self._credentials.current().addCallbacks(self._signer_of, explain)

    def _signer_of(self, credentials: Credentials) -> Signer:
        signer = self._signer
        if signer is None or signer.credentials != credentials:
            signer = self._signer = Signer(credentials, self.address.region)
        return signer

    def _now(self) -> float:
        return self._clock.seconds() + self._clock_offset

    def _correct_clock(self, error: S3Error, response: S3Response) -> ClockSkewed | None:
        """Adopt the clock of the store if it refused ours, and answer what to raise instead.

        HEAD has no body that would tell why it was refused, but its date does.
        """
        try:
            there = stringToDatetime(response.header("date").encode())
        except (ValueError, IndexError, KeyError):
            return None
        ahead = there - self._now()
        unexplained = (
            isinstance(error, AccessDenied) and not error.code and abs(ahead) > MAX_CLOCK_SKEW_S
        )
        if not (isinstance(error, ClockSkewed) or unexplained):
            return None
        self._clock_offset += ahead
        log.warn("the clock of the store is {ahead:+.0f} s ahead of ours", ahead=self._clock_offset)
        return ClockSkewed(
            error.operation,
            f"the store's clock is {self._clock_offset:+.0f} s ahead of ours",
            code=error.code, status=error.status, request_id=error.request_id,
        )  # fmt: skip


def _digest(content: Content) -> str:
    if not content:
        return EMPTY_SHA256
    if content_size(content) > MAX_HASHED_BYTES:
        return UNSIGNED_PAYLOAD
    blocks: Sequence[bytes] = [content] if isinstance(content, bytes) else content
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()
