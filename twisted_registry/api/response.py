"""Coroutines that seldom wait: run to their end at once, with a Deferred only for one that does.

A warm pull waits for nothing. What ``Deferred.fromCoroutine`` prepares for waiting costs as much
as the whole of its handler.

Answers, and how they reach the client.

A handler returns an :class:`Response`; sending it is done here, once: short bodies in one piece,
blobs by kernel copy or as a producer, long listings page by page as the client takes them.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from twisted_registry.http.interfaces import IStreamingRequest
from twisted_registry.storage.interfaces import ILocalFileReader

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator, Mapping, Sequence

    from twisted.internet.interfaces import IConsumer
    from twisted.web.server import Request

_T = TypeVar("_T")


def run_until_wait(work: Coroutine[Any, Any, _T]) -> Deferred[_T] | None:
    """Run ``work`` until it ends or waits.

    :returns: None if it has ended, whatever its result; else a Deferred as
        ``Deferred.fromCoroutine`` gives it, of which the first step has been made.
    :raises Exception: what it raised before it waited.
    """
    try:
        awaited = work.send(None)
    except StopIteration:
        return None
    return Deferred.fromCoroutine(_resume(work, awaited))


def _resume(
    work: Coroutine[Any, Any, _T], awaited: Deferred[Any]
) -> Generator[Deferred[Any], Any, _T]:
    """What remains of a coroutine that waits for ``awaited``, as a generator of its own."""
    try:
        while True:
            try:
                result = yield awaited
            except GeneratorExit:
                work.close()
                raise
            except BaseException as error:  # noqa: BLE001 (it is the coroutine's to handle)
                awaited = work.throw(error)
            else:
                awaited = work.send(result)
    except StopIteration as end:
        outcome: _T = end.value
        return outcome


JSON = "application/json"

#: Of the header fields that are remembered.
_MAX_CACHED_FIELDS = 12
_MAX_CACHED_CHARACTERS = 512


class BoundedReader(Protocol):
    """What the store's readers offer (``storage.interfaces.IReader``)."""

    size: int

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """Write everything to the consumer."""

    def close(self) -> None:
        """Free what is held."""


@frozen
class Response:
    """What to send.

    :ivar headers: pairs; a name may come twice.
    :ivar body: bytes, an open stretch of a file, or pieces whose total length is not known.
    :ivar length: Content-Length, where it is not that of the body (HEAD).
    :ivar ready: ``headers`` as :func:`encode_headers` makes them, if they are at hand.
    """

    status: int = 200
    headers: Sequence[tuple[str, str]] = ()
    body: bytes | BoundedReader | AsyncIterator[bytes] = b""
    length: int | None = None
    ready: bytes | None = None

    @classmethod
    def json(
        cls,
        document: object,
        status: int = 200,
        headers: Sequence[tuple[str, str]] = (),
        content_type: str = JSON,
    ) -> Response:
        """An answer that is a JSON document."""
        body = json.dumps(document, separators=(",", ":")).encode()
        return cls(status, (("Content-Type", content_type), *headers), body)


class CommonHeaders:
    """The headers of every answer, made ready once."""

    def __init__(self, headers: Mapping[str, Sequence[str]]) -> None:
        """:param headers: name -> values."""
        self.headers = headers
        pairs = [(name, value) for name, values in headers.items() for value in values]
        self.encoded_headers = encode_headers(tuple(pairs))


def encode_headers(headers: tuple[tuple[str, str], ...]) -> bytes:
    """Header fields as bytes, each with its line break; breaks inside become spaces."""
    # Only fields of a usual length are remembered: nobody shall fill our memory with others.
    cacheable = (
        len(headers) <= _MAX_CACHED_FIELDS
        and sum(len(value) for _, value in headers) <= _MAX_CACHED_CHARACTERS
    )
    return _encode_headers_cached(headers) if cacheable else _encode_headers(headers)


def _encode_headers(headers: tuple[tuple[str, str], ...]) -> bytes:
    lines = (f"{name}: {' '.join(value.splitlines())}\r\n" for name, value in headers)
    return "".join(lines).encode("utf-8")


_encode_headers_cached = lru_cache(maxsize=4096)(_encode_headers)


async def send(response: Response, request: Request, common: CommonHeaders) -> None:
    """Send an answer and finish the request.

    :param common: headers of every answer; those of the answer itself come on top.
    """
    body = response.body
    if not IStreamingRequest.providedBy(request):
        await _send_portably(response, request, common)
    elif isinstance(body, bytes):
        request.sendResponse(
            response.status, _encoded_headers(response, common), body, response.length
        )
    elif ILocalFileReader.providedBy(body):
        await _send_file(body, response, request, common)
    else:
        await _send_portably(response, request, common)


def _encoded_headers(response: Response, common: CommonHeaders) -> bytes:
    ready = response.ready
    return common.encoded_headers + (
        encode_headers(tuple(response.headers)) if ready is None else ready
    )


async def _send_file(
    body: ILocalFileReader, response: Response, request: Any, common: CommonHeaders
) -> None:
    """Send a part of a file by kernel copy."""
    encoded_headers = _encoded_headers(response, common)
    try:
        sent = request.sendFileResponse(
            response.status, encoded_headers, body.fileno(), body.offset(), body.size
        )
        if sent is not None:
            await sent
    finally:
        body.close()


async def _send_portably(response: Response, request: Request, common: CommonHeaders) -> None:
    """Send with nothing but what every request of twisted.web has."""
    body = response.body
    try:
        request.setResponseCode(response.status)
        # twisted.web would say text/html where nothing was said.
        request.defaultContentType = None
        for name, values in common.headers.items():
            request.responseHeaders.setRawHeaders(name, list(values))
        for name, value in response.headers:
            request.responseHeaders.addRawHeader(name, value)
        if isinstance(body, bytes):
            _send_bytes(request, body, response.length)
        elif isinstance(body, AsyncIterator):
            await _send_iterator(request, body)
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


async def _send_iterator(request: Request, pieces: AsyncIterator[bytes]) -> None:
    if request.method == b"HEAD":
        request.write(b"")
        return
    writer = PausableWriter()
    request.registerProducer(writer, True)
    try:
        async for piece in pieces:
            request.write(piece)
            await writer.ready()
    finally:
        request.unregisterProducer()


@implementer(IPushProducer)
class PausableWriter:
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
