"""Multipart uploads: objects that come in parts, and are there at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import define
from twisted.internet.defer import Deferred, inlineCallbacks

from twisted_registry.storage.s3 import reading
from twisted_registry.storage.s3.asking import ClientBase, etag_element, etag_of, non_empty
from twisted_registry.storage.s3.documents import Element, complete_request_xml
from twisted_registry.storage.s3.errors import InvalidResponse, NoSuchUpload, NotFound, S3Error
from twisted_registry.storage.s3.objects import ObjectInfo, Part, UploadListing
from twisted_registry.storage.s3.operation import Operation
from twisted_registry.storage.s3.requestbody import content_size

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from twisted_registry.storage.s3.interfaces import Content


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
        return self.request_document(operation, "ListMultipartUploadsResult", reading.parse_upload_listing)

    @inlineCallbacks
    def list_parts(self, key: str, upload_id: str) -> Generator[Any, Any, Sequence[Part]]:
        """Fire with all parts, by number."""
        parts: list[Part] = []
        marker = ""
        while True:
            parameters = {"uploadId": upload_id, "part-number-marker": marker}
            operation = Operation("ListParts", "GET", key, non_empty(parameters))
            page, following = yield self.request_document(
                operation, "ListPartsResult", reading.parse_part_listing
            ).addErrback(_as_no_such_upload)
            parts += page
            if not following:
                return parts
            if following == marker:
                raise InvalidResponse(f"ListParts {self.bucket}/{key}", "the listing does not go on")
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
    def _find_completed(self, key: str, parts: Sequence[Part]) -> Generator[Any, Any, ObjectInfo | None]:
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
