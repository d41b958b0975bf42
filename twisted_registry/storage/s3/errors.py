"""Errors of the S3 client, and their translation to the errors of storage drivers."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from attrs import field, frozen

from twisted_registry.storage.interfaces import PathNotFound, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure

_P = ParamSpec("_P")
_T = TypeVar("_T")


@frozen(eq=False)
class S3Error(Exception):
    """Raised if the store refused a request, failed, or could not be reached.

    :ivar operation: the failed operation, such as ``GetObject registry/a/b``.
    :ivar message: text for people, without secrets.
    :ivar code: error code of the store, such as ``NoSuchKey``; empty if there was none.
    :ivar status: HTTP status of the response; 0 if there was none.
    :ivar request_id: id of the request in the log of the store, or empty.
    :ivar retryable: whether the same request may succeed later.
    :ivar may_have_applied: whether an earlier attempt got no response, so that the store may have
        executed it.
    """

    operation: str
    message: str
    code: str = field(default="", kw_only=True)
    status: int = field(default=0, kw_only=True)
    request_id: str = field(default="", kw_only=True)
    retryable: bool = field(default=False, kw_only=True)
    may_have_applied: bool = field(default=False, kw_only=True)

    def __str__(self) -> str:
        details = [
            *filter(None, [self.code, str(self.status or "")]),
            *([f"request {self.request_id}"] if self.request_id else []),
        ]
        suffix = f" ({', '.join(details)})" if details else ""
        return f"{self.operation}: {self.message}{suffix}"


class NotFound(S3Error):
    """The object does not exist. After HEAD, the bucket may be missing as well."""


class NoSuchUpload(NotFound):
    """The multipart upload does not exist: it was completed or aborted."""


class NoSuchBucket(S3Error):
    """The bucket does not exist."""


class AccessDenied(S3Error):
    """The credentials are valid but do not permit the operation."""


class BadCredentials(AccessDenied):
    """The access key is unknown, or the signature does not match the secret key."""


class ClockSkewed(S3Error):
    """The clocks of this machine and of the store differ too much."""


@frozen(eq=False)
class WrongRegion(S3Error):
    """The bucket is in another region.

    :ivar region: the region of the bucket; empty if the store did not report it.
    """

    region: str = field(default="", kw_only=True)


class SlowDown(S3Error):
    """The store limits the request rate, and did so for every attempt."""


class PreconditionFailed(S3Error):
    """A condition of the request, such as ``If-Match`` or ``If-None-Match``, is not met."""


class RangeUnsatisfiable(S3Error):
    """The range begins at or after the end of the object."""


class InvalidPart(S3Error):
    """A part of a completed upload is missing, has another ETag, or is too small."""


class Unsupported(S3Error):
    """The store does not implement the operation or an option of it."""


class Unreachable(S3Error):
    """The connection failed, timed out, or was lost."""


class Stalled(Unreachable):
    """The store made no progress for too long."""


class InvalidResponse(S3Error):
    """The response is truncated, too long, malformed or not of the requested range."""


class PieceListDamaged(ValueError):
    """Raised for a piece list with a wrong checksum or format."""


_CODES: Final[dict[str, type[S3Error]]] = {
    "NoSuchKey": NotFound,
    "NoSuchVersion": NotFound,
    "NoSuchUpload": NoSuchUpload,
    "NoSuchBucket": NoSuchBucket,
    "AccessDenied": AccessDenied,
    "AllAccessDisabled": AccessDenied,
    "AccountProblem": AccessDenied,
    "ExpiredToken": BadCredentials,
    "InvalidAccessKeyId": BadCredentials,
    "InvalidToken": BadCredentials,
    "SignatureDoesNotMatch": BadCredentials,
    "TokenRefreshRequired": BadCredentials,
    "RequestTimeTooSkewed": ClockSkewed,
    "AuthorizationHeaderMalformed": WrongRegion,
    "AuthorizationQueryParametersError": WrongRegion,
    "IllegalLocationConstraintException": WrongRegion,
    "PermanentRedirect": WrongRegion,
    "TemporaryRedirect": WrongRegion,
    "SlowDown": SlowDown,
    "ServiceUnavailable": SlowDown,
    "PreconditionFailed": PreconditionFailed,
    "ConditionalRequestConflict": PreconditionFailed,
    "InvalidRange": RangeUnsatisfiable,
    "InvalidPart": InvalidPart,
    "InvalidPartOrder": InvalidPart,
    "EntityTooSmall": InvalidPart,
    "NotImplemented": Unsupported,
    "MethodNotAllowed": Unsupported,
}
_STATUSES: Final[dict[int, type[S3Error]]] = {
    301: WrongRegion,
    307: WrongRegion,
    403: AccessDenied,
    404: NotFound,
    405: Unsupported,
    412: PreconditionFailed,
    416: RangeUnsatisfiable,
    429: SlowDown,
    501: Unsupported,
    503: SlowDown,
}
#: Codes of temporary failures. A request body that was damaged on its way is one of them.
_TRANSIENT_CODES: Final = frozenset(
    {
        "BadDigest",
        "IncompleteBody",
        "InternalError",
        "OperationAborted",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "XAmzContentSHA256Mismatch",
    }
)
_TRANSIENT_STATUSES: Final = frozenset({408, 429, 500, 502, 503, 504})
#: Codes and status of a store without free space.
_FULL_CODES: Final = frozenset({"QuotaExceeded", "XMinioStorageFull", "InsufficientStorage"})
_INSUFFICIENT_STORAGE: Final = 507


def error_class(code: str, status: int) -> type[S3Error]:
    """Return the exception class for an error code or, without a known code, for a status."""
    return _CODES.get(code) or _STATUSES.get(status, S3Error)


def is_transient(code: str, status: int) -> bool:
    """Return whether a request that failed with this code or status may succeed later."""
    return code in _TRANSIENT_CODES or (status in _TRANSIENT_STATUSES and code not in _CODES)


def translate_error(error: BaseException, path: str) -> BaseException:
    """Return the driver's error for an error of the client; other errors are returned as is."""
    if isinstance(error, NotFound) and not isinstance(error, NoSuchUpload):
        return PathNotFound(path, str(error))
    if isinstance(error, S3Error):
        full = error.code in _FULL_CODES or error.status == _INSUFFICIENT_STORAGE
        return StorageError(path, str(error), full=full)
    if isinstance(error, PieceListDamaged):
        return StorageError(path, f"its piece list is damaged: {error}")
    return error


def to_storage_error(failure: Failure, path: str) -> StorageError:
    """Convert any failure to a StorageError, as :func:`translate_error` does where it applies."""
    error = failure.value
    assert error is not None
    translated = translate_error(error, path)
    return translated if isinstance(translated, StorageError) else StorageError(path, repr(error))


def none_if_missing(failure: Failure) -> None:
    """Errback that replaces NotFound and PathNotFound by None."""
    failure.trap(NotFound, PathNotFound)


def translate_errors(method: Callable[_P, Deferred[_T]]) -> Callable[_P, Deferred[_T]]:
    """Decorate a driver method so that it raises the driver's errors.

    The first argument of the method, if it is a string, is the path of the error.
    """

    @wraps(method)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> Deferred[_T]:
        def translate(failure: Failure) -> Failure:
            error = failure.value
            assert error is not None
            path = args[1] if len(args) > 1 else ""
            translated = translate_error(error, path if isinstance(path, str) else "")
            if translated is error:
                return failure
            raise translated from error

        return method(*args, **kwargs).addErrback(translate)

    return call
