"""Responses of the API, and how they are sent to the client.

A handler returns a :class:`Response`; :func:`send_response` is the only place that sends one: a
short body in one piece, a blob by sendfile or as a producer, a long listing piece by piece as fast
as the client reads it.

:class:`AsyncResource` responds by a coroutine, which :func:`run_until_wait` starts. A warm pull
never waits, and the bookkeeping of ``Deferred.fromCoroutine`` would cost as much as its whole
handler.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Self, TypeVar

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from twisted_registry.http.interfaces import IStreamingRequest, IStreamingResource
from twisted_registry.http.redaction import describe_request
from twisted_registry.http.request_id import (
    REQUEST_ID_FIELD,
    current_request_id,
    get_request_id,
)
from twisted_registry.storage.interfaces import ILocalFileReader

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator, Iterable, Mapping, Sequence

    from twisted.web.server import Request

    from twisted_registry.oci.errors import RegistryError
    from twisted_registry.storage.interfaces import IReader

log = Logger()

JSON = "application/json"

_T = TypeVar("_T")


class EncodedHeaders(tuple[tuple[str, str], ...]):  # noqa: SLOT001 - a tuple has no other slots
    """Headers of many responses, encoded once.

    :ivar encoded: the encoded fields, each with its line break.
    """

    encoded: bytes

    def __new__(cls, headers: Iterable[tuple[str, str]]) -> Self:
        """Encode the pairs."""
        self = super().__new__(cls, headers)
        self.encoded = encode_headers(tuple(self))
        return self


@define(eq=False)  # one per request; creating a frozen instance is slower
class Response:
    """A response to be sent.

    The repr has neither headers nor body, which may contain tokens.

    :ivar headers: pairs; a name may occur twice. :class:`EncodedHeaders` are not encoded again.
    :ivar body: bytes, an open reader, or pieces of unknown total length.
    :ivar length: the Content-Length if it is not the length of ``body`` (HEAD).
    :ivar error: the error that it reports, for the log; or None.
    """

    status: int = 200
    headers: Sequence[tuple[str, str]] = field(default=(), repr=False)
    body: bytes | IReader | AsyncIterator[bytes] = field(default=b"", repr=False)
    length: int | None = None
    error: RegistryError | None = field(default=None, repr=False)

    @classmethod
    def json(
        cls, document: object, status: int = 200, headers: Sequence[tuple[str, str]] = ()
    ) -> Response:
        """Return a response with a JSON document."""
        return cls(status, (("Content-Type", JSON), *headers), encode_json(document))

    @classmethod
    def from_error(cls, error: RegistryError, more: Mapping[str, object] | None = None) -> Response:
        """Return the response for an error (distribution specification, "Error Codes").

        :param more: further members of the JSON document.
        """
        document = {**(more or {}), **error.as_json()}
        headers = (("Content-Type", JSON), *error.headers)
        return cls(error.http_status, headers, encode_json(document), error=error)


@frozen
class CommonHeaders:
    """The headers of every response, encoded once.

    :ivar headers: name -> values.
    """

    headers: Mapping[str, Sequence[str]]
    encoded: bytes = field(init=False)

    @encoded.default
    def _encode(self) -> bytes:
        return encode_headers(
            [(name, value) for name, values in self.headers.items() for value in values]
        )


@implementer(IStreamingResource)
class AsyncResource(Resource):
    """A Resource that responds by a coroutine.

    ``render`` runs as soon as the request headers are complete, before the body is read. A client
    that disconnects cancels the coroutine wherever it waits.
    """

    def render(self, request: Request) -> int:
        """Start the response; a response that waits continues as a coroutine."""
        # The coroutine continues with a copy of the context that it was started in.
        token = current_request_id.set(get_request_id(request))
        try:
            work = run_until_wait(self.respond(request))
        except Exception:  # noqa: BLE001 - any error closes the connection
            _abort_response(Failure(), request)
            return NOT_DONE_YET
        finally:
            current_request_id.reset(token)
        if work is not None:
            # This Deferred fails when the client disconnects.
            request.notifyFinish().addErrback(lambda _: work.cancel())
            work.addErrback(_abort_response, request)
        return NOT_DONE_YET

    @abstractmethod
    async def respond(self, request: Request) -> None:
        """Send the response of a request of any method."""


def _abort_response(failure: Failure, request: Request) -> None:
    """Close the connection after a response that could not be completed."""
    if not failure.check(CancelledError):
        log.warn(
            "{request}: response incomplete: {reason}",
            request=describe_request(request),
            reason=failure.getErrorMessage(),
            **{REQUEST_ID_FIELD: get_request_id(request)},
        )
    if request.channel is not None:
        # The client must not take an incomplete response for a complete one.
        request.loseConnection()


def encode_json(document: object) -> bytes:
    """Encode a JSON document without whitespace."""
    return json.dumps(document, separators=(",", ":")).encode()


def encode_headers(headers: Sequence[tuple[str, str]]) -> bytes:
    """Encode header fields, each with its line break; line breaks in values become spaces."""
    if isinstance(headers, EncodedHeaders):
        return headers.encoded
    lines = [
        f"{name}: {value if value.isprintable() else ' '.join(value.splitlines())}\r\n"
        for name, value in headers
    ]
    return "".join(lines).encode("utf-8")


async def send_response(response: Response, request: Request, common: CommonHeaders) -> None:
    """Send a response and finish the request.

    :param common: headers of every response; those of ``response`` are added to them.
    """
    body = response.body
    if not IStreamingRequest.providedBy(request):
        await _send_portably(response, request, common)
    elif isinstance(body, bytes):
        fields = common.encoded + encode_headers(response.headers)
        request.sendResponse(response.status, fields, body, response.length)
    elif ILocalFileReader.providedBy(body):
        await _send_file(body, response, request, common)
    else:
        await _send_portably(response, request, common)


async def _send_file(
    body: ILocalFileReader, response: Response, request: Any, common: CommonHeaders
) -> None:
    """Send a part of a file by sendfile."""
    fields = common.encoded + encode_headers(response.headers)
    try:
        sent = request.sendFileResponse(
            response.status, fields, body.fileno(), body.offset(), body.size
        )
        if sent is not None:
            await sent
    finally:
        body.close()


async def _send_portably(response: Response, request: Request, common: CommonHeaders) -> None:
    """Send a response with the methods that every twisted.web request has."""
    body = response.body
    try:
        request.setResponseCode(response.status)
        # Otherwise twisted.web adds text/html to a response without Content-Type.
        request.defaultContentType = None
        request.responseHeaders.setRawHeaders("X-Request-Id", [get_request_id(request)])
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
            await writer.wait_until_ready()
    finally:
        request.unregisterProducer()


@implementer(IPushProducer)
@define(eq=False, repr=False)
class PausableWriter:
    """Lets a coroutine write to a consumer no faster than the consumer takes the data."""

    _paused: bool = field(init=False, default=False)
    _waiting: Deferred[None] | None = field(init=False, default=None)

    async def wait_until_ready(self) -> None:
        """Return when the consumer takes more data."""
        if self._paused:
            self._waiting = Deferred()
            await self._waiting

    def pauseProducing(self) -> None:
        """Make :meth:`wait_until_ready` wait."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Let :meth:`wait_until_ready` return."""
        self._paused = False
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    def stopProducing(self) -> None:
        """Do nothing: a client that disconnects cancels the coroutine."""


def run_until_wait(work: Coroutine[Any, Any, _T]) -> Deferred[_T] | None:
    """Run a coroutine until it ends or waits.

    :returns: None if it has ended, whatever its result; otherwise a Deferred as from
        ``Deferred.fromCoroutine``, after the coroutine's first step.
    :raises Exception: what the coroutine raised before it waited.
    """
    try:
        awaited = work.send(None)
    except StopIteration:
        return None
    return Deferred.fromCoroutine(_resume(work, awaited))


def _resume(
    work: Coroutine[Any, Any, _T], awaited: Deferred[Any]
) -> Generator[Deferred[Any], Any, _T]:
    """Run the rest of a coroutine that waits for ``awaited``."""
    try:
        while True:
            try:
                result = yield awaited
            except GeneratorExit:
                work.close()
                raise
            except BaseException as error:  # noqa: BLE001 - the coroutine handles it
                awaited = work.throw(error)
            else:
                awaited = work.send(result)
    except StopIteration as end:
        outcome: _T = end.value
        return outcome
