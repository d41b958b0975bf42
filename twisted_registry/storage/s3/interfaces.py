"""What the driver asks of a store, in the names of the S3 API.

What a store tells of its objects, and of uploads that are not finished.

ETags are without their quotes everywhere here: some stores leave them out, and some do so only
in some answers.

One operation of the S3 API, as a request that is not signed yet.

How objects are to be kept: the headers of every request that makes one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from attrs import field, frozen
from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    # @@EMPTY
    from collections.abc import Mapping

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IConsumer

# zope's methods have no self, and their bodies are their docstrings.
# ruff: noqa: N805
# mypy: disable-error-code="empty-body"


#: A body to send: in one piece or in several, none of which changes, so that it can be sent again.
Content: TypeAlias = bytes | Sequence[bytes]


class IObjectBody(Interface):
    """The body of an object on its way to us; nothing is read from the socket before it is asked.

    One of the methods is to be called, once; the connection is busy until then.
    """

    info: ObjectInfo = Attribute("The whole object, whatever stretch of it was asked for.")
    length: int = Attribute("Bytes that will come.")

    def deliver(consumer: IConsumer) -> Deferred[None]:
        """Write everything to ``consumer`` as a push producer.

        Fires when ``length`` bytes were written. Cancelling drops the connection.

        :raises S3Error: :class:`~twisted_registry.storage.s3.errors.Unreachable` or ``InvalidResponse``
            if fewer came, after what there was has been written.
        """

    def collect() -> Deferred[bytes]:
        """Fire with everything. Fails as :meth:`deliver` does."""

    def close() -> None:
        """Drop the connection unless the body was read to its end. Safe to call at any time."""


class IS3Client(Interface):
    """The operations on one bucket.

    All may fail with any :class:`~twisted_registry.storage.s3.errors.S3Error`; those that an
    operation is expected to fail with are named. Keys are whole keys, as text. What can be sent
    again has been, several times, before an error comes out. Cancelling a Deferred drops the
    request; whether the store did what was asked is then unknown.
    """

    bucket: str = Attribute("Its name.")

    def head_bucket(prefix: str = "") -> Deferred[None]:
        """Ask whether bucket, credentials, region and clock are right.

        :param prefix: of the keys that we may list.

        Fails with ``NoSuchBucket``, ``BadCredentials``, ``AccessDenied``, ``WrongRegion``,
        ``ClockSkewed`` or ``Unreachable``. HEAD has no body to say which, so this is a listing.
        """

    def head_object(key: str) -> Deferred[ObjectInfo]:
        """Fire with size and time of an object, or fail with ``NotFound``."""

    def get_object(
        key: str, offset: int = 0, length: int | None = None, etag: str = ""
    ) -> Deferred[IObjectBody]:
        """Fire when the head of the answer is there.

        :param offset: where to begin; ``RangeUnsatisfiable`` at or behind the end, unless the
            whole object is asked for.
        :param length: at most so many bytes, at least 1; None is all that remains.
        :param etag: fail with ``PreconditionFailed`` if the object is another by now.
        """

    def read_object(key: str, limit: int) -> Deferred[tuple[ObjectInfo, bytes]]:
        """Fire with the whole of a small object, and what the store tells of it.

        :param limit: bytes; a larger object is an ``S3Error`` with the code ``EntityTooLarge``.
        """

    def put_object(
        key: str, content: Content, *, sha256: str = "", absent: bool = False, metadata: str = ""
    ) -> Deferred[str]:
        """Store an object in one step, and fire with its ETag.

        :param sha256: of the content, in hexadecimal, if the caller happens to know it: the store
            then checks what it got. Small contents are hashed here.
        :param absent: only if there is none: ``PreconditionFailed`` otherwise, ``Unsupported``
            on stores that can not do that.
        :param note: printable ASCII to keep beside the content (``x-amz-meta-twisted-registry``),
            which ``head_object`` and ``get_object`` tell.
        """

    def delete_object(key: str) -> Deferred[None]:
        """Delete an object; one that is not there is no error."""

    def delete_objects(keys: Sequence[str]) -> Deferred[Sequence[DeleteError]]:
        """Delete many objects, a thousand in a request, and fire with those that could not be.

        An object that is not there is no fault. Every one is tried before an error is raised.
        """

    def copy_object(source: str, destination: str, *, etag: str = "") -> Deferred[str]:
        """Copy an object of at most 5 GiB inside the store, with its note; fire with the ETag.

        :param etag: ``PreconditionFailed`` if the source is another by now. Swift fails so in
            any case if the source was made of parts.
        """

    def list_objects(
        prefix: str, *, delimiter: str = "", after: str = "", token: str = "", limit: int = 1000
    ) -> Deferred[ObjectListing]:
        """Fire with a page of the keys that begin with ``prefix`` (ListObjectsV2).

        :param delimiter: keys that hold it behind the prefix are rolled up into common prefixes.
        :param after: only keys greater than this, in the order of their UTF-8; with a
            delimiter a common prefix is listed if any key in it is greater, on most stores.
        :param token: that of the page before; ``after`` has no effect then.
        :param limit: keys and prefixes together, 1 to 1000.
        """

    def create_multipart_upload(key: str) -> Deferred[str]:
        """Begin an upload, and fire with its id."""

    def upload_part(
        key: str, upload_id: str, number: int, content: Content, *, sha256: str = ""
    ) -> Deferred[Part]:
        """Store a part; one of the same number is replaced. ``NoSuchUpload`` if it is over.

        :param sha256: as for :meth:`put_object`.
        """

    def upload_part_copy(
        key: str,
        upload_id: str,
        number: int,
        source: str,
        byte_range: tuple[int, int] | None = None,
        *,
        etag: str = "",
    ) -> Deferred[str]:
        """Make a part of an object, or of a stretch of it, inside the store; fire with its ETag.

        :param stretch: where to begin in the source, and how many bytes to take.
        :param etag: as for :meth:`copy_object`.
        """

    def complete_multipart_upload(key: str, upload_id: str, parts: Sequence[Part]) -> Deferred[str]:
        """Make an object of parts, in one step, and fire with its ETag.

        An answer of 200 that holds an error is an error. ``InvalidPart`` if a part is not the
        one that is named, ``NoSuchUpload`` if the upload is over.
        """

    def abort_multipart_upload(key: str, upload_id: str) -> Deferred[None]:
        """Forget an upload and its parts; one that is over is no error."""

    def list_multipart_uploads(
        prefix: str, *, marker: tuple[str, str] | None = None, limit: int = 1000
    ) -> Deferred[UploadListing]:
        """Fire with a page of the unfinished uploads of keys that begin with ``prefix``.

        :param marker: that of the page before.
        """

    def list_parts(key: str, upload_id: str) -> Deferred[Sequence[Part]]:
        """Fire with all parts, by number (at most 10,000). ``NoSuchUpload`` if it is over."""

    def presign(key: str, method: str, expires: int) -> Deferred[str]:
        """Fire with a URL that lets its bearer do ``method``. No request is made.

        :param expires: seconds, 1 to 604,800.
        """

    def close() -> Deferred[None]:
        """Close idle connections; what is under way may go on to its end, and nothing begins."""


@frozen
class ObjectInfo:
    """An object.

    :ivar key: its whole key.
    :ivar size: bytes.
    :ivar etag: what its content is known by; a digest of it in some stores only.
    :ivar modified: nanoseconds since the epoch, or None if the store did not tell.
    :ivar note: what ``put_object`` was told to keep beside the content; empty in listings.
    """

    key: str
    size: int
    etag: str
    modified: int | None = None
    metadata: str = ""


@frozen
class ObjectListing:
    """A page of ListObjectsV2.

    :ivar objects: in the order of the UTF-8 of their keys.
    :ivar prefixes: the common prefixes, each with the delimiter at its end.
    :ivar token: continues the listing; empty if it ends here.
    """

    objects: tuple[ObjectInfo, ...]
    prefixes: tuple[str, ...]
    token: str


@frozen
class MultipartUpload:
    """An upload that was neither completed nor aborted.

    :ivar initiated: nanoseconds since the epoch, or None if the store did not tell.
    """

    key: str
    upload_id: str
    initiated: int | None = None


@frozen
class UploadListing:
    """A page of ListMultipartUploads.

    :ivar marker: key and upload id that continue the listing, or None if it ends here.
    """

    uploads: tuple[MultipartUpload, ...]
    marker: tuple[str, str] | None


@frozen
class Part:
    """A part of an upload.

    :ivar number: 1 to 10,000.
    :ivar size: bytes.
    :ivar modified: when it was stored, as a listing tells, in nanoseconds since the epoch, or None.
    """

    number: int
    etag: str
    size: int
    modified: int | None = field(default=None, eq=False)


@frozen
class DeleteError:
    """An object that DeleteObjects could not delete.

    :ivar code: why, in the store's words, such as ``AccessDenied``.
    :ivar message: a sentence.
    """

    key: str
    code: str
    message: str


@frozen
class Operation:
    """A request.

    :ivar name: what the API calls it, such as ``PutObject``.
    :ivar key: of the object; empty for the bucket itself.
    :ivar parameters: of the query, not encoded.
    :ivar headers: with lower-case names; all are signed.
    :ivar content: the body.
    :ivar sha256: of the content in hexadecimal; empty if it is not known, and then the content
        is signed only if it is small.
    :ivar slow: whether the store may work for minutes before it answers.
    """

    name: str
    method: str
    key: str = ""
    parameters: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = field(factory=dict)
    content: Content = field(default=b"", repr=False)
    sha256: str = ""
    slow: bool = False


@frozen
class ObjectOptions:
    """What the store is told about new objects. What is empty is left to the bucket.

    :ivar encrypt: whether the store shall encrypt, by AES256 or by a key of its KMS.
    :ivar key_id: of the key in the KMS; without effect unless ``encrypt``.
    :ivar storage_class: such as ``STANDARD_IA``.
    :ivar acl: such as ``private``.
    """

    encrypt: bool = False
    key_id: str = ""
    storage_class: str = ""
    acl: str = ""

    def headers(self) -> dict[str, str]:
        """The headers of PutObject, CopyObject and CreateMultipartUpload."""
        headers = {
            "content-type": "application/octet-stream",
            "x-amz-storage-class": self.storage_class,
            "x-amz-acl": self.acl,
        }
        if self.encrypt:
            headers["x-amz-server-side-encryption"] = "aws:kms" if self.key_id else "AES256"
            headers["x-amz-server-side-encryption-aws-kms-key-id"] = self.key_id
        return {name: value for name, value in headers.items() if value}
