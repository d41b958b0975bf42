"""Translation of storage errors into registry errors.

The methods of this package handle the storage errors that they expect. Every other one means that
the store is full or broken; to the client this is an error that may be temporary.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from twisted.logger import Logger

from twisted_registry.oci.errors import ErrorCode, RegistryError, insufficient_storage
from twisted_registry.storage.interfaces import FileTooLarge, StorageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

log = Logger()

_P = ParamSpec("_P")
_T = TypeVar("_T")


def translate_storage_errors(
    function: Callable[_P, Awaitable[_T]],
) -> Callable[_P, Coroutine[object, object, _T]]:
    """Make ``function`` raise :class:`RegistryError` instead of :class:`StorageError`.

    A full store becomes 507 Insufficient Storage, a file that is too large for it 413, with the
    code DENIED because docker repeats an upload after most others; anything else 503. The storage
    error is logged.
    """

    @wraps(function)
    async def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return await function(*args, **kwargs)
        except StorageError as error:
            log.error(
                "storage failed: {kind}: {error}", kind=type(error).__name__, error=str(error)
            )
            if error.full:
                raise insufficient_storage() from error
            if isinstance(error, FileTooLarge):
                raise RegistryError(
                    ErrorCode.DENIED, message="the store cannot keep a blob so large", status=413
                ) from error
            raise RegistryError(
                ErrorCode.UNAVAILABLE, message="the storage backend failed"
            ) from error

    return call
