"""The operations of the S3 API that a registry needs.

How a question is put to the store, and its answer read: what all operations share.

Deletes, one by one and a thousand at a time.

Multipart uploads: objects that come in parts, and are there at once.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any, Final, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from zope.interface import implementer

from twisted_registry.storage.s3 import responses
from twisted_registry.storage.s3.errors import (
    InvalidResponse,
    NoSuchUpload,
    NotFound,
    S3Error,
    is_transient,
)
from twisted_registry.storage.s3.interfaces import (
    IObjectBody,
    IS3Client,
    ObjectInfo,
    ObjectOptions,
    Operation,
    Part,
    UploadListing,
)
from twisted_registry.storage.s3.responses import error_from_response
from twisted_registry.storage.s3.sigv4 import encoded_path
from twisted_registry.storage.s3.transport import content_size
from twisted_registry.storage.s3.xml import (
    Element,
    XMLError,
    complete_request_xml,
    delete_request_xml,
    parse_xml,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from twisted_registry.storage.s3.address import BucketAddress
    from twisted_registry.storage.s3.interfaces import Content, DeleteError, ObjectListing
    from twisted_registry.storage.s3.sender import Sender
    from twisted_registry.storage.s3.transport import S3Response

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
                raise InvalidResponse(
                    response.what, f"the size of the object is {size!r}", retryable=True
                )
            return succeed(responses.parse_object_info(response, key, int(size)))

        return self.sender.send(Operation("HeadObject", "HEAD", key), read)

    def source(self, key: str, etag: str) -> dict[str, str]:
        """The headers that name what is to be copied.

        :param etag: what it must have; empty takes any.
        """
        headers = {"x-amz-copy-source": encoded_path(f"{self.bucket}/{key}")}
        if etag:
            headers["x-amz-copy-source-if-match"] = f'"{etag}"'
        return headers

    def request_document(
        self, operation: Operation, root: str, read: Callable[[Element], _T]
    ) -> Deferred[_T]:
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
        lambda _: responses.etag_of(response.header("etag"))
    )


def etag_element(document: Element) -> str:
    """The ETag that a document tells."""
    return responses.etag_of(document.text("ETag"))


#: Objects that a store deletes in one request.
MAX_KEYS_PER_DELETE: Final = 1000
#: How often what the store was too busy to delete is tried.
MAX_DELETE_ATTEMPTS: Final = 4


@define(eq=False)
class Deletes(ClientBase):
    """Those in one bucket."""

    def delete_object(self, key: str) -> Deferred[None]:
        """Delete an object; one that is not there is no error."""
        return self.request_delete(Operation("DeleteObject", "DELETE", key))

    @inlineCallbacks
    def delete_objects(self, keys: Sequence[str]) -> Generator[Any, Any, Sequence[DeleteError]]:
        """Delete many objects, and fire with those that could not be."""
        errors: list[DeleteError] = []
        failed: S3Error | None = None
        for start in range(0, len(keys), MAX_KEYS_PER_DELETE):
            try:
                errors += yield self._delete_batch(keys[start : start + MAX_KEYS_PER_DELETE])
            except S3Error as error:
                failed = failed or error
        if failed is not None:
            raise failed
        return errors

    @inlineCallbacks
    def _delete_batch(self, keys: Sequence[str]) -> Generator[Any, Any, list[DeleteError]]:
        errors: list[DeleteError] = []
        attempt = 0
        while keys:
            attempt += 1
            found: list[DeleteError] = yield self._delete_once(keys)
            again = attempt < MAX_DELETE_ATTEMPTS
            keys = [error.key for error in found if again and is_transient(error.code, 0)]
            errors += [error for error in found if not (again and is_transient(error.code, 0))]
            if keys:
                yield self.sender.wait_before_retry(attempt)
        return errors

    def _delete_once(self, keys: Sequence[str]) -> Deferred[list[DeleteError]]:
        content = delete_request_xml(keys)
        digest = hashlib.md5(content, usedforsecurity=False).digest()
        operation = Operation(
            "DeleteObjects",
            "POST",
            parameters=(("delete", ""),),
            headers={
                "content-md5": base64.b64encode(digest).decode(),
                "content-type": "application/xml",
            },
            content=content,
        )
        return self.request_document(operation, "DeleteResult", responses.parse_delete_errors)


@define(eq=False)
class MultipartUploads(ClientBase):
    """Those of one bucket."""

    def create_multipart_upload(self, key: str) -> Deferred[str]:
        """Begin an upload, and fire with its id."""
        operation = Operation(
            "CreateMultipartUpload",
            "POST",
            key,
            (("uploads", ""),),
            headers=self.storing.headers(),
        )
        return self.request_document(operation, "InitiateMultipartUploadResult", _upload_id)

    def upload_part(
        self, key: str, upload_id: str, number: int, content: Content, *, sha256: str = ""
    ) -> Deferred[Part]:
        """Store a part."""
        operation = Operation(
            "UploadPart",
            "PUT",
            key,
            (("partNumber", str(number)), ("uploadId", upload_id)),
            content=content,
            sha256=sha256,
        )
        size = content_size(content)
        return (
            self.sender.send(operation, etag_of)
            .addCallback(lambda etag: Part(number, etag, size))
            .addErrback(_as_no_such_upload)
        )

    def upload_part_copy(
        self,
        key: str,
        upload_id: str,
        number: int,
        source: str,
        byte_range: tuple[int, int] | None = None,
        *,
        etag: str = "",
    ) -> Deferred[str]:
        """Make a part of an object, or of a stretch of it; fire with its ETag."""
        headers = self.source(source, etag)
        if byte_range is not None:
            offset, length = byte_range
            headers["x-amz-copy-source-range"] = f"bytes={offset}-{offset + length - 1}"
        operation = Operation(
            "UploadPartCopy",
            "PUT",
            key,
            (("partNumber", str(number)), ("uploadId", upload_id)),
            headers=headers,
            slow=True,
        )
        return self.request_document(operation, "CopyPartResult", etag_element)

    @inlineCallbacks
    def complete_multipart_upload(
        self, key: str, upload_id: str, parts: Sequence[Part]
    ) -> Generator[Any, Any, str]:
        """Make an object of parts, in one step, and fire with its ETag."""
        operation = Operation(
            "CompleteMultipartUpload",
            "POST",
            key,
            (("uploadId", upload_id),),
            headers={"content-type": "application/xml"},
            content=complete_request_xml([(part.number, part.etag) for part in parts]),
            slow=True,
        )
        try:
            etag: str = yield self.request_document(
                operation, "CompleteMultipartUploadResult", etag_element
            ).addErrback(_as_no_such_upload)
        except S3Error as error:
            ended: NoSuchUpload | None = yield self._why_ended(key, upload_id, error)
            if ended is None:
                raise
            # The attempt that got no answer may have been the one that ended the upload.
            made: ObjectInfo | None = None
            if error.repeated:
                made = yield self._find_completed(key, parts)
            if made is None:
                raise ended from error
            etag = made.etag
        if not etag:
            # Ceph answers so where an earlier attempt had been carried out.
            etag = (yield self.head_object(key)).etag
        return etag

    def abort_multipart_upload(self, key: str, upload_id: str) -> Deferred[None]:
        """Forget an upload and its parts; one that is over is no error."""
        operation = Operation("AbortMultipartUpload", "DELETE", key, (("uploadId", upload_id),))
        return self.request_delete(operation)

    def list_multipart_uploads(
        self, prefix: str, *, marker: tuple[str, str] | None = None, limit: int = 1000
    ) -> Deferred[UploadListing]:
        """Fire with a page of the unfinished uploads of keys that begin with ``prefix``."""
        key_marker, id_marker = marker or ("", "")
        # Not encoded: Ceph would encode the keys here, and not say so.
        parameters = {
            "prefix": prefix,
            "key-marker": key_marker,
            "upload-id-marker": id_marker,
            "max-uploads": str(limit),
        }
        operation = Operation(
            "ListMultipartUploads", "GET", parameters=(("uploads", ""), *non_empty(parameters))
        )
        return self.request_document(
            operation, "ListMultipartUploadsResult", responses.parse_upload_listing
        )

    @inlineCallbacks
    def list_parts(self, key: str, upload_id: str) -> Generator[Any, Any, Sequence[Part]]:
        """Fire with all parts, by number."""
        parts: list[Part] = []
        marker = ""
        while True:
            parameters = {"uploadId": upload_id, "part-number-marker": marker}
            operation = Operation("ListParts", "GET", key, non_empty(parameters))
            page, following = yield self.request_document(
                operation, "ListPartsResult", responses.parse_part_listing
            ).addErrback(_as_no_such_upload)
            parts += page
            if not following:
                return parts
            if following == marker:
                raise InvalidResponse(
                    f"ListParts {self.bucket}/{key}", "the listing does not go on"
                )
            marker = following

    @inlineCallbacks
    def _why_ended(
        self, key: str, upload_id: str, error: S3Error
    ) -> Generator[Any, Any, NoSuchUpload | None]:
        """The error that says that an upload is over, if that is why it was not completed.

        Ceph calls one that is over a completion that is in progress, an InternalError.
        """
        if isinstance(error, NoSuchUpload):
            return error
        if error.code == "InternalError":
            try:
                yield self.list_parts(key, upload_id)
            except NoSuchUpload as found:
                return found
        return None

    @inlineCallbacks
    def _find_completed(
        self, key: str, parts: Sequence[Part]
    ) -> Generator[Any, Any, ObjectInfo | None]:
        """What lies under a key, if it was made of as many parts with as many bytes."""
        try:
            found: ObjectInfo = yield self.head_object(key)
        except NotFound:
            return None
        is_it = found.size == sum(part.size for part in parts) and found.etag.endswith(
            f"-{len(parts)}"
        )
        return found if is_it else None


def _upload_id(document: Element) -> str:
    upload_id = document.text("UploadId")
    if not upload_id:
        raise ValueError("it names no upload")
    return upload_id


def _as_no_such_upload(failure: Any) -> Any:
    """Stores name what is missing of an upload that is over in several ways."""
    error = failure.value
    if isinstance(error, NotFound) and not isinstance(error, NoSuchUpload):
        raise NoSuchUpload(
            error.operation, error.message, code=error.code, status=error.status,
            request_id=error.request_id, repeated=error.repeated,
        )  # fmt: skip
    return failure


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
                return succeed(responses.open_object_body(response, key, offset, length))
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
            return responses.parse_object_info(response, key, len(content)), content

        return self.sender.send(Operation("GetObject", "GET", key), read)

    def put_object(
        self,
        key: str,
        content: Content,
        *,
        sha256: str = "",
        absent: bool = False,
        metadata: str = "",
    ) -> Deferred[str]:
        """Store an object in one step, and fire with its ETag."""
        headers = self.storing.headers()
        if absent:
            headers["if-none-match"] = "*"
        if metadata:
            headers[responses.METADATA_HEADER] = metadata
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
        return self.request_document(operation, "ListBucketResult", responses.parse_object_listing)

    def presign(self, key: str, method: str, expires: int) -> Deferred[str]:
        """Fire with a URL that lets its bearer do ``method``."""
        return self.sender.presign(self._public or self.sender.address, method, key, expires)

    def close(self) -> Deferred[None]:
        """Close idle connections."""
        return self.sender.close()
