"""Answers to operations, as values.

What an answer that is no success says.
"""

from __future__ import annotations

import calendar
import re
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen
from twisted.web.http import stringToDatetime
from zope.interface import implementer

from twisted_registry.storage.s3.errors import (
    InvalidResponse,
    WrongRegion,
    error_class,
    is_transient,
)
from twisted_registry.storage.s3.interfaces import (
    DeleteError,
    IObjectBody,
    MultipartUpload,
    ObjectInfo,
    ObjectListing,
    Part,
    UploadListing,
)
from twisted_registry.storage.s3.xml import Element, XMLError, name_decoder, parse_xml

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IConsumer

    from twisted_registry.storage.s3.errors import S3Error
    from twisted_registry.storage.s3.transport import S3Response

#: The header that keeps the note of an object.
METADATA_HEADER: Final = "x-amz-meta-twisted-registry"
_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


@implementer(IObjectBody)
@frozen(eq=False)
class ObjectBody:
    """The body of an object."""

    info: ObjectInfo
    length: int
    _response: S3Response

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """Write everything to ``consumer``."""
        return self._response.deliver(consumer)

    def collect(self) -> Deferred[bytes]:
        """Fire with everything."""
        return self._response.collect(self.length)

    def close(self) -> None:
        """Drop the connection unless everything was read."""
        self._response.close()


def parse_object_info(response: S3Response, key: str, size: int) -> ObjectInfo:
    """Read the head of HeadObject or GetObject."""
    modified = response.header("last-modified")
    try:
        seconds = stringToDatetime(modified.encode()) if modified else None
    except (ValueError, IndexError, KeyError):
        seconds = None
    return ObjectInfo(
        key,
        size,
        etag_of(response.header("etag")),
        None if seconds is None else seconds * 10**9,
        response.header(METADATA_HEADER),
    )


def open_object_body(response: S3Response, key: str, offset: int, length: int | None) -> ObjectBody:
    """Read the head of GetObject, of the stretch that was asked for.

    :raises Corrupt: if that is not what came.
    """
    coming = response.length
    if coming is None:
        raise InvalidResponse(
            response.what, "the answer does not say how long it is", retryable=True
        )
    if offset == 0 and length is None:
        return ObjectBody(parse_object_info(response, key, coming), coming, response)
    told = response.header("content-range")
    found = _CONTENT_RANGE.fullmatch(told)
    if response.status != 206 or found is None:
        raise InvalidResponse(
            response.what, f"a range was asked for, and came not as one: {told!r}"
        )
    first, last, size = (int(number) for number in found.groups())
    wanted = size - offset if length is None else min(length, size - offset)
    if first != offset or last - first + 1 != wanted or coming != wanted:
        raise InvalidResponse(
            response.what, f"{wanted} bytes from {offset} were asked for; what came is {told!r}"
        )
    return ObjectBody(parse_object_info(response, key, size), coming, response)


def etag_of(text: str) -> str:
    """An ETag without its quotes."""
    return text.strip().strip('"')


def parse_object_listing(document: Element) -> ObjectListing:
    """Read ListObjectsV2."""
    decoded = name_decoder(document)
    return ObjectListing(
        tuple(
            ObjectInfo(
                decoded(item.text("Key")),
                int(item.text("Size")),
                etag_of(item.text("ETag")),
                _nanoseconds(item.text("LastModified")),
            )
            for item in document.all("Contents")
        ),
        tuple(decoded(item.text("Prefix")) for item in document.all("CommonPrefixes")),
        document.text("NextContinuationToken") if _is_truncated(document) else "",
    )


def parse_upload_listing(document: Element) -> UploadListing:
    """Read ListMultipartUploads."""
    return UploadListing(
        tuple(
            MultipartUpload(
                item.text("Key"),
                item.text("UploadId"),
                _nanoseconds(item.text("Initiated")),
            )
            for item in document.all("Upload")
        ),
        (document.text("NextKeyMarker"), document.text("NextUploadIdMarker"))
        if _is_truncated(document)
        else None,
    )


def parse_part_listing(document: Element) -> tuple[list[Part], str]:
    """Read a page of ListParts, and the marker of the next, which is empty at the end."""
    return [
        Part(
            int(item.text("PartNumber")),
            etag_of(item.text("ETag")),
            int(item.text("Size")),
            _nanoseconds(item.text("LastModified")),
        )
        for item in document.all("Part")
    ], document.text("NextPartNumberMarker") if _is_truncated(document) else ""


def parse_delete_errors(document: Element) -> list[DeleteError]:
    """Read DeleteObjects."""
    return [
        DeleteError(item.text("Key"), item.text("Code"), item.text("Message"))
        for item in document.all("Error")
        if item.text("Code") != "NoSuchKey"
    ]


def _is_truncated(document: Element) -> bool:
    return document.text("IsTruncated") == "true"


def _nanoseconds(text: str) -> int | None:
    """Nanoseconds since the epoch, of a time such as ``2013-05-24T00:00:00.000Z``."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    try:
        seconds = calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S"))
        return seconds * 10**9 + int(fraction.ljust(9, "0")[:9] or 0)
    except ValueError:
        return None


#: Characters of the store's own sentence that are passed on.
_MAX_MESSAGE_CHARS: Final = 300


def error_from_response(response: S3Response, content: bytes, region: str) -> S3Error:
    """Answer the error that an answer stands for.

    :param content: its body; empty after HEAD, and perhaps no XML if it is not the store's own.
    :param region: that we signed for.
    """
    document = _document(content)
    code = document.text("Code")
    message = " ".join(document.text("Message").split())[:_MAX_MESSAGE_CHARS]
    kind = error_class(code, response.status)
    facts: dict[str, Any] = {
        "code": code,
        "status": response.status,
        "request_id": response.header("x-amz-request-id") or document.text("RequestId"),
        "retryable": is_transient(code, response.status),
    }
    if kind is WrongRegion:
        right = response.header("x-amz-bucket-region") or document.text("Region")
        if right and right != region:
            message = f"the bucket is in the region {right}, and not in {region}"
        elif document.text("Endpoint"):
            message = (
                f"the bucket is to be asked for at {document.text('Endpoint')[:_MAX_MESSAGE_CHARS]}"
            )
        return WrongRegion(
            response.what, message or "the bucket is elsewhere", region=right, **facts
        )
    return kind(response.what, message or _phrase(response.status), **facts)


def _document(content: bytes) -> Element:
    try:
        document = parse_xml(content)
    except XMLError:
        return Element("")
    return document if document.name == "Error" else next(document.all("Error"), Element(""))


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "refused"
