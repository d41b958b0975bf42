"""Errors are data: a code of the specification, a sentence, a detail and a status.

Handlers and the domain raise :class:`RegistryError`; one place in ``api/resource.py`` turns
it into the JSON body of the OCI distribution specification ("Error Codes", code-1 to
code-14). Codes that only CNCF Distribution knows are marked so.
"""

from __future__ import annotations

from enum import Enum

from attrs import field, frozen


class ErrorCode(Enum):
    """An error code, with the HTTP status that it usually has and its usual sentence."""

    #: code-1
    BLOB_UNKNOWN = (404, "blob unknown to registry")
    #: code-2; 404 rather than 400, as in Distribution: clients start the upload anew
    BLOB_UPLOAD_INVALID = (404, "blob upload invalid")
    #: code-3
    BLOB_UPLOAD_UNKNOWN = (404, "blob upload unknown to registry")
    #: code-4
    DIGEST_INVALID = (400, "provided digest did not match uploaded content")
    #: code-5
    MANIFEST_BLOB_UNKNOWN = (400, "manifest references a blob unknown to registry")
    #: code-6
    MANIFEST_INVALID = (400, "manifest invalid")
    #: code-7
    MANIFEST_UNKNOWN = (404, "manifest unknown")
    #: code-8
    NAME_INVALID = (400, "invalid repository name")
    #: code-9
    NAME_UNKNOWN = (404, "repository name not known to registry")
    #: code-10
    SIZE_INVALID = (400, "provided length did not match content length")
    #: code-11
    UNAUTHORIZED = (401, "authentication required")
    #: code-12
    DENIED = (403, "requested access to the resource is denied")
    #: code-13
    UNSUPPORTED = (405, "the operation is unsupported")
    #: code-14
    TOOMANYREQUESTS = (429, "too many requests")
    #: Distribution: a tag that breaks the grammar
    TAG_INVALID = (400, "invalid tag")
    #: Distribution: ``n`` or ``last`` of a listing
    PAGINATION_NUMBER_INVALID = (400, "invalid number of results requested")
    #: Distribution: Content-Range or offset out of order
    RANGE_INVALID = (416, "invalid content range")
    #: Distribution: an unexpected failure, and anything without a better word
    UNKNOWN = (500, "unknown error")
    #: Distribution: the store is full or does not answer
    UNAVAILABLE = (503, "service unavailable")
    #: ours: If-Match or If-None-Match of a manifest PUT (RFC 9110 section 13.1)
    PRECONDITION_FAILED = (412, "precondition failed")

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        self.message = message


@frozen(eq=False)
class RegistryError(Exception):
    """An answer that is not a success.

    :ivar code: what went wrong, in the specification's words.
    :ivar detail: anything that JSON can say, to help the reader; never a secret.
    :ivar message: a sentence for people; the code's own one if None.
    :ivar status: the HTTP status; the code's own one if None.
    :ivar headers: further response headers, as pairs.
    """

    code: ErrorCode
    detail: object = None
    message: str | None = None
    status: int | None = None
    headers: tuple[tuple[str, str], ...] = field(default=())

    def __str__(self) -> str:
        message = self.code.message if self.message is None else self.message
        detail = self.detail
        if isinstance(detail, dict):
            detail = ", ".join(f"{name} {value}" for name, value in detail.items())
        return f"{self.code.name}: {message}" + ("" if detail is None else f" ({detail})")

    @property
    def http_status(self) -> int:
        """The status to answer with."""
        return self.code.status if self.status is None else self.status

    def as_json(self) -> dict[str, object]:
        """The body of the answer: ``{"errors": [{"code", "message", "detail"}]}``."""
        error: dict[str, object] = {
            "code": self.code.name,
            "message": self.code.message if self.message is None else self.message,
        }
        if self.detail is not None:
            error["detail"] = self.detail
        return {"errors": [error]}


def insufficient_storage() -> RegistryError:
    """The store is full: 507 Insufficient Storage (RFC 4918 section 11.5)."""
    return RegistryError(ErrorCode.UNAVAILABLE, message="no space left to store this", status=507)
