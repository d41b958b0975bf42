"""The way of events out of the queue: one POST at a time to each endpoint.

As in Distribution, an attempt that fails is repeated for ever: at once, and after ``threshold``
failures in a row with a pause of ``backoff`` before each further attempt. The next event waits
meanwhile, so each endpoint gets the events in the order of the queue.

==================================  ================================================================
response                            meaning
==================================  ================================================================
2xx, 3xx                            accepted, as in Distribution
307, 308                            followed with the body within the same host, otherwise failed
400, 406, 409, 411, 413, 415, 422   refused for good: the event is set apart, the next one is sent
all others, no response             failed: the endpoint is not ready, or does not know this
                                    registry
==================================  ================================================================

An event that was accepted is removed from the queue afterwards: if the process is killed in
between, it is sent again, with the same id.
"""

from __future__ import annotations

import sqlite3
from base64 import b64encode
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urljoin, urlsplit

from attrs import define, field, frozen
from hyperlink import URL
from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.web.http import RESPONSES
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from twisted_registry.http.client import describe_error, read_limited_body
from twisted_registry.notifications.envelope import SIGNATURE_HEADER, encode_record, sign
from twisted_registry.notifications.queue import QueueDamaged

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from twisted.internet.interfaces import IConsumer, IDelayedCall, IReactorTime
    from twisted.python.failure import Failure
    from twisted.web.iweb import IAgent

    from twisted_registry.notifications.queue import EventQueue, QueuedEvent
    from twisted_registry.storage.threads import Threads

log = Logger()

#: Seconds between two looks at an empty queue, to which another process may add.
POLL_S: Final = 0.5
#: Seconds after which the queue is used again after an error.
RETRY_S: Final = 1.0
#: Seconds that an attempt may still take at the stop.
STOP_S: Final = 2.0
#: Events that are read at once.
_BATCH_EVENTS: Final = 32
#: Redirects that are followed for one attempt.
_MAX_REDIRECTS: Final = 5
#: The longest pause that an endpoint can ask for with Retry-After, in seconds.
_MAX_RETRY_AFTER_S: Final = 300
#: Bytes that are read of the body of a response, which says nothing.
_MAX_BODY_BYTES: Final = 64 * 1024
#: Statuses that are about the event, so that the same event would be refused again.
_REFUSALS: Final = frozenset({400, 406, 409, 411, 413, 415, 422})


@frozen
class EndpointSettings:
    """One endpoint.

    :ivar url: may have a user name and a password, which are sent as Basic authentication.
    :ivar headers: sent with each request.
    :ivar timeout_s: how long an attempt may take.
    :ivar threshold: failures in a row after which attempts are preceded by a pause.
    :ivar backoff_s: the pause.
    :ivar form: the format of the body.
    :ivar secret: signs the body; empty for no signature.
    """

    name: str
    url: str = field(repr=False)
    headers: Mapping[str, Sequence[str]] = field(repr=False, factory=dict)
    timeout_s: float = 1.0
    threshold: int = 10
    backoff_s: float = 1.0
    form: str = "distribution"
    secret: str = field(repr=False, default="")


@frozen
class Attempt:
    """The result of one attempt.

    :ivar status: of the response; 0 without one.
    :ivar error: why it failed, or was refused; empty if it was accepted.
    :ivar retry_after_s: the pause that the endpoint asks for; 0 for none.
    """

    status: int = 0
    error: str = ""
    retry_after_s: float = 0.0

    @property
    def is_refusal(self) -> bool:
        """Whether the same event would be refused again."""
        return self.status in _REFUSALS


class EndpointSender(Service):
    """Sends the events of one endpoint while the service runs.

    :ivar settings: the endpoint.
    """

    def __init__(
        self,
        settings: EndpointSettings,
        queue: EventQueue,
        thread: Threads,
        agent: IAgent,
        clock: IReactorTime,
        observe: Callable[[str, Attempt], object] = lambda *_: None,
    ) -> None:
        """Make the service.

        :param queue: used on ``thread`` only.
        :param observe: called with the name of the endpoint and the result of each attempt.
        """
        self.setName(f"notifications to {settings.name}")
        self.settings = settings
        self._queue = queue
        self._thread = thread
        self._client = _Client(settings, agent)
        self._clock = clock
        self._observe = observe
        self._failures = 0
        self._is_queue_failing = False
        #: results that are not in the queue yet: the number of an event, and why it was refused
        self._unrecorded: list[tuple[int, str | None]] = []
        self._pause: _Pause | None = None
        self._attempt: Deferred[Attempt] | None = None
        self._deadline: IDelayedCall | None = None
        self._ended: Deferred[None] = succeed(None)

    def startService(self) -> None:
        """Begin to send."""
        super().startService()
        self._ended = Deferred.fromCoroutine(self._run())
        self._ended.addErrback(lambda reason: log.failure("notifications ended", reason))

    def stopService(self) -> Deferred[None]:
        """Fire when the current attempt has ended, after :data:`STOP_S` at the latest."""
        super().stopService()
        if self._pause is not None:
            self._pause.end()
        if self._attempt is not None:
            self._deadline = self._clock.callLater(STOP_S, self._attempt.cancel)
        return self._ended

    def wake(self) -> None:
        """Look for new events now."""
        if self._pause is not None and self._pause.ends_with_news:
            self._pause.end()

    async def _run(self) -> None:
        while self.running:
            try:
                await self._record_results()
                events = await self._thread.run_blocking(self._fetch)
                self._queue_used()
                for event in events:
                    if await self._deliver(event):
                        await self._record_results()
            except (sqlite3.Error, OSError, QueueDamaged) as error:
                self._queue_failed(error)
                await self._wait(RETRY_S)
            else:
                if not events:
                    await self._wait(POLL_S, ends_with_news=True)

    def _fetch(self) -> Sequence[QueuedEvent]:
        if not self._queue.try_lock():
            return ()
        return self._queue.next_events(self.settings.name, _BATCH_EVENTS)

    async def _record_results(self) -> None:
        while self._unrecorded:
            number, refusal = self._unrecorded[0]
            if refusal is None:
                await self._thread.run_blocking(self._queue.remove, number)
            else:
                await self._thread.run_blocking(self._queue.refuse, number, refusal)
            self._unrecorded.pop(0)

    async def _deliver(self, event: QueuedEvent) -> bool:
        """Send an event until it is accepted or refused; return False if the service stops."""
        pause_s = 0.0
        while self.running:
            if self._failures >= self.settings.threshold:
                pause_s = max(pause_s, self.settings.backoff_s)
            if pause_s:
                await self._wait(pause_s)
                if not self.running:
                    break
            attempt = await self._try(event)
            if attempt is None:
                break
            self._observe(self.settings.name, attempt)
            if not attempt.error:
                self._succeeded()
                self._unrecorded.append((event.number, None))
                return True
            if attempt.is_refusal:
                log.warn(
                    "notifications: endpoint={endpoint} event={id}: refused for good, see"
                    " twisted-registry events list --refused: {error}",
                    endpoint=self.settings.name, id=event.record["id"], error=attempt.error,
                )  # fmt: skip
                self._unrecorded.append((event.number, attempt.error))
                return True
            self._failed(event, attempt)
            pause_s = attempt.retry_after_s
        return False

    async def _try(self, event: QueuedEvent) -> Attempt | None:
        self._attempt = Deferred.fromCoroutine(self._client.send(event.record))
        self._attempt.addTimeout(self.settings.timeout_s, self._clock, _end_at_timeout)
        try:
            return await self._attempt
        except Exception as error:  # noqa: BLE001 - clients raise many
            # The stop cancels the attempt, which is not a fault of the endpoint.
            return Attempt(error=describe_error(error)) if self.running else None
        finally:
            self._attempt = None
            deadline, self._deadline = self._deadline, None
            if deadline is not None and deadline.active():
                deadline.cancel()

    def _queue_failed(self, error: Exception) -> None:
        if not self._is_queue_failing:
            self._is_queue_failing = True
            log.warn(
                "notifications: endpoint={endpoint} queue={path}: it cannot be used: {error}",
                endpoint=self.settings.name, path=self._queue.path, error=str(error),
            )  # fmt: skip

    def _queue_used(self) -> None:
        if self._is_queue_failing:
            self._is_queue_failing = False
            log.info(
                "notifications: endpoint={endpoint} queue={path}: it can be used again",
                endpoint=self.settings.name, path=self._queue.path,
            )  # fmt: skip

    def _succeeded(self) -> None:
        failures, self._failures = self._failures, 0
        if failures:
            log.info(
                "notifications: endpoint={endpoint} failures={count}: accepts events again",
                endpoint=self.settings.name, count=failures,
            )  # fmt: skip

    def _failed(self, event: QueuedEvent, attempt: Attempt) -> None:
        self._failures += 1
        if self._failures in {1, self.settings.threshold}:
            log.warn(
                "notifications: endpoint={endpoint} event={id} failures={count}: events wait:"
                " {error}",
                endpoint=self.settings.name, id=event.record["id"], count=self._failures,
                error=attempt.error,
            )  # fmt: skip

    async def _wait(self, seconds: float, *, ends_with_news: bool = False) -> None:
        if self.running:
            self._pause = _Pause(self._clock, seconds, ends_with_news)
            await self._pause.ended
            self._pause = None


def _end_at_timeout(result: Attempt | Failure, timeout_s: float) -> Attempt:
    # A response counts although its body has not arrived.
    if isinstance(result, Attempt):
        return result
    return Attempt(error=f"no response within {timeout_s:g} s")


@define(eq=False)
class _Pause:
    """A time that can end early."""

    clock: IReactorTime
    seconds: float
    ends_with_news: bool
    ended: Deferred[None] = field(init=False, factory=Deferred)
    _call: IDelayedCall = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._call = self.clock.callLater(self.seconds, self.ended.callback, None)

    def end(self) -> None:
        if self._call.active():
            self._call.cancel()
            self.ended.callback(None)


class _Client:
    """Makes the requests of one endpoint."""

    def __init__(self, settings: EndpointSettings, agent: IAgent) -> None:
        self._settings = settings
        self._agent = agent
        self._url, authorization = _split_credentials(settings.url)
        self._fields = {name: list(values) for name, values in settings.headers.items()}
        names = {name.lower() for name in self._fields}
        if authorization and "authorization" not in names:
            self._fields["Authorization"] = [authorization]
        if "user-agent" not in names:
            self._fields["User-Agent"] = ["twisted-registry"]

    async def send(self, record: Mapping[str, Any]) -> Attempt:
        content_type, body = encode_record(dict(record), self._settings.form)
        trace = {name: [value] for name, value in record.get("trace", {}).items()}
        fields = {**trace, **self._fields, "Content-Type": [content_type]}
        if self._settings.secret:
            fields[SIGNATURE_HEADER] = [sign(body, self._settings.secret)]
        url = self._url
        for _ in range(_MAX_REDIRECTS + 1):
            response: Any = await self._agent.request(
                b"POST", url.encode("ascii"), Headers(fields), _Body(body)
            )
            location = response.headers.getRawHeaders("location", [""])[0]
            await _discard_body(response)
            if response.code not in {307, 308} or not location:
                return _judge(response)
            target = urljoin(url, location)
            if not _is_same_host(url, target):
                # The headers may contain a secret of the first host.
                return Attempt(response.code, "it redirects to another host; correct its url")
            url = target
        return Attempt(error=f"more than {_MAX_REDIRECTS} redirects")


async def _discard_body(response: Any) -> None:
    """Read the body, so that the endpoint can end its response.

    Whatever happens to it, the status counts: an error is ignored, and so is the cancellation at
    the timeout of the attempt, which closes the connection.
    """
    with suppress(Exception):
        await read_limited_body(response, _MAX_BODY_BYTES)


def _judge(response: Any) -> Attempt:
    status = response.code
    if 200 <= status < 400:
        return Attempt(status)
    phrase = RESPONSES.get(status, b"").decode("ascii")
    retry_after = response.headers.getRawHeaders("retry-after", [""])[0]
    seconds = int(retry_after) if retry_after.isascii() and retry_after.isdigit() else 0
    return Attempt(status, f"status {status} {phrase}".rstrip(), min(seconds, _MAX_RETRY_AFTER_S))


def _is_same_host(first: str, second: str) -> bool:
    """Whether a redirect stays at its host; from http to https of the host is allowed."""
    before, after = urlsplit(first), urlsplit(second)
    if before.scheme == "http" and after.scheme == "https":
        return before.hostname == after.hostname
    return (before.scheme, before.netloc) == (after.scheme, after.netloc)


def _split_credentials(url: str) -> tuple[str, str]:
    """Return the URL as ASCII without user name and password, and the Authorization for them."""
    parts = urlsplit(url)
    authorization = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = f"Basic {b64encode(pair.encode()).decode('ascii')}"
        parts = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    return URL.from_text(parts.geturl()).to_uri().to_text(), authorization


@implementer(IBodyProducer)
@define(eq=False)
class _Body:
    """A body that is written at once."""

    content: bytes
    length: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.length = len(self.content)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self.content)
        return succeed(None)

    def pauseProducing(self) -> None:
        """Do nothing: all is written."""

    def resumeProducing(self) -> None:
        """Do nothing: all is written."""

    def stopProducing(self) -> None:
        """Do nothing: all is written."""
