"""Deletes, one by one and a thousand at a time."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any, Final

from attrs import define
from twisted.internet.defer import Deferred, inlineCallbacks

from twisted_registry.storage.s3 import reading
from twisted_registry.storage.s3.asking import Asking
from twisted_registry.storage.s3.documents import deletion
from twisted_registry.storage.s3.errors import S3Error, passes
from twisted_registry.storage.s3.operation import Operation

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from twisted_registry.storage.s3.objects import DeleteFault

#: Objects that a store deletes in one request.
BATCH: Final = 1000
#: How often what the store was too busy to delete is tried.
DELETE_ATTEMPTS: Final = 4


@define(eq=False)
class Deletes(Asking):
    """Those in one bucket."""

    def delete_object(self, key: str) -> Deferred[None]:
        """Delete an object; one that is not there is no error."""
        return self.remove(Operation("DeleteObject", "DELETE", key))

    @inlineCallbacks
    def delete_objects(self, keys: Sequence[str]) -> Generator[Any, Any, Sequence[DeleteFault]]:
        """Delete many objects, and fire with those that could not be."""
        faults: list[DeleteFault] = []
        failed: S3Error | None = None
        for start in range(0, len(keys), BATCH):
            try:
                faults += yield self._delete_batch(keys[start : start + BATCH])
            except S3Error as error:
                failed = failed or error
        if failed is not None:
            raise failed
        return faults

    @inlineCallbacks
    def _delete_batch(self, keys: Sequence[str]) -> Generator[Any, Any, list[DeleteFault]]:
        faults: list[DeleteFault] = []
        attempt = 0
        while keys:
            attempt += 1
            found: list[DeleteFault] = yield self._delete_once(keys)
            again = attempt < DELETE_ATTEMPTS
            keys = [fault.key for fault in found if again and passes(fault.code, 0)]
            faults += [fault for fault in found if not (again and passes(fault.code, 0))]
            if keys:
                yield self.sender.pause(attempt)
        return faults

    def _delete_once(self, keys: Sequence[str]) -> Deferred[list[DeleteFault]]:
        content = deletion(keys)
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
        return self.ask(operation, "DeleteResult", reading.delete_faults_of)
