"""What goes wrong with a store, as exceptions with the store's own code and request id.

What a store refuses or fails at, in the words of the driver's interface.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from attrs import field, frozen

from twisted_registry.storage.interfaces import PathNotFound, StorageError
from twisted_registry.storage.s3.sinks import PieceListDamaged

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure


@frozen(eq=False)
class S3Error(Exception):
    """The store refused, failed, or could not be asked.

    :ivar operation: what was asked of it, such as ``GetObject registry/a/b``.
    :ivar message: a sentence for people, without secrets.
    :ivar code: the store's own word, such as ``NoSuchKey``; empty if it gave none.
    :ivar status: of the answer; 0 if there was none.
    :ivar request_id: what the store's own log knows the request by, or empty.
    :ivar retry: whether the same request may succeed a little later.
    :ivar repeated: whether an earlier attempt got no answer, and may have been carried out.
    """

    operation: str
    message: str
    code: str = field(default="", kw_only=True)
    status: int = field(default=0, kw_only=True)
    request_id: str = field(default="", kw_only=True)
    retryable: bool = field(default=False, kw_only=True)
    repeated: bool = field(default=False, kw_only=True)

    def __str__(self) -> str:
        facts = [
            *filter(None, [self.code, str(self.status or "")]),
            *([f"request {self.request_id}"] if self.request_id else []),
        ]
        told = f" ({', '.join(facts)})" if facts else ""
        return f"{self.operation}: {self.message}{told}"


class NotFound(S3Error):
    """No such object (or, where HEAD can not tell, no such bucket)."""


class NoSuchUpload(NotFound):
    """No such multipart upload: it was completed or aborted."""


class NoSuchBucket(S3Error):
    """The bucket does not exist."""


class AccessDenied(S3Error):
    """The store knows us, and does not let us do that."""


class BadCredentials(AccessDenied):
    """The store does not know the access key, or the signature does not fit the secret key."""


class ClockSkewed(S3Error):
    """Our clock and the store's are too far apart."""


@frozen(eq=False)
class WrongRegion(S3Error):
    """The bucket is elsewhere.

    :ivar region: where, or empty if the store did not tell.
    """

    region: str = field(default="", kw_only=True)


class SlowDown(S3Error):
    """The store asks for fewer requests, and went on asking through all attempts."""


class PreconditionFailed(S3Error):
    """A condition of the request does not hold: something is (or is not) there already."""


class RangeUnsatisfiable(S3Error):
    """The range begins at or behind the end of the object."""


class InvalidPart(S3Error):
    """A part that an upload was to be completed with is missing, changed, or too small."""


class Unsupported(S3Error):
    """The store has no such operation or option."""


class Unreachable(S3Error):
    """No connection, or no answer in time, or one that broke off."""


class InvalidResponse(S3Error):
    """An answer that is not what it says it is: cut short, too long, or unreadable."""


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
#: Failures that pass. A body that did not arrive as it was sent is one of them.
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


def error_class(code: str, status: int) -> type[S3Error]:
    """Which error a code of the store means, or, where there is none, a status."""
    return _CODES.get(code) or _STATUSES.get(status, S3Error)


def is_transient(code: str, status: int) -> bool:
    """Whether a failure is one that may not be there a little later."""
    return code in _TRANSIENT_CODES or (status in _TRANSIENT_STATUSES and code not in _CODES)


P = ParamSpec("P")
T = TypeVar("T")

_FULL: Final = frozenset({"QuotaExceeded", "XMinioStorageFull", "InsufficientStorage"})
_INSUFFICIENT_STORAGE: Final = 507


def translate_error(error: BaseException, path: str) -> BaseException:
    """What the driver raises for an error of the client; one of another family stays as it is."""
    if isinstance(error, NotFound) and not isinstance(error, NoSuchUpload):
        return PathNotFound(path, str(error))
    if isinstance(error, S3Error):
        full = error.code in _FULL or error.status == _INSUFFICIENT_STORAGE
        return StorageError(path, str(error), full=full)
    if isinstance(error, PieceListDamaged):
        return StorageError(path, f"its list of pieces is damaged: {error}")
    return error


def to_storage_error(failure: Failure, path: str) -> StorageError:
    """As :func:`translate_error`, and always a storage error."""
    error = failure.value
    assert error is not None
    translate_errors = translate_error(error, path)
    return (
        translate_errors
        if isinstance(translate_errors, StorageError)
        else StorageError(path, repr(error))
    )


def none_if_missing(failure: Failure) -> None:
    """Say None for what is not there."""
    failure.trap(NotFound, PathNotFound)


def translate_errors(method: Callable[P, Deferred[T]]) -> Callable[P, Deferred[T]]:
    """Raise the driver's errors for those of the client; the path is the first argument."""

    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        def tell(failure: Failure) -> Failure:
            error = failure.value
            assert error is not None
            path = args[1] if len(args) > 1 else ""
            explanation = translate_error(error, path if isinstance(path, str) else "")
            if explanation is error:
                return failure
            raise explanation from error

        return method(*args, **kwargs).addErrback(tell)

    return call
