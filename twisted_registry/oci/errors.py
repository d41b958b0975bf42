"""Error codes of the distribution specification, and the exception that carries them.

Handlers and the repository raise :class:`RegistryError`. ``api.response.Response.from_error``
renders it as the JSON body of the OCI distribution specification ("Error Codes", code-1 to
code-14). Codes that only CNCF Distribution defines are marked.
"""

from __future__ import annotations

from enum import Enum

from attrs import field, frozen


class ErrorCode(Enum):
    """An error code with its default HTTP status and its default message."""

    #: code-1
    BLOB_UNKNOWN = (404, "blob unknown to registry")
    #: code-2; 404 rather than 400, as in Distribution: clients restart the upload
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
    #: Distribution: a malformed tag
    TAG_INVALID = (400, "invalid tag")
    #: Distribution: invalid ``n`` or ``last`` of a listing
    PAGINATION_NUMBER_INVALID = (400, "invalid number of results requested")
    #: Distribution: a Content-Range or offset that is out of order
    RANGE_INVALID = (416, "invalid content range")
    #: Distribution: an unexpected failure, and anything that has no code
    UNKNOWN = (500, "unknown error")
    #: Distribution: the store is full or does not respond
    UNAVAILABLE = (503, "service unavailable")
    #: extension: If-Match or If-None-Match of a manifest PUT (RFC 9110 section 13.1)
    PRECONDITION_FAILED = (412, "precondition failed")

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        self.message = message


@frozen(eq=False)
class RegistryError(Exception):
    """A request that ends with an error response.

    :ivar code: the error code.
    :ivar detail: more information as a JSON value; never a secret.
    :ivar message: a message for people; None for the default of the code.
    :ivar status: the HTTP status; None for the default of the code.
    :ivar headers: further response headers as pairs.
    :ivar limit: the limit that the request exceeds, for metrics: its key below ``http.limits``,
        ``quotas``, ``logins`` or ``storage``; empty for another reason.
    """

    code: ErrorCode
    detail: object = None
    message: str | None = None
    status: int | None = None
    headers: tuple[tuple[str, str], ...] = field(default=())
    limit: str = ""

    def __str__(self) -> str:
        message = self.code.message if self.message is None else self.message
        detail = self.detail
        if isinstance(detail, dict):
            detail = ", ".join(f"{name} {value}" for name, value in detail.items())
        return f"{self.code.name}: {message}" + ("" if detail is None else f" ({detail})")

    @property
    def http_status(self) -> int:
        """The HTTP status of the response."""
        return self.code.status if self.status is None else self.status

    def as_json(self) -> dict[str, object]:
        """Return the body of the response: ``{"errors": [{"code", "message", "detail"}]}``."""
        error: dict[str, object] = {
            "code": self.code.name,
            "message": self.code.message if self.message is None else self.message,
        }
        if self.detail is not None:
            error["detail"] = self.detail
        return {"errors": [error]}


def insufficient_storage() -> RegistryError:
    """Return the error for a full store: 507 Insufficient Storage (RFC 4918 section 11.5)."""
    return RegistryError(
        ErrorCode.UNAVAILABLE, message="no space left to store this", status=507, limit="storage"
    )


def method_not_allowed(*methods: str, detail: object = None) -> RegistryError:
    """Return the error for a method that a resource does not support (RFC 9110 section 15.5.6).

    :param methods: the supported methods, for the Allow header.
    """
    headers = (("Allow", ", ".join(methods)),)
    return RegistryError(ErrorCode.UNSUPPORTED, detail=detail, headers=headers)
