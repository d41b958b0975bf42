"""What the store could not do, in the registry's words.

Functions of the domain handle the storage errors that they expect; every other one means that
the store is full or broken, which is the client's business only as far as trying again later.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from twisted.logger import Logger

from twisted_registry.oci.errors import ErrorCode, RegistryError, insufficient_storage
from twisted_registry.storage.interfaces import StorageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

log = Logger()

P = ParamSpec("P")
T = TypeVar("T")


def translate_storage_errors(
    function: Callable[P, Awaitable[T]],
) -> Callable[P, Coroutine[object, object, T]]:
    """Make ``function`` raise :class:`RegistryError` instead of :class:`StorageError`.

    A full store is 507 Insufficient Storage, anything else 503, both with the code UNAVAILABLE.
    """

    @wraps(function)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await function(*args, **kwargs)
        except StorageError as error:
            log.error(
                "storage failed: {kind}: {error}", kind=type(error).__name__, error=str(error)
            )
            if error.full:
                raise insufficient_storage() from error
            raise RegistryError(
                ErrorCode.UNAVAILABLE, message="the store does not answer as it should"
            ) from error

    return call
