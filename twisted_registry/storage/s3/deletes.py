"""Deletes, one by one and a thousand at a time."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any, Final

from attrs import define
from twisted.internet.defer import Deferred, inlineCallbacks

from twisted_registry.storage.s3 import reading
from twisted_registry.storage.s3.asking import ClientBase
from twisted_registry.storage.s3.documents import delete_request_xml
from twisted_registry.storage.s3.errors import S3Error, is_transient
from twisted_registry.storage.s3.operation import Operation

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from twisted_registry.storage.s3.objects import DeleteError

#: Objects that a store deletes in one request.
MAX_KEYS_PER_DELETE: Final = 1000
#: How often what the store was too busy to delete is tried.
MAX_DELETE_ATTEMPTS: Final = 4


@define(eq=False)
class Deletes(ClientBase):
    """Those in one bucket."""

    def delete_object(self, key: str) -> Deferred[None]:
        """Delete an object; one that is not there is no error."""
        return self.request_delete(Operation("DeleteObject", "DELETE", key))

    @inlineCallbacks
    def delete_objects(self, keys: Sequence[str]) -> Generator[Any, Any, Sequence[DeleteError]]:
        """Delete many objects, and fire with those that could not be."""
        errors: list[DeleteError] = []
        failed: S3Error | None = None
        for start in range(0, len(keys), MAX_KEYS_PER_DELETE):
            try:
                errors += yield self._delete_batch(keys[start : start + MAX_KEYS_PER_DELETE])
            except S3Error as error:
                failed = failed or error
        if failed is not None:
            raise failed
        return errors

    @inlineCallbacks
    def _delete_batch(self, keys: Sequence[str]) -> Generator[Any, Any, list[DeleteError]]:
        errors: list[DeleteError] = []
        attempt = 0
        while keys:
            attempt += 1
            found: list[DeleteError] = yield self._delete_once(keys)
            again = attempt < MAX_DELETE_ATTEMPTS
            keys = [error.key for error in found if again and is_transient(error.code, 0)]
            errors += [error for error in found if not (again and is_transient(error.code, 0))]
            if keys:
                yield self.sender.wait_before_retry(attempt)
        return errors

    def _delete_once(self, keys: Sequence[str]) -> Deferred[list[DeleteError]]:
        content = delete_request_xml(keys)
        digest = hashlib.md5(content, usedforsecurity=False).digest()
        operation = Operation(
            "DeleteObjects",
            "POST",
            parameters=(("delete", ""),),
            headers={
                "content-md5": base64.b64encode(digest).decode(),
                "content-type": "application/xml",
            },
            content=content,
        )
        return self.request_document(operation, "DeleteResult", reading.parse_delete_errors)
