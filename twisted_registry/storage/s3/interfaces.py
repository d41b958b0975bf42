"""The S3 client interface, and the values that its operations take and return.

The names are those of the S3 API. ETags have no quotes in any of these values: some stores omit
the quotes, and some omit them only in some responses.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from attrs import field, frozen
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted.internet.interfaces import IConsumer

# zope's methods have no self, and their bodies are their docstrings.
# ruff: noqa: N805
# mypy: disable-error-code="empty-body"

_T = TypeVar("_T")

#: Return type of a generator under ``inlineCallbacks`` whose Deferred fires with ``_T``.
DeferredGenerator: TypeAlias = Generator[Deferred[Any], Any, _T]
#: Request body, as one block or several. Blocks must not change, so that a retry can resend them.
Content: TypeAlias = bytes | Sequence[bytes]


def content_size(content: Content) -> int:
    """Return the number of bytes of a content."""
    return len(content) if isinstance(content, bytes) else sum(map(len, content))


@frozen
class ObjectInfo:
    """Metadata of an object.

    :ivar key: the whole key, including the root prefix.
    :ivar size: bytes.
    :ivar etag: identifies the content; only some stores use a digest of it.
    :ivar modified: nanoseconds since the epoch; None if the store did not report it.
    :ivar metadata: the user metadata given to ``put_object``; always empty in listings.
    """

    key: str
    size: int
    etag: str
    modified: int | None = None
    metadata: str = ""


@frozen
class ObjectListing:
    """A page of ListObjectsV2.

    :ivar objects: sorted by the UTF-8 of their keys.
    :ivar prefixes: the common prefixes, each ending with the delimiter.
    :ivar token: continuation token; empty on the last page.
    """

    objects: tuple[ObjectInfo, ...]
    prefixes: tuple[str, ...]
    token: str


@frozen
class MultipartUpload:
    """A multipart upload that was neither completed nor aborted.

    :ivar initiated: nanoseconds since the epoch; None if the store did not report it.
    """

    key: str
    upload_id: str
    initiated: int | None = None


@frozen
class UploadListing:
    """A page of ListMultipartUploads.

    :ivar marker: key and upload id that continue the listing; None on the last page.
    """

    uploads: tuple[MultipartUpload, ...]
    marker: tuple[str, str] | None


@frozen
class Part:
    """A part of a multipart upload.

    :ivar number: 1 to 10,000.
    :ivar size: bytes.
    :ivar modified: time of storage in nanoseconds since the epoch, from a listing; otherwise None.
    """

    number: int
    etag: str
    size: int
    modified: int | None = field(default=None, eq=False)


@frozen
class DeleteError:
    """An object that DeleteObjects could not delete.

    :ivar code: error code of the store, such as ``AccessDenied``.
    :ivar message: error message of the store.
    """

    key: str
    code: str
    message: str


@frozen
class Operation:
    """An operation of the S3 API, as an unsigned request.

    :ivar name: name in the S3 API, such as ``PutObject``.
    :ivar method: HTTP method.
    :ivar key: of the object; empty for the bucket itself.
    :ivar parameters: query parameters, not encoded.
    :ivar headers: with lower-case names; all of them are signed.
    :ivar content: request body.
    :ivar sha256: hexadecimal SHA-256 of the content; computed if empty.
    :ivar slow_s: how long the store may take to respond, in seconds, if it works on stored objects
        meanwhile and responds to other operations. Such an operation is not repeated after a
        timeout. 0 for others.
    """

    name: str
    method: str
    key: str = ""
    parameters: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = field(factory=dict)
    content: Content = field(default=b"", repr=False)
    sha256: str = ""
    slow_s: float = 0.0


@frozen
class ObjectOptions:
    """Storage options of new objects. Empty options use the defaults of the bucket.

    :ivar encrypt: whether the store encrypts objects, with AES256 or with a KMS key.
    :ivar key_id: id of the KMS key; ignored unless ``encrypt``.
    :ivar storage_class: such as ``STANDARD_IA``.
    :ivar acl: canned ACL, such as ``private``.
    """

    encrypt: bool = False
    key_id: str = ""
    storage_class: str = ""
    acl: str = ""

    def headers(self) -> dict[str, str]:
        """Return the headers for PutObject, CopyObject and CreateMultipartUpload."""
        headers = {
            "content-type": "application/octet-stream",
            "x-amz-storage-class": self.storage_class,
            "x-amz-acl": self.acl,
        }
        if self.encrypt:
            headers["x-amz-server-side-encryption"] = "aws:kms" if self.key_id else "AES256"
            headers["x-amz-server-side-encryption-aws-kms-key-id"] = self.key_id
        return {name: value for name, value in headers.items() if value}


class IObjectBody(Interface):
    """The unread body of a GetObject response.

    Call either :meth:`deliver` or :meth:`close`. The connection stays in use until then, and
    nothing is read from the socket.
    """

    info: ObjectInfo = Attribute("Metadata of the whole object, even if a range was requested.")

    def deliver(consumer: IConsumer) -> Deferred[None]:
        """Write the body to ``consumer`` as a push producer.

        Fires when the whole body was written. Cancelling drops the connection.

        :raises S3Error: :class:`~twisted_registry.storage.s3.errors.Unreachable` or
            ``InvalidResponse`` if the body is shorter than announced. The bytes that arrived have
            been written by then.
        """

    def close() -> None:
        """Drop the connection unless the body was read to its end. Safe to call at any time."""


class IS3Client(Interface):
    """The S3 operations on one bucket.

    Every operation can fail with any :class:`~twisted_registry.storage.s3.errors.S3Error`; the
    methods name the errors that are expected of them. Keys are whole keys, as text. Requests are
    retried before an error is raised. Cancelling a Deferred drops the request; the store may
    have executed it.
    """

    bucket: str = Attribute("Name of the bucket.")

    def head_bucket(prefix: str = "") -> Deferred[None]:
        """Check bucket, credentials, region and clock.

        A HEAD response has no body that could name the error, so this lists one key.

        :param prefix: a prefix that the credentials may list.
        :raises S3Error: ``NoSuchBucket``, ``BadCredentials``, ``AccessDenied``, ``WrongRegion``,
            ``ClockSkewed`` or ``Unreachable``.
        """

    def head_object(key: str) -> Deferred[ObjectInfo]:
        """Fire with the metadata of an object.

        :raises NotFound: if it does not exist.
        """

    def get_object(
        key: str, offset: int = 0, length: int | None = None, etag: str = ""
    ) -> Deferred[IObjectBody]:
        """Fire with the unread body when the response head has arrived.

        :param offset: first byte.
        :param length: maximum number of bytes, at least 1; None reads to the end.
        :param etag: required ETag; empty accepts any.
        :raises RangeUnsatisfiable: if a range was requested and ``offset`` is not below the size.
        :raises PreconditionFailed: if the object has another ETag.
        """

    def read_object(key: str, limit: int) -> Deferred[tuple[ObjectInfo, bytes]]:
        """Fire with the metadata and the whole content of a small object.

        :param limit: maximum number of bytes; a larger object raises an ``S3Error`` with the code
            ``EntityTooLarge``.
        """

    def put_object(
        key: str,
        content: Content,
        *,
        sha256: str = "",
        if_none_match: bool = False,
        metadata: str = "",
    ) -> Deferred[str]:
        """Store an object in one request, and fire with its ETag.

        :param sha256: hexadecimal SHA-256 of the content, if the caller has it; otherwise it is
            computed. The store verifies it.
        :param if_none_match: store only if the key does not exist (``If-None-Match: *``).
        :param metadata: printable ASCII that is stored with the object, as
            ``x-amz-meta-twisted-registry``, and returned by ``head_object`` and ``get_object``.
        :raises PreconditionFailed: if ``if_none_match`` and the key exists.
        :raises Unsupported: if the store does not implement ``if_none_match``.
        """

    def delete_object(key: str) -> Deferred[None]:
        """Delete an object; a missing object is not an error."""

    def delete_objects(keys: Sequence[str]) -> Deferred[Sequence[DeleteError]]:
        """Delete many objects, 1000 per request, and fire with those that could not be deleted.

        A missing object is not an error. All keys are tried before an error is raised.
        """

    def copy_object(source: str, destination: str, *, size: int = 0) -> Deferred[str]:
        """Copy an object of at most 5 GiB and its metadata in the store; fire with the new ETag.

        :param size: bytes of the source, for the timeout.

        There is no condition on the source: OpenStack Swift never accepts the ETag of an object
        that was made of parts.
        """

    def list_objects(
        prefix: str, *, delimiter: str = "", after: str = "", token: str = "", limit: int = 1000
    ) -> Deferred[ObjectListing]:
        """Fire with a page of the keys that begin with ``prefix`` (ListObjectsV2).

        :param delimiter: keys that contain it after the prefix are rolled up to common prefixes.
        :param after: list only keys greater than this, in UTF-8 order. With a delimiter, most
            stores list a common prefix if any of its keys is greater.
        :param token: continuation token of the previous page; ``after`` is then ignored.
        :param limit: maximum number of keys and prefixes together, 1 to 1000.
        """

    def create_multipart_upload(key: str) -> Deferred[str]:
        """Start a multipart upload, and fire with its id."""

    def upload_part(key: str, upload_id: str, number: int, content: Content) -> Deferred[Part]:
        """Store a part, replacing one of the same number.

        :raises NoSuchUpload: if the upload was completed or aborted.
        """

    def upload_part_copy(
        key: str,
        upload_id: str,
        number: int,
        source: str,
        byte_range: tuple[int, int] | None = None,
        *,
        size: int = 0,
    ) -> Deferred[str]:
        """Copy an object, or a range of it, to a part in the store; fire with the part's ETag.

        :param byte_range: offset in the source, and number of bytes.
        :param size: bytes of the part, for the timeout.
        """

    def complete_multipart_upload(key: str, upload_id: str, parts: Sequence[Part]) -> Deferred[str]:
        """Create the object from its parts, atomically, and fire with its ETag.

        A response with status 200 can contain an error, which is raised.

        :raises InvalidPart: if a part is missing, has another ETag or is too small.
        :raises NoSuchUpload: if the upload was completed or aborted.
        """

    def abort_multipart_upload(key: str, upload_id: str) -> Deferred[None]:
        """Abort an upload and delete its parts; a missing upload is not an error."""

    def list_multipart_uploads(
        prefix: str, *, marker: tuple[str, str] | None = None, limit: int = 1000
    ) -> Deferred[UploadListing]:
        """Fire with a page of the unfinished uploads to keys that begin with ``prefix``.

        :param marker: that of the previous page.
        """

    def list_parts(key: str, upload_id: str) -> Deferred[Sequence[Part]]:
        """Fire with all parts of an upload (at most 10,000), sorted by number.

        :raises NoSuchUpload: if the upload was completed or aborted.
        """

    def presign(key: str, method: str, expires: int) -> Deferred[str]:
        """Fire with a presigned URL that permits ``method``. Sends no request.

        :param expires: seconds, 1 to 604,800.
        """

    def close() -> Deferred[None]:
        """Close idle connections. Requests under way may finish; new ones fail."""
