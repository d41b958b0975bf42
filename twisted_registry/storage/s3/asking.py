"""How a question is put to the store, and its answer read: what all operations share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, inlineCallbacks, succeed

from twisted_registry.storage.s3 import reading
from twisted_registry.storage.s3.documents import XMLError, Element, parse_xml
from twisted_registry.storage.s3.errors import InvalidResponse, NotFound
from twisted_registry.storage.s3.faults import error_from_response
from twisted_registry.storage.s3.operation import Operation
from twisted_registry.storage.s3.sigv4 import encoded_path
from twisted_registry.storage.s3.storing import ObjectOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from twisted_registry.storage.s3.answer import S3Response
    from twisted_registry.storage.s3.objects import ObjectInfo
    from twisted_registry.storage.s3.sender import Sender

_T = TypeVar("_T")

#: Bytes of an answer in XML: a thousand of the longest keys, each byte of them encoded.
MAX_DOCUMENT_BYTES: Final = 8 * 1024 * 1024


@define(eq=False)
class ClientBase:
    """Asks for one bucket.

    :ivar sender: signs and sends.
    :ivar storing: how objects are to be kept.
    """

    sender: Sender
    storing: ObjectOptions = field(factory=ObjectOptions)

    @property
    def bucket(self) -> str:
        """Its name."""
        return self.sender.address.bucket

    def head_object(self, key: str) -> Deferred[ObjectInfo]:
        """Fire with size and time of an object."""

        def read(response: S3Response) -> Deferred[ObjectInfo]:
            response.close()
            size = response.header("content-length")
            if not size.isdecimal():
                raise InvalidResponse(response.what, f"the size of the object is {size!r}", retryable=True)
            return succeed(reading.parse_object_info(response, key, int(size)))

        return self.sender.send(Operation("HeadObject", "HEAD", key), read)

    def source(self, key: str, etag: str) -> dict[str, str]:
        """The headers that name what is to be copied.

        :param etag: what it must have; empty takes any.
        """
        headers = {"x-amz-copy-source": encoded_path(f"{self.bucket}/{key}")}
        if etag:
            headers["x-amz-copy-source-if-match"] = f'"{etag}"'
        return headers

    def request_document(self, operation: Operation, root: str, read: Callable[[Element], _T]) -> Deferred[_T]:
        """Send what is answered by a document, and fire with what ``read`` makes of that."""

        @inlineCallbacks
        def finish(response: S3Response) -> Generator[Any, Any, _T]:
            content = yield response.collect(MAX_DOCUMENT_BYTES)
            try:
                document = parse_xml(content)
                if document.name == root:
                    return read(document)
            except (XMLError, ValueError) as error:
                raise InvalidResponse(
                    response.what, f"the answer can not be read: {error}", retryable=True
                ) from error
            if document.name == "Error":
                # Of operations that take their time the status is sent before their end.
                raise error_from_response(response, content, self.sender.address.region)
            raise InvalidResponse(response.what, f"the answer is a {document.name}, and no {root}")

        return self.sender.send(operation, finish)

    def request_delete(self, operation: Operation) -> Deferred[None]:
        """Send what takes something away; that it is gone already is no error."""
        removing = self.sender.send(operation, discard_body)
        return removing.addErrback(lambda failure: failure.trap(NotFound) and None)


def non_empty(parameters: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Those parameters that are not empty."""
    return tuple((name, value) for name, value in parameters.items() if value)


def discard_body(response: S3Response) -> Deferred[None]:
    """Read an answer of which only the status counts."""
    return response.collect(MAX_DOCUMENT_BYTES).addCallback(lambda _: None)


def etag_of(response: S3Response) -> Deferred[str]:
    """Read an answer, and fire with the ETag that its head tells."""
    return response.collect(MAX_DOCUMENT_BYTES).addCallback(
        lambda _: reading.etag_of(response.header("etag"))
    )


def etag_element(document: Element) -> str:
    """The ETag that a document tells."""
    return reading.etag_of(document.text("ETag"))
