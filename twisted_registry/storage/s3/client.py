"""The operations of the S3 API that the driver needs."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Final, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from zope.interface import implementer

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
    content_size,
)
from twisted_registry.storage.s3.responses import (
    METADATA_HEADER,
    ContentCheck,
    parse_delete_errors,
    parse_error,
    parse_etag,
    parse_object_info,
    parse_object_listing,
    parse_part_listing,
    parse_range_info,
    parse_upload_id,
    parse_upload_listing,
    unquote_etag,
)
from twisted_registry.storage.s3.sigv4 import encoded_path
from twisted_registry.storage.s3.xml import (
    Element,
    XMLError,
    complete_request_xml,
    delete_request_xml,
    parse_xml,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from twisted.python.failure import Failure

    from twisted_registry.storage.s3.address import BucketAddress
    from twisted_registry.storage.s3.interfaces import (
        Content,
        DeferredGenerator,
        DeleteError,
        ObjectListing,
    )
    from twisted_registry.storage.s3.sender import Sender
    from twisted_registry.storage.s3.transport import S3Response

_T = TypeVar("_T")

#: Maximum size of an XML response: 1000 keys of maximum length, fully percent-encoded.
_MAX_DOCUMENT_BYTES: Final = 8 * 1024 * 1024
#: Maximum number of keys in a DeleteObjects request.
_MAX_KEYS_PER_DELETE: Final = 1000
#: How long to wait at most for operations on stored objects. Many stores do not respond before the
#: end, which takes minutes on busy disks.
_SLOW_S: Final = 600.0
#: Speeds that every store should reach: of copies, and of joining parts.
_COPY_BYTES_PER_S: Final = 2 * 1024 * 1024
_JOINED_PARTS_PER_S: Final = 10
#: How often DeleteObjects is sent for keys that the store was too busy to delete.
_MAX_DELETE_ATTEMPTS: Final = 4


@implementer(IS3Client)
@define(eq=False)
class S3Client:
    """The S3 operations on one bucket.

    :ivar sender: signs, sends and retries requests.
    :ivar object_options: storage options of new objects.
    :ivar public: address of the bucket in presigned URLs; None uses that of the sender.
    """

    sender: Sender
    object_options: ObjectOptions = field(factory=ObjectOptions)
    _public: BucketAddress | None = None
    _content_check: ContentCheck = field(init=False, factory=ContentCheck)

    @property
    def bucket(self) -> str:
        """Name of the bucket."""
        return self.sender.address.bucket

    def head_bucket(self, prefix: str = "") -> Deferred[None]:
        """Check bucket, credentials, region and clock by listing one key."""
        return self.list_objects(prefix, limit=1).addCallback(lambda _: None)

    def head_object(self, key: str) -> Deferred[ObjectInfo]:
        """Fire with the metadata of an object."""

        def read(response: S3Response) -> Deferred[ObjectInfo]:
            response.close()
            size = response.header("content-length")
            if not size.isdecimal():
                raise InvalidResponse(
                    response.operation_name, f"invalid size of an object: {size!r}", retryable=True
                )
            return succeed(parse_object_info(response, key, int(size)))

        return self.sender.send(Operation("HeadObject", "HEAD", key), read)

    def get_object(
        self, key: str, offset: int = 0, length: int | None = None, etag: str = ""
    ) -> Deferred[IObjectBody]:
        """Fire with the unread body when the response head has arrived."""
        headers = {"if-match": f'"{etag}"'} if etag else {}
        if offset or length is not None:
            last = "" if length is None else offset + length - 1
            headers["range"] = f"bytes={offset}-{last}"

        def read(response: S3Response) -> Deferred[IObjectBody]:
            try:
                response.info = parse_range_info(response, key, offset, length)
            except S3Error:
                response.close()
                raise
            return succeed(response)

        return self.sender.send(Operation("GetObject", "GET", key, headers=headers), read)

    def read_object(self, key: str, limit: int) -> Deferred[tuple[ObjectInfo, bytes]]:
        """Fire with the metadata and the whole content of a small object."""
        doubtful: bytes | None = None

        @inlineCallbacks
        def read(response: S3Response) -> DeferredGenerator[tuple[ObjectInfo, bytes]]:
            if response.length is not None and response.length > limit:
                response.close()
                raise S3Error(
                    response.operation_name,
                    f"{response.length} bytes, more than the limit of {limit}",
                    code="EntityTooLarge",
                )
            nonlocal doubtful
            content: bytes = yield response.collect(limit)
            info = parse_object_info(response, key, len(content))
            if self._content_check.is_doubtful(response, content, info.etag):
                if content != doubtful:
                    doubtful = content
                    raise InvalidResponse(
                        response.operation_name,
                        "the content does not have the MD5 that its ETag says",
                        retryable=True,
                    )
                self._content_check.confirm()
            return info, content

        return self.sender.send(Operation("GetObject", "GET", key), read)

    def put_object(
        self,
        key: str,
        content: Content,
        *,
        sha256: str = "",
        if_none_match: bool = False,
        metadata: str = "",
    ) -> Deferred[str]:
        """Store an object in one request, and fire with its ETag."""
        headers = self.object_options.headers()
        if if_none_match:
            headers["if-none-match"] = "*"
        if metadata:
            headers[METADATA_HEADER] = metadata
        operation = Operation(
            "PutObject", "PUT", key, headers=headers, content=content, sha256=sha256
        )
        return self.sender.send(operation, _etag_header)

    def copy_object(self, source: str, destination: str, *, size: int = 0) -> Deferred[str]:
        """Copy an object inside the store, and fire with the ETag of the copy."""
        operation = Operation(
            "CopyObject",
            "PUT",
            destination,
            headers={**self.object_options.headers(), **self._copy_source_header(source)},
            slow_s=max(_SLOW_S, size / _COPY_BYTES_PER_S),
        )
        return self._request_document(operation, "CopyObjectResult", parse_etag)

    def delete_object(self, key: str) -> Deferred[None]:
        """Delete an object; a missing object is not an error."""
        return self._request_delete(Operation("DeleteObject", "DELETE", key))

    @inlineCallbacks
    def delete_objects(self, keys: Sequence[str]) -> DeferredGenerator[Sequence[DeleteError]]:
        """Delete many objects, and fire with those that could not be deleted."""
        errors: list[DeleteError] = []
        first_error: S3Error | None = None
        for start in range(0, len(keys), _MAX_KEYS_PER_DELETE):
            try:
                errors += yield self._delete_batch(keys[start : start + _MAX_KEYS_PER_DELETE])
            except S3Error as error:
                first_error = first_error or error
        if first_error is not None:
            raise first_error
        return errors

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
        operation = Operation("ListObjectsV2", "GET", parameters=_non_empty(parameters))
        return self._request_document(operation, "ListBucketResult", parse_object_listing)

    def create_multipart_upload(self, key: str) -> Deferred[str]:
        """Start a multipart upload, and fire with its id."""
        operation = Operation(
            "CreateMultipartUpload",
            "POST",
            key,
            (("uploads", ""),),
            headers=self.object_options.headers(),
        )
        return self._request_document(operation, "InitiateMultipartUploadResult", parse_upload_id)

    def upload_part(
        self, key: str, upload_id: str, number: int, content: Content
    ) -> Deferred[Part]:
        """Store a part."""
        operation = Operation(
            "UploadPart",
            "PUT",
            key,
            (("partNumber", str(number)), ("uploadId", upload_id)),
            content=content,
        )
        size = content_size(content)
        return (
            self.sender.send(operation, _etag_header)
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
        size: int = 0,
    ) -> Deferred[str]:
        """Copy an object, or a range of it, to a part; fire with the ETag of the part."""
        headers = self._copy_source_header(source)
        if byte_range is not None:
            offset, length = byte_range
            headers["x-amz-copy-source-range"] = f"bytes={offset}-{offset + length - 1}"
        operation = Operation(
            "UploadPartCopy",
            "PUT",
            key,
            (("partNumber", str(number)), ("uploadId", upload_id)),
            headers=headers,
            slow_s=max(_SLOW_S, size / _COPY_BYTES_PER_S),
        )
        return self._request_document(operation, "CopyPartResult", parse_etag)

    @inlineCallbacks
    def complete_multipart_upload(
        self, key: str, upload_id: str, parts: Sequence[Part]
    ) -> DeferredGenerator[str]:
        """Create the object from its parts, atomically, and fire with its ETag."""
        operation = Operation(
            "CompleteMultipartUpload",
            "POST",
            key,
            (("uploadId", upload_id),),
            headers={"content-type": "application/xml"},
            content=complete_request_xml([(part.number, part.etag) for part in parts]),
            slow_s=max(_SLOW_S, len(parts) / _JOINED_PARTS_PER_S),
        )
        etag: str
        try:
            etag = yield self._request_document(
                operation, "CompleteMultipartUploadResult", parse_etag
            ).addErrback(_as_no_such_upload)
        except S3Error as error:
            missing: NoSuchUpload | None = yield self._find_no_such_upload(key, upload_id, error)
            if missing is None:
                raise
            # An earlier attempt that got no response may have completed the upload.
            completed: ObjectInfo | None = None
            if error.may_have_applied:
                completed = yield self._find_completed(key, parts)
            if completed is None:
                raise missing from error
            etag = completed.etag
        if not etag:
            # Ceph omits the ETag if an earlier attempt had completed the upload.
            etag = (yield self.head_object(key)).etag
        return etag

    def abort_multipart_upload(self, key: str, upload_id: str) -> Deferred[None]:
        """Abort an upload and delete its parts; a missing upload is not an error."""
        operation = Operation("AbortMultipartUpload", "DELETE", key, (("uploadId", upload_id),))
        return self._request_delete(operation)

    def list_multipart_uploads(
        self, prefix: str, *, marker: tuple[str, str] | None = None, limit: int = 1000
    ) -> Deferred[UploadListing]:
        """Fire with a page of the unfinished uploads to keys that begin with ``prefix``."""
        key_marker, id_marker = marker or ("", "")
        # No encoding-type: Ceph would encode the keys without reporting it in the response.
        parameters = {
            "prefix": prefix,
            "key-marker": key_marker,
            "upload-id-marker": id_marker,
            "max-uploads": str(limit),
        }
        operation = Operation(
            "ListMultipartUploads", "GET", parameters=(("uploads", ""), *_non_empty(parameters))
        )
        return self._request_document(operation, "ListMultipartUploadsResult", parse_upload_listing)

    @inlineCallbacks
    def list_parts(self, key: str, upload_id: str) -> DeferredGenerator[Sequence[Part]]:
        """Fire with all parts of an upload, sorted by number."""
        parts: list[Part] = []
        marker = ""
        while True:
            parameters = {"uploadId": upload_id, "part-number-marker": marker}
            operation = Operation("ListParts", "GET", key, _non_empty(parameters))
            page, next_marker = yield self._request_document(
                operation, "ListPartsResult", parse_part_listing
            ).addErrback(_as_no_such_upload)
            parts += page
            if not next_marker:
                return parts
            if next_marker == marker:
                raise InvalidResponse(
                    f"ListParts {self.bucket}/{key}", "the store repeats a page of the listing"
                )
            marker = next_marker

    def presign(self, key: str, method: str, expires: int) -> Deferred[str]:
        """Fire with a presigned URL that permits ``method``."""
        return self.sender.presign(self._public or self.sender.address, method, key, expires)

    def close(self) -> Deferred[None]:
        """Close idle connections."""
        return self.sender.close()

    def _copy_source_header(self, source: str) -> dict[str, str]:
        """Return the header that names the source of a copy."""
        return {"x-amz-copy-source": encoded_path(f"{self.bucket}/{source}")}

    def _request_document(
        self, operation: Operation, root: str, parse: Callable[[Element], _T]
    ) -> Deferred[_T]:
        """Send an operation, and fire with the parsed XML document of the response.

        :param root: expected name of the root element.
        :param parse: converts the root element; may raise ValueError.
        """

        @inlineCallbacks
        def read(response: S3Response) -> DeferredGenerator[_T]:
            content: bytes = yield response.collect(_MAX_DOCUMENT_BYTES)
            try:
                document = parse_xml(content)
                if document.name == root:
                    return parse(document)
            except (XMLError, ValueError) as error:
                raise InvalidResponse(
                    response.operation_name, f"malformed response: {error}", retryable=True
                ) from error
            if document.name == "Error":
                # Slow operations send their status before they end.
                raise parse_error(response, content, self.sender.address.region)
            raise InvalidResponse(
                response.operation_name, f"the response is a {document.name}, not a {root}"
            )

        return self.sender.send(operation, read)

    def _request_delete(self, operation: Operation) -> Deferred[None]:
        """Send a deletion; NotFound is not an error."""
        deleting = self.sender.send(operation, _discard_body)
        return deleting.addErrback(lambda failure: failure.trap(NotFound) and None)

    @inlineCallbacks
    def _delete_batch(self, keys: Sequence[str]) -> DeferredGenerator[list[DeleteError]]:
        """Delete the keys of one request; keys with a transient error are retried."""
        errors: list[DeleteError] = []
        attempt = 0
        while keys:
            attempt += 1
            failed: list[DeleteError] = yield self._delete_once(keys)
            if attempt == _MAX_DELETE_ATTEMPTS:
                return errors + failed
            keys = [error.key for error in failed if is_transient(error.code, 0)]
            errors += [error for error in failed if not is_transient(error.code, 0)]
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
        return self._request_document(operation, "DeleteResult", parse_delete_errors)

    @inlineCallbacks
    def _find_no_such_upload(
        self, key: str, upload_id: str, error: S3Error
    ) -> DeferredGenerator[NoSuchUpload | None]:
        """Fire with NoSuchUpload if a completion failed because the upload does not exist.

        For a missing upload, Ceph reports an InternalError (completion in progress).
        """
        if isinstance(error, NoSuchUpload):
            return error
        if error.code == "InternalError":
            try:
                yield self.list_parts(key, upload_id)
            except NoSuchUpload as missing:
                return missing
        return None

    @inlineCallbacks
    def _find_completed(
        self, key: str, parts: Sequence[Part]
    ) -> DeferredGenerator[ObjectInfo | None]:
        """Fire with the object of a key if it has the number and total size of the parts."""
        try:
            found: ObjectInfo = yield self.head_object(key)
        except NotFound:
            return None
        same_size = found.size == sum(part.size for part in parts)
        return found if same_size and found.etag.endswith(f"-{len(parts)}") else None


def _non_empty(parameters: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in parameters.items() if value)


def _discard_body(response: S3Response) -> Deferred[None]:
    return response.collect(_MAX_DOCUMENT_BYTES).addCallback(lambda _: None)


def _etag_header(response: S3Response) -> Deferred[str]:
    """Read a response to its end, and fire with the ETag header."""
    return response.collect(_MAX_DOCUMENT_BYTES).addCallback(
        lambda _: unquote_etag(response.header("etag"))
    )


def _as_no_such_upload(failure: Failure) -> Failure:
    """Errback that raises NoSuchUpload for NotFound: stores report a missing upload differently."""
    error = failure.value
    if isinstance(error, NotFound) and not isinstance(error, NoSuchUpload):
        raise NoSuchUpload(
            error.operation, error.message, code=error.code, status=error.status,
            request_id=error.request_id, may_have_applied=error.may_have_applied,
        )  # fmt: skip
    return failure
