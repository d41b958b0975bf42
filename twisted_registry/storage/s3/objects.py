"""What a store tells of its objects, and of uploads that are not finished.

ETags are without their quotes everywhere here: some stores leave them out, and some do so only
in some answers.
"""

from __future__ import annotations

from attrs import field, frozen


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
