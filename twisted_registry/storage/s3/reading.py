"""Answers to operations, as values."""

from __future__ import annotations

import calendar
import re
import time
from typing import TYPE_CHECKING, Final

from attrs import frozen
from twisted.web.http import stringToDatetime
from zope.interface import implementer

from twisted_registry.storage.s3.documents import name_decoder
from twisted_registry.storage.s3.errors import InvalidResponse
from twisted_registry.storage.s3.interfaces import IObjectBody
from twisted_registry.storage.s3.objects import (
    DeleteError,
    MultipartUpload,
    ObjectInfo,
    ObjectListing,
    Part,
    UploadListing,
)

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IConsumer

    from twisted_registry.storage.s3.answer import S3Response
    from twisted_registry.storage.s3.documents import Element

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
        raise InvalidResponse(response.what, "the answer does not say how long it is", retryable=True)
    if offset == 0 and length is None:
        return ObjectBody(parse_object_info(response, key, coming), coming, response)
    told = response.header("content-range")
    found = _CONTENT_RANGE.fullmatch(told)
    if response.status != 206 or found is None:
        raise InvalidResponse(response.what, f"a range was asked for, and came not as one: {told!r}")
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
