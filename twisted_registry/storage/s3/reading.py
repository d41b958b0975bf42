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
from twisted_registry.storage.s3.errors import Corrupt
from twisted_registry.storage.s3.interfaces import IObjectBody
from twisted_registry.storage.s3.objects import (
    DeleteFault,
    MultipartUpload,
    ObjectInfo,
    ObjectListing,
    Part,
    UploadListing,
)

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IConsumer

    from twisted_registry.storage.s3.answer import Answer
    from twisted_registry.storage.s3.documents import Element

#: The header that keeps the note of an object.
NOTE: Final = "x-amz-meta-twisted-registry"
_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


@implementer(IObjectBody)
@frozen(eq=False)
class ObjectBody:
    """The body of an object."""

    info: ObjectInfo
    length: int
    _answer: Answer

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """Write everything to ``consumer``."""
        return self._answer.deliver(consumer)

    def collect(self) -> Deferred[bytes]:
        """Fire with everything."""
        return self._answer.collect(self.length)

    def close(self) -> None:
        """Drop the connection unless everything was read."""
        self._answer.close()


def info_of(answer: Answer, key: str, size: int) -> ObjectInfo:
    """Read the head of HeadObject or GetObject."""
    modified = answer.header("last-modified")
    try:
        seconds = stringToDatetime(modified.encode()) if modified else None
    except (ValueError, IndexError, KeyError):
        seconds = None
    return ObjectInfo(
        key,
        size,
        etag_of(answer.header("etag")),
        None if seconds is None else seconds * 10**9,
        answer.header(NOTE),
    )


def body_of(answer: Answer, key: str, offset: int, length: int | None) -> ObjectBody:
    """Read the head of GetObject, of the stretch that was asked for.

    :raises Corrupt: if that is not what came.
    """
    coming = answer.length
    if coming is None:
        raise Corrupt(answer.what, "the answer does not say how long it is", retry=True)
    if offset == 0 and length is None:
        return ObjectBody(info_of(answer, key, coming), coming, answer)
    told = answer.header("content-range")
    found = _CONTENT_RANGE.fullmatch(told)
    if answer.status != 206 or found is None:
        raise Corrupt(answer.what, f"a range was asked for, and came not as one: {told!r}")
    first, last, size = (int(number) for number in found.groups())
    wanted = size - offset if length is None else min(length, size - offset)
    if first != offset or last - first + 1 != wanted or coming != wanted:
        raise Corrupt(
            answer.what, f"{wanted} bytes from {offset} were asked for; what came is {told!r}"
        )
    return ObjectBody(info_of(answer, key, size), coming, answer)


def etag_of(text: str) -> str:
    """An ETag without its quotes."""
    return text.strip().strip('"')


def objects_of(document: Element) -> ObjectListing:
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
        document.text("NextContinuationToken") if _goes_on(document) else "",
    )


def uploads_of(document: Element) -> UploadListing:
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
        if _goes_on(document)
        else None,
    )


def parts_of(document: Element) -> tuple[list[Part], str]:
    """Read a page of ListParts, and the marker of the next, which is empty at the end."""
    return [
        Part(
            int(item.text("PartNumber")),
            etag_of(item.text("ETag")),
            int(item.text("Size")),
            _nanoseconds(item.text("LastModified")),
        )
        for item in document.all("Part")
    ], document.text("NextPartNumberMarker") if _goes_on(document) else ""


def delete_faults_of(document: Element) -> list[DeleteFault]:
    """Read DeleteObjects."""
    return [
        DeleteFault(item.text("Key"), item.text("Code"), item.text("Message"))
        for item in document.all("Error")
        if item.text("Code") != "NoSuchKey"
    ]


def _goes_on(document: Element) -> bool:
    return document.text("IsTruncated") == "true"


def _nanoseconds(text: str) -> int | None:
    """Nanoseconds since the epoch, of a time such as ``2013-05-24T00:00:00.000Z``."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    try:
        seconds = calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S"))
        return seconds * 10**9 + int(fraction.ljust(9, "0")[:9] or 0)
    except ValueError:
        return None
