"""The operations of the S3 API that a registry needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import define
from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from zope.interface import implementer

from twisted_registry.storage.s3 import reading
from twisted_registry.storage.s3.asking import etag_element, etag_of, non_empty
from twisted_registry.storage.s3.deletes import Deletes
from twisted_registry.storage.s3.errors import S3Error
from twisted_registry.storage.s3.interfaces import IObjectBody, IS3Client
from twisted_registry.storage.s3.multipart import MultipartUploads
from twisted_registry.storage.s3.operation import Operation

if TYPE_CHECKING:
    from collections.abc import Generator

    from twisted_registry.storage.s3.address import BucketAddress
    from twisted_registry.storage.s3.answer import S3Response
    from twisted_registry.storage.s3.interfaces import Content
    from twisted_registry.storage.s3.objects import ObjectInfo, ObjectListing


@implementer(IS3Client)
@define(eq=False)
class S3Client(MultipartUploads, Deletes):
    """The operations on one bucket, as :class:`IS3Client` promises them.

    :ivar public: the bucket, as those who get presigned URLs are to find it; None as we do.
    """

    _public: BucketAddress | None = None

    def head_bucket(self, prefix: str = "") -> Deferred[None]:
        """Ask whether bucket, credentials, region and clock are right."""
        return self.list_objects(prefix, limit=1).addCallback(lambda _: None)

    def get_object(
        self, key: str, offset: int = 0, length: int | None = None, etag: str = ""
    ) -> Deferred[IObjectBody]:
        """Fire when the head of the answer is there."""
        headers = {"if-match": f'"{etag}"'} if etag else {}
        if offset or length is not None:
            last = "" if length is None else offset + length - 1
            headers["range"] = f"bytes={offset}-{last}"

        def read(response: S3Response) -> Deferred[IObjectBody]:
            try:
                return succeed(reading.open_object_body(response, key, offset, length))
            except S3Error:
                response.close()
                raise

        return self.sender.send(Operation("GetObject", "GET", key, headers=headers), read)

    def read_object(self, key: str, limit: int) -> Deferred[tuple[ObjectInfo, bytes]]:
        """Fire with the whole of a small object, and what the store tells of it."""

        @inlineCallbacks
        def read(response: S3Response) -> Generator[Any, Any, tuple[ObjectInfo, bytes]]:
            if response.length is not None and response.length > limit:
                response.close()
                raise S3Error(
                    response.what,
                    f"{response.length} bytes where at most {limit} were expected",
                    code="EntityTooLarge",
                )
            content = yield response.collect(limit)
            return reading.parse_object_info(response, key, len(content)), content

        return self.sender.send(Operation("GetObject", "GET", key), read)

    def put_object(
        self, key: str, content: Content, *, sha256: str = "", absent: bool = False, metadata: str = ""
    ) -> Deferred[str]:
        """Store an object in one step, and fire with its ETag."""
        headers = self.storing.headers()
        if absent:
            headers["if-none-match"] = "*"
        if metadata:
            headers[reading.METADATA_HEADER] = metadata
        operation = Operation(
            "PutObject", "PUT", key, headers=headers, content=content, sha256=sha256
        )
        return self.sender.send(operation, etag_of)

    def copy_object(self, source: str, destination: str, *, etag: str = "") -> Deferred[str]:
        """Copy an object inside the store, and fire with the copy's ETag."""
        operation = Operation(
            "CopyObject",
            "PUT",
            destination,
            headers={**self.storing.headers(), **self.source(source, etag)},
            slow=True,
        )
        return self.request_document(operation, "CopyObjectResult", etag_element)

    def list_objects(
        self,
        prefix: str,
        *,
        delimiter: str = "",
        after: str = "",
        token: str = "",
        limit: int = 1000,
    ) -> Deferred[ObjectListing]:
        """Fire with a page of the keys that begin with ``prefix``."""
        parameters = {
            "list-type": "2",
            "encoding-type": "url",
            "prefix": prefix,
            "delimiter": delimiter,
            "start-after": "" if token else after,
            "continuation-token": token,
            "max-keys": str(limit),
        }
        operation = Operation("ListObjectsV2", "GET", parameters=non_empty(parameters))
        return self.request_document(operation, "ListBucketResult", reading.parse_object_listing)

    def presign(self, key: str, method: str, expires: int) -> Deferred[str]:
        """Fire with a URL that lets its bearer do ``method``."""
        return self.sender.presign(self._public or self.sender.address, method, key, expires)

    def close(self) -> Deferred[None]:
        """Close idle connections."""
        return self.sender.close()
