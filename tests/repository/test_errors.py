"""Translation of storage errors."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError

from tests.repository.worlds import done
from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.repository.errors import translate_storage_errors
from twisted_registry.storage.interfaces import (
    FileTooLarge,
    OffsetInvalid,
    PathExists,
    PathInvalid,
    PathNotFound,
    StorageError,
    WriterBusy,
)


@pytest.mark.parametrize("kind", [StorageError, PathNotFound, PathExists, PathInvalid, WriterBusy])
@pytest.mark.parametrize("full", [False, True])
def test_unexpected_storage_error_is_unavailable(kind, full):
    @translate_storage_errors
    async def broken():
        raise kind("secret/path", "reason", full)

    with pytest.raises(RegistryError) as caught:
        done(broken())
    assert caught.value.code is ErrorCode.UNAVAILABLE
    assert caught.value.http_status == (507 if full else 503)
    # Paths of the store are logged, and not sent to clients.
    assert "secret" not in str(caught.value.as_json())


def test_file_that_is_too_large_for_the_store_is_413():
    @translate_storage_errors
    async def broken():
        raise FileTooLarge("secret/path", "is larger than 10000 parts")

    with pytest.raises(RegistryError) as caught:
        done(broken())
    assert (caught.value.code, caught.value.http_status) == (ErrorCode.DENIED, 413)
    assert "secret" not in str(caught.value.as_json())


def test_other_errors_are_not_translated():
    @translate_storage_errors
    async def broken(error):
        raise error

    for error in (ValueError(), RegistryError(ErrorCode.DENIED), CancelledError()):
        with pytest.raises(type(error)):
            done(broken(error))
    with pytest.raises(RegistryError):
        done(broken(OffsetInvalid("a", size=1)))
