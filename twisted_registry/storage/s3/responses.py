"""Convert S3 responses to values and errors."""

from __future__ import annotations

import calendar
import hashlib
import re
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from attrs import define, field
from twisted.web.http import stringToDatetime

from twisted_registry.storage.s3.errors import (
    InvalidResponse,
    WrongRegion,
    error_class,
    is_transient,
)
from twisted_registry.storage.s3.interfaces import (
    DeleteError,
    MultipartUpload,
    ObjectInfo,
    ObjectListing,
    Part,
    UploadListing,
)
from twisted_registry.storage.s3.xml import Element, XMLError, name_decoder, parse_xml

if TYPE_CHECKING:
    from twisted_registry.storage.s3.errors import S3Error
    from twisted_registry.storage.s3.transport import S3Response

#: Header of the user metadata of an object.
METADATA_HEADER: Final = "x-amz-meta-twisted-registry"
#: Header of the encryption of an object.
_ENCRYPTION_HEADER: Final = "x-amz-server-side-encryption"
#: Contents up to this size are compared with their ETag: links, records, small manifests.
_MAX_COMPARED_BYTES: Final = 64 * 1024
#: Contents that arrived twice without their MD5, after which a store is known to have other ETags.
_MAX_CONFIRMED: Final = 8
_MD5: Final = re.compile(r"[0-9a-f]{32}")
#: Maximum length of the store's error message in our errors.
_MAX_MESSAGE_CHARS: Final = 300
_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


@define(eq=False)
class ContentCheck:
    """Detects small contents that were damaged on their way from the store, by their ETag.

    The ETag of an object that was stored by one request is usually the MD5 of its content, but not
    in all stores, and not if a KMS has encrypted it. So a content with another MD5 is read again,
    and one that arrives twice is what the store has. Contents are no longer compared if none of the
    first ones has its MD5.
    """

    _has_matched: bool = field(init=False, default=False)
    _confirmed: int = field(init=False, default=0)

    def is_doubtful(self, response: S3Response, content: bytes, etag: str) -> bool:
        """Return whether a content has another MD5 than its ETag says."""
        if self._confirmed >= _MAX_CONFIRMED and not self._has_matched:
            return False
        is_comparable = len(content) <= _MAX_COMPARED_BYTES and _MD5.fullmatch(etag)
        if not is_comparable or response.header(_ENCRYPTION_HEADER).startswith("aws:kms"):
            return False
        is_equal = hashlib.md5(content, usedforsecurity=False).hexdigest() == etag
        self._has_matched = self._has_matched or is_equal
        return not is_equal

    def confirm(self) -> None:
        """Record that a doubtful content has arrived twice."""
        self._confirmed += 1


def unquote_etag(text: str) -> str:
    """Return an ETag without its quotes."""
    return text.strip().strip('"')


def parse_object_info(response: S3Response, key: str, size: int) -> ObjectInfo:
    """Parse the response headers of HeadObject or GetObject."""
    return ObjectInfo(
        key,
        size,
        unquote_etag(response.header("etag")),
        _last_modified_ns(response.header("last-modified")),
        response.header(METADATA_HEADER),
    )


def parse_range_info(response: S3Response, key: str, offset: int, length: int | None) -> ObjectInfo:
    """Check that a GetObject response has the requested range, and return the object's metadata.

    :param offset: first byte that was requested.
    :param length: maximum number of bytes that was requested; None for all that follow.
    :raises InvalidResponse: if the response has no length or another range.
    """
    body_length = response.length
    if body_length is None:
        raise InvalidResponse(
            response.operation_name, "the response does not announce its length", retryable=True
        )
    if offset == 0 and length is None:
        return parse_object_info(response, key, body_length)
    header = response.header("content-range")
    match = _CONTENT_RANGE.fullmatch(header)
    if response.status != 206 or match is None:
        raise InvalidResponse(
            response.operation_name,
            f"a range was requested, but the response is none: {header!r}",
        )
    first, last, size = (int(number) for number in match.groups())
    wanted = size - offset if length is None else min(length, size - offset)
    if first != offset or last - first + 1 != wanted or body_length != wanted:
        raise InvalidResponse(
            response.operation_name,
            f"{wanted} bytes from {offset} were requested, but the response has {header!r}",
        )
    return parse_object_info(response, key, size)


def parse_object_listing(document: Element) -> ObjectListing:
    """Parse the response of ListObjectsV2."""
    decode = name_decoder(document)
    return ObjectListing(
        tuple(
            ObjectInfo(
                decode(item.text("Key")),
                int(item.text("Size")),
                unquote_etag(item.text("ETag")),
                _iso_time_ns(item.text("LastModified")),
            )
            for item in document.all("Contents")
        ),
        tuple(decode(item.text("Prefix")) for item in document.all("CommonPrefixes")),
        document.text("NextContinuationToken") if _is_truncated(document) else "",
    )


def parse_upload_listing(document: Element) -> UploadListing:
    """Parse the response of ListMultipartUploads."""
    return UploadListing(
        tuple(
            MultipartUpload(
                item.text("Key"), item.text("UploadId"), _iso_time_ns(item.text("Initiated"))
            )
            for item in document.all("Upload")
        ),
        (document.text("NextKeyMarker"), document.text("NextUploadIdMarker"))
        if _is_truncated(document)
        else None,
    )


def parse_part_listing(document: Element) -> tuple[list[Part], str]:
    """Parse a page of ListParts; the second value is the next marker, empty on the last page."""
    return [
        Part(
            int(item.text("PartNumber")),
            unquote_etag(item.text("ETag")),
            int(item.text("Size")),
            _iso_time_ns(item.text("LastModified")),
        )
        for item in document.all("Part")
    ], document.text("NextPartNumberMarker") if _is_truncated(document) else ""


def parse_upload_id(document: Element) -> str:
    """Parse the response of CreateMultipartUpload.

    :raises ValueError: if it has no upload id.
    """
    upload_id = document.text("UploadId")
    if not upload_id:
        raise ValueError("it has no upload id")
    return upload_id


def parse_etag(document: Element) -> str:
    """Return the ETag element of a document."""
    return unquote_etag(document.text("ETag"))


def parse_delete_errors(document: Element) -> list[DeleteError]:
    """Parse the response of DeleteObjects; missing keys are not errors."""
    return [
        DeleteError(item.text("Key"), item.text("Code"), item.text("Message"))
        for item in document.all("Error")
        if item.text("Code") != "NoSuchKey"
    ]


def parse_error(response: S3Response, content: bytes, region: str) -> S3Error:
    """Return the error that a response reports.

    :param content: the response body: empty after HEAD, and not XML if a proxy generated it.
    :param region: the region that the request was signed for.
    """
    document = _error_element(content)
    code = document.text("Code")
    message = " ".join(document.text("Message").split())[:_MAX_MESSAGE_CHARS]
    kind = error_class(code, response.status)
    details: dict[str, Any] = {
        "code": code,
        "status": response.status,
        "request_id": response.header("x-amz-request-id") or document.text("RequestId"),
        "retryable": is_transient(code, response.status),
    }
    if kind is not WrongRegion:
        return kind(response.operation_name, message or _phrase(response.status), **details)
    bucket_region = response.header("x-amz-bucket-region") or document.text("Region")
    endpoint = document.text("Endpoint")
    if bucket_region and bucket_region != region:
        message = f"the bucket is in the region {bucket_region}, not in {region}"
    elif endpoint:
        message = f"the bucket has another endpoint: {endpoint[:_MAX_MESSAGE_CHARS]}"
    return WrongRegion(
        response.operation_name,
        message or "the bucket is in another region",
        region=bucket_region,
        **details,
    )


def _error_element(content: bytes) -> Element:
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


def _is_truncated(document: Element) -> bool:
    return document.text("IsTruncated") == "true"


def _last_modified_ns(text: str) -> int | None:
    """Convert an HTTP date to nanoseconds since the epoch; None if it is invalid."""
    try:
        return stringToDatetime(text.encode()) * 10**9 if text else None
    except (ValueError, IndexError, KeyError):
        return None


def _iso_time_ns(text: str) -> int | None:
    """Convert a time such as ``2013-05-24T00:00:00.000Z`` to nanoseconds since the epoch."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    try:
        seconds = calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S"))
        return seconds * 10**9 + int(fraction.ljust(9, "0")[:9] or 0)
    except ValueError:
        return None
