"""The operations of the S3 API that a registry needs."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any, Final, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from zope.interface import implementer

from twisted_registry.storage.s3 import reading
from twisted_registry.storage.s3.documents import (
    DocumentError,
    Element,
    completion,
    deletion,
    parse,
)
from twisted_registry.storage.s3.errors import (
    Corrupt,
    NoSuchUpload,
    NotFound,
    S3Error,
    passes,
)
from twisted_registry.storage.s3.faults import fault_of
from twisted_registry.storage.s3.interfaces import IObjectBody, IS3Client
from twisted_registry.storage.s3.objects import (
    DeleteFault,
    ObjectInfo,
    ObjectListing,
    Part,
    UploadListing,
)
from twisted_registry.storage.s3.operation import Operation
from twisted_registry.storage.s3.requestbody import size_of
from twisted_registry.storage.s3.sigv4 import encoded_path
from twisted_registry.storage.s3.storing import Storing

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from twisted_registry.storage.s3.address import Address
    from twisted_registry.storage.s3.answer import Answer
    from twisted_registry.storage.s3.interfaces import Content
    from twisted_registry.storage.s3.sender import Sender

_T = TypeVar("_T")

#: Bytes of an answer in XML: a thousand of the longest keys, each byte of them encoded.
LONGEST_DOCUMENT: Final = 8 * 1024 * 1024
#: Objects that a store deletes in one request.
BATCH: Final = 1000
#: How often what the store was too busy to delete is tried.
DELETE_ATTEMPTS: Final = 4


@implementer(IS3Client)
@define(eq=False)
class S3Client:
    """The operations on one bucket, as :class:`IS3Client` promises them.

    :ivar sender: signs and sends.
    :ivar storing: how objects are to be kept.
    :ivar public: the bucket, as those who get presigned URLs are to find it; None as we do.
    """

    _sender: Sender
    _storing: Storing = field(factory=Storing)
    _public: Address | None = None

    @property
    def bucket(self) -> str:
        """Its name."""
        return self._sender.address.bucket

    def head_bucket(self, prefix: str = "") -> Deferred[None]:
        """Ask whether bucket, credentials, region and clock are right."""
        return self.list_objects(prefix, limit=1).addCallback(lambda _: None)

    def head_object(self, key: str) -> Deferred[ObjectInfo]:
        """Fire with size and time of an object."""

        def read(answer: Answer) -> Deferred[ObjectInfo]:
            answer.close()
            size = answer.header("content-length")
            if not size.isdecimal():
                raise Corrupt(answer.what, f"the size of the object is {size!r}", retry=True)
            return succeed(reading.info_of(answer, key, int(size)))

        return self._sender.send(Operation("HeadObject", "HEAD", key), read)

    def get_object(
        self, key: str, offset: int = 0, length: int | None = None, etag: str = ""
    ) -> Deferred[IObjectBody]:
        """Fire when the head of the answer is there."""
        headers = {"if-match": f'"{etag}"'} if etag else {}
        if offset or length is not None:
            last = "" if length is None else offset + length - 1
            headers["range"] = f"bytes={offset}-{last}"

        def read(answer: Answer) -> Deferred[IObjectBody]:
            try:
                return succeed(reading.body_of(answer, key, offset, length))
            except S3Error:
                answer.close()
                raise

        return self._sender.send(Operation("GetObject", "GET", key, headers=headers), read)

    def read_object(self, key: str, limit: int) -> Deferred[tuple[ObjectInfo, bytes]]:
        """Fire with the whole of a small object, and what the store tells of it."""

        @inlineCallbacks
        def read(answer: Answer) -> Generator[Any, Any, tuple[ObjectInfo, bytes]]:
            if answer.length is not None and answer.length > limit:
                answer.close()
                raise S3Error(
                    answer.what,
                    f"{answer.length} bytes where at most {limit} were expected",
                    code="EntityTooLarge",
                )
            content = yield answer.collect(limit)
            return reading.info_of(answer, key, len(content)), content

        return self._sender.send(Operation("GetObject", "GET", key), read)

    def put_object(
        self, key: str, content: Content, *, sha256: str = "", absent: bool = False, note: str = ""
    ) -> Deferred[str]:
        """Store an object in one step, and fire with its ETag."""
        headers = self._storing.headers()
        if absent:
            headers["if-none-match"] = "*"
        if note:
            headers[reading.NOTE] = note
        operation = Operation(
            "PutObject", "PUT", key, headers=headers, content=content, sha256=sha256
        )
        return self._sender.send(operation, _etag)

    def delete_object(self, key: str) -> Deferred[None]:
        """Delete an object; one that is not there is no error."""
        return self._remove(Operation("DeleteObject", "DELETE", key))

    @inlineCallbacks
    def delete_objects(self, keys: Sequence[str]) -> Generator[Any, Any, Sequence[DeleteFault]]:
        """Delete many objects, and fire with those that could not be."""
        faults: list[DeleteFault] = []
        failed: S3Error | None = None
        for start in range(0, len(keys), BATCH):
            try:
                faults += yield self._delete_batch(keys[start : start + BATCH])
            except S3Error as error:
                failed = failed or error
        if failed is not None:
            raise failed
        return faults

    def copy_object(self, source: str, destination: str, *, etag: str = "") -> Deferred[str]:
        """Copy an object inside the store, and fire with the copy's ETag."""
        operation = Operation(
            "CopyObject",
            "PUT",
            destination,
            headers={**self._storing.headers(), **self._source(source, etag)},
            slow=True,
        )
        return self._ask(operation, "CopyObjectResult", _etag_inside)

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
        operation = Operation("ListObjectsV2", "GET", parameters=_given(parameters))
        return self._ask(operation, "ListBucketResult", reading.objects_of)

    def create_multipart_upload(self, key: str) -> Deferred[str]:
        """Begin an upload, and fire with its id."""
        operation = Operation(
            "CreateMultipartUpload",
            "POST",
            key,
            (("uploads", ""),),
            headers=self._storing.headers(),
        )
        return self._ask(operation, "InitiateMultipartUploadResult", _upload_id)

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
        size = size_of(content)
        return (
            self._sender.send(operation, _etag)
            .addCallback(lambda etag: Part(number, etag, size))
            .addErrback(_no_upload)
        )

    def upload_part_copy(
        self,
        key: str,
        upload_id: str,
        number: int,
        source: str,
        stretch: tuple[int, int] | None = None,
        *,
        etag: str = "",
    ) -> Deferred[str]:
        """Make a part of an object, or of a stretch of it; fire with its ETag."""
        headers = self._source(source, etag)
        if stretch is not None:
            offset, length = stretch
            headers["x-amz-copy-source-range"] = f"bytes={offset}-{offset + length - 1}"
        operation = Operation(
            "UploadPartCopy",
            "PUT",
            key,
            (("partNumber", str(number)), ("uploadId", upload_id)),
            headers=headers,
            slow=True,
        )
        return self._ask(operation, "CopyPartResult", _etag_inside)

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
            content=completion([(part.number, part.etag) for part in parts]),
            slow=True,
        )
        try:
            etag: str = yield self._ask(
                operation, "CompleteMultipartUploadResult", _etag_inside
            ).addErrback(_no_upload)
        except S3Error as error:
            ended: NoSuchUpload | None = yield self._ended(key, upload_id, error)
            if ended is None:
                raise
            # The attempt that got no answer may have been the one that ended the upload.
            made: ObjectInfo | None = None
            if error.repeated:
                made = yield self._made_of(key, parts)
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
        return self._remove(operation)

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
            "ListMultipartUploads", "GET", parameters=(("uploads", ""), *_given(parameters))
        )
        return self._ask(operation, "ListMultipartUploadsResult", reading.uploads_of)

    @inlineCallbacks
    def list_parts(self, key: str, upload_id: str) -> Generator[Any, Any, Sequence[Part]]:
        """Fire with all parts, by number."""
        parts: list[Part] = []
        marker = ""
        while True:
            parameters = {"uploadId": upload_id, "part-number-marker": marker}
            operation = Operation("ListParts", "GET", key, _given(parameters))
            page, following = yield self._ask(
                operation, "ListPartsResult", reading.parts_of
            ).addErrback(_no_upload)
            parts += page
            if not following:
                return parts
            if following == marker:
                raise Corrupt(f"ListParts {self.bucket}/{key}", "the listing does not go on")
            marker = following

    def presign(self, key: str, method: str, expires: int) -> Deferred[str]:
        """Fire with a URL that lets its bearer do ``method``."""
        return self._sender.presign(self._public or self._sender.address, method, key, expires)

    def close(self) -> Deferred[None]:
        """Close idle connections."""
        return self._sender.close()

    def _source(self, key: str, etag: str) -> dict[str, str]:
        headers = {"x-amz-copy-source": encoded_path(f"{self.bucket}/{key}")}
        if etag:
            headers["x-amz-copy-source-if-match"] = f'"{etag}"'
        return headers

    def _ask(self, operation: Operation, root: str, read: Callable[[Element], _T]) -> Deferred[_T]:
        """Send what is answered by a document, and fire with what ``read`` makes of that."""

        @inlineCallbacks
        def finish(answer: Answer) -> Generator[Any, Any, _T]:
            content = yield answer.collect(LONGEST_DOCUMENT)
            try:
                document = parse(content)
                if document.name == root:
                    return read(document)
            except (DocumentError, ValueError) as error:
                raise Corrupt(
                    answer.what, f"the answer can not be read: {error}", retry=True
                ) from error
            if document.name == "Error":
                # Of operations that take their time the status is sent before their end.
                raise fault_of(answer, content, self._sender.address.region)
            raise Corrupt(answer.what, f"the answer is a {document.name}, and no {root}")

        return self._sender.send(operation, finish)

    def _remove(self, operation: Operation) -> Deferred[None]:
        removing = self._sender.send(operation, _nothing)
        return removing.addErrback(lambda failure: failure.trap(NotFound) and None)

    @inlineCallbacks
    def _delete_batch(self, keys: Sequence[str]) -> Generator[Any, Any, list[DeleteFault]]:
        faults: list[DeleteFault] = []
        attempt = 0
        while keys:
            attempt += 1
            found: list[DeleteFault] = yield self._delete_once(keys)
            again = attempt < DELETE_ATTEMPTS
            keys = [fault.key for fault in found if again and passes(fault.code, 0)]
            faults += [fault for fault in found if not (again and passes(fault.code, 0))]
            if keys:
                yield self._sender.pause(attempt)
        return faults

    def _delete_once(self, keys: Sequence[str]) -> Deferred[list[DeleteFault]]:
        content = deletion(keys)
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
        return self._ask(operation, "DeleteResult", reading.delete_faults_of)

    @inlineCallbacks
    def _ended(
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
    def _made_of(self, key: str, parts: Sequence[Part]) -> Generator[Any, Any, ObjectInfo | None]:
        """What lies under a key, if it was made of as many parts with as many bytes."""
        try:
            found: ObjectInfo = yield self.head_object(key)
        except NotFound:
            return None
        is_it = found.size == sum(part.size for part in parts) and found.etag.endswith(
            f"-{len(parts)}"
        )
        return found if is_it else None


def _given(parameters: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in parameters.items() if value)


def _nothing(answer: Answer) -> Deferred[None]:
    return answer.collect(LONGEST_DOCUMENT).addCallback(lambda _: None)


def _etag(answer: Answer) -> Deferred[str]:
    return answer.collect(LONGEST_DOCUMENT).addCallback(
        lambda _: reading.etag_of(answer.header("etag"))
    )


def _etag_inside(document: Element) -> str:
    return reading.etag_of(document.text("ETag"))


def _upload_id(document: Element) -> str:
    upload_id = document.text("UploadId")
    if not upload_id:
        raise ValueError("it names no upload")
    return upload_id


def _no_upload(failure: Any) -> Any:
    """Stores name what is missing of an upload that is over in several ways."""
    error = failure.value
    if isinstance(error, NotFound) and not isinstance(error, NoSuchUpload):
        raise NoSuchUpload(
            error.operation, error.message, code=error.code, status=error.status,
            request_id=error.request_id, repeated=error.repeated,
        )  # fmt: skip
    return failure
