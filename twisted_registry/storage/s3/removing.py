"""Deletes: of keys, of all that begins alike, and of uploads that nobody will complete."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from attrs import define
from twisted.internet.defer import inlineCallbacks

from twisted_registry.storage.interfaces import StorageError
from twisted_registry.storage.s3.errors import NoSuchUpload

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from twisted_registry.storage.s3.interfaces import IS3Client
    from twisted_registry.storage.s3.objects import MultipartUpload
    from twisted_registry.storage.s3.sinks import DeferredGenerator


@define(eq=False)
class ObjectDeleter:
    """Deletes in one bucket."""

    _client: IS3Client

    @inlineCallbacks
    def keys(self, keys: Sequence[str]) -> DeferredGenerator:
        """Delete objects; those that are not there are passed over.

        :raises StorageError: if the store could not delete one; every one was tried.
        """
        if not keys:
            return
        errors = yield self._client.delete_objects(keys)
        if errors:
            first = errors[0]
            more = f" and {len(errors) - 1} more" if len(errors) > 1 else ""
            raise StorageError(first.key, f"not deleted: {first.code} {first.message}{more}")

    @inlineCallbacks
    def below(self, prefix: str) -> DeferredGenerator:
        """Delete every object whose key begins with a prefix; fire with whether there was one."""
        anything = False
        token = ""
        while True:
            listing = yield self._client.list_objects(prefix, token=token)
            if listing.objects:
                anything = True
                yield self.keys([info.key for info in listing.objects])
            token = listing.token
            if not token:
                return anything

    @inlineCallbacks
    def uploads(self, prefix: str, before: float, *, dry_run: bool = False) -> DeferredGenerator:
        """Abort multipart uploads that nobody wrote to since a time; fire with how many they were.

        :param before: seconds since the epoch.
        :param dry_run: abort none.
        """
        count = 0
        marker = None
        while True:
            listing = yield self._client.list_multipart_uploads(prefix, marker=marker)
            for upload in listing.uploads:
                if (yield from self._last_activity(upload, before)) < before:
                    if not dry_run:
                        yield self._client.abort_multipart_upload(upload.key, upload.upload_id)
                    count += 1
            marker = listing.marker
            if marker is None:
                return count

    def _last_activity(self, upload: MultipartUpload, before: float) -> Generator[Any, Any, float]:
        """When somebody wrote to an upload last, in seconds since the epoch.

        :param before: what was begun later is not looked at.
        """
        if upload.initiated is None or upload.initiated / 1e9 >= before:
            return inf
        try:
            parts = yield self._client.list_parts(upload.key, upload.upload_id)
        except NoSuchUpload:
            # It was completed or aborted meanwhile.
            return inf
        return max([upload.initiated, *(part.modified or 0 for part in parts)]) / 1e9
