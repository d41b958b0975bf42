"""What a store refuses or fails at, in the words of the driver's interface."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from twisted_registry.storage.interfaces import PathNotFound, StorageError
from twisted_registry.storage.s3.errors import NoSuchUpload, NotFound, S3Error
from twisted_registry.storage.s3.plan import PieceListDamaged

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure

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
    return translate_errors if isinstance(translate_errors, StorageError) else StorageError(path, repr(error))


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
