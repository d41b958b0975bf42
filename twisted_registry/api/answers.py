"""Answers, and how they reach the client.

A handler returns an :class:`Answer`; sending it is done here, once: short bodies in one piece,
blobs by kernel copy or as a producer, long listings page by page as the client takes them.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from twisted_registry.api.interfaces import IStreamedRequest
from twisted_registry.value import Value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from twisted.internet.interfaces import IConsumer
    from twisted.web.server import Request

JSON = "application/json"

#: Of the header fields that are remembered.
_FIELDS = 12
_CHARACTERS = 512


class Stretch(Protocol):
    """What the store's readers offer (``storage.interfaces.IReader``)."""

    size: int

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """Write everything to the consumer."""

    def fileno(self) -> int | None:
        """Return a descriptor for a kernel copy, or None."""

    def offset(self) -> int:
        """Return where in that file to begin."""

    def close(self) -> None:
        """Free what is held."""


@frozen(eq=False, repr=False)
class Answer(Value):
    """What to send.

    :ivar headers: pairs; a name may come twice.
    :ivar body: bytes, an open stretch of a file, or pieces whose total length is not known.
    :ivar length: Content-Length, where it is not that of the body (HEAD).
    :ivar ready: ``headers`` as :func:`ready_fields` makes them, if they are at hand.
    """

    status: int = 200
    headers: Sequence[tuple[str, str]] = ()
    body: bytes | Stretch | AsyncIterator[bytes] = b""
    length: int | None = None
    ready: bytes | None = None

    @classmethod
    def json(
        cls,
        document: object,
        status: int = 200,
        headers: Sequence[tuple[str, str]] = (),
        content_type: str = JSON,
    ) -> Answer:
        """An answer that is a JSON document."""
        body = json.dumps(document, separators=(",", ":")).encode()
        return cls(status, (("Content-Type", content_type), *headers), body)


class Common:
    """The headers of every answer, made ready once."""

    def __init__(self, headers: Mapping[str, Sequence[str]]) -> None:
        """:param headers: name -> values."""
        self.headers = headers
        pairs = [(name, value) for name, values in headers.items() for value in values]
        self.fields = ready_fields(tuple(pairs))


def ready_fields(headers: tuple[tuple[str, str], ...]) -> bytes:
    """Header fields as bytes, each with its line break; breaks inside become spaces."""
    # Only fields of a usual length are remembered: nobody shall fill our memory with others.
    usual = len(headers) <= _FIELDS and sum(len(value) for _, value in headers) <= _CHARACTERS
    return _remembered(headers) if usual else _made(headers)


def _made(headers: tuple[tuple[str, str], ...]) -> bytes:
    lines = (f"{name}: {' '.join(value.splitlines())}\r\n" for name, value in headers)
    return "".join(lines).encode("utf-8")


_remembered = lru_cache(maxsize=4096)(_made)


async def send(answer: Answer, request: Request, common: Common) -> None:
    """Send an answer and finish the request.

    :param common: headers of every answer; those of the answer itself come on top.
    """
    body = answer.body
    if not IStreamedRequest.providedBy(request):
        await _send_plainly(answer, request, common)
    elif isinstance(body, bytes):
        request.sendWhole(answer.status, _all_fields(answer, common), body, answer.length)
    elif hasattr(body, "fileno"):
        await _send_stretch(body, answer, request, common)  # type: ignore[arg-type]
    else:
        await _send_plainly(answer, request, common)


def _all_fields(answer: Answer, common: Common) -> bytes:
    ready = answer.ready
    return common.fields + (ready_fields(tuple(answer.headers)) if ready is None else ready)


async def _send_stretch(body: Stretch, answer: Answer, request: Any, common: Common) -> None:
    """Send a part of a file by kernel copy, if it has a descriptor."""
    descriptor = body.fileno()
    if descriptor is None:
        await _send_plainly(answer, request, common)
        return
    fields = _all_fields(answer, common)
    try:
        sent = request.sendWholeFile(answer.status, fields, descriptor, body.offset(), body.size)
        if sent is not None:
            await sent
    finally:
        body.close()


async def _send_plainly(answer: Answer, request: Request, common: Common) -> None:
    """Send with nothing but what every request of twisted.web has."""
    body = answer.body
    try:
        request.setResponseCode(answer.status)
        # twisted.web would say text/html where nothing was said.
        request.defaultContentType = None
        for name, values in common.headers.items():
            request.responseHeaders.setRawHeaders(name, list(values))
        for name, value in answer.headers:
            request.responseHeaders.addRawHeader(name, value)
        if isinstance(body, bytes):
            _send_bytes(request, body, answer.length)
        elif isinstance(body, AsyncIterator):
            await _send_pieces(request, body)
        else:
            request.setHeader("Content-Length", str(body.size))
            await body.deliver(request)
    finally:
        if not isinstance(body, bytes | AsyncIterator):
            body.close()
    request.finish()


def _send_bytes(request: Request, body: bytes, length: int | None) -> None:
    if request.code not in (204, 304):
        request.setHeader("Content-Length", str(len(body) if length is None else length))
    request.write(b"" if request.method == b"HEAD" else body)


async def _send_pieces(request: Request, pieces: AsyncIterator[bytes]) -> None:
    if request.method == b"HEAD":
        request.write(b"")
        return
    pace = Pace()
    request.registerProducer(pace, True)
    try:
        async for piece in pieces:
            request.write(piece)
            await pace.ready()
    finally:
        request.unregisterProducer()


@implementer(IPushProducer)
class Pace:
    """Lets a coroutine write to a consumer no faster than the consumer takes it."""

    def __init__(self) -> None:
        self._paused = False
        self._waiting: Deferred[None] | None = None

    async def ready(self) -> None:
        """Return when the consumer takes more."""
        if self._paused:
            self._waiting = Deferred()
            await self._waiting

    def pauseProducing(self) -> None:
        """Make :meth:`ready` wait."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Let :meth:`ready` return."""
        self._paused = False
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    def stopProducing(self) -> None:
        """Do nothing: a client that leaves cancels the coroutine."""
