"""Uploads of blobs (distribution specification, "Pushing blobs").

An upload is a folder with the bytes that have arrived. One writer at a time holds it. Bytes that
were written before a client disconnects remain, so that it can resume, also after a restart. The
digest is compared before the bytes are moved to the path of the digest, so that this path never
has other content.

The state of a hash cannot be stored. So the process that receives an upload keeps the running hash
in memory (:class:`RunningHash`), and stores a :class:`Checkpoint` beside the upload: the digest of
all bytes so far. With it, any other process, or this one after a restart, can finish the upload
without reading the bytes again, as long as none were added without it. Otherwise the bytes are read
once, at the end.

:func:`find_abandoned_uploads` finds uploads without activity. The last activity is the time of the
newest file of an upload; if the store has no times, the time in ``startedat``; if there are no
files, the time of the folder. An upload without any of these is kept.
"""

from __future__ import annotations

import json
import secrets
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import uuid4

from attrs import define, field, frozen

from twisted_registry.oci.digest import CANONICAL, Digest, hasher
from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.oci.names import is_upload_id
from twisted_registry.repository import catalog, layout
from twisted_registry.repository.cache import LRUCache
from twisted_registry.repository.errors import translate_storage_errors
from twisted_registry.repository.inventory import iterate_folders
from twisted_registry.repository.links import put_link
from twisted_registry.repository.streaming import stream_body
from twisted_registry.storage.fallbacks import bulk_lookup
from twisted_registry.storage.interfaces import (
    MethodUnsupported,
    Move,
    OffsetInvalid,
    PathExists,
    PathNotFound,
    Remove,
    StorageError,
    WriterBusy,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from hashlib import _Hash

    from twisted.web.iweb import IBodyProducer

    from twisted_registry.repository.context import StoreContext
    from twisted_registry.repository.interfaces import EventPublisher
    from twisted_registry.storage.interfaces import Change, IStorageDriver, IWriter

#: Bytes. A smaller upload is neither synced nor given a checkpoint at the end of a request: reading
#: it again costs less. After a power cut it may have to be sent again.
MIN_CHECKPOINT_BYTES = 1024 * 1024
#: Uploads whose running hash a process keeps; the least recently used one is dropped.
_MAX_HASHES = 1024
#: Bytes of a ``startedat`` or a checkpoint that are read, at most.
_MAX_RECORD_BYTES = 1024
#: Bytes of the text of an upload secret, at least. A new secret has twice as many.
MIN_SECRET_BYTES = 32
#: Bytes of an upload secret that are read, at most.
_MAX_SECRET_BYTES = 1024


@define(eq=False, repr=False)
class RunningHash:
    """A hash of the first ``size`` bytes of an upload.

    :ivar content_id: identifies the bytes to their writer: another sequence of writes may have led
        to the same size.
    """

    algorithm: str
    size: int = 0
    content_id: str = ""
    _hasher: _Hash = field(init=False)

    @_hasher.default
    def _make_hasher(self) -> _Hash:
        return hasher(self.algorithm)

    def update(self, data: bytes) -> None:
        """Add bytes. Called on the thread that writes them, one call at a time."""
        self._hasher.update(data)
        self.size += len(data)

    def digest(self) -> Digest:
        """Return the digest of all bytes so far."""
        return Digest.from_hasher(self._hasher)


@define(eq=False, repr=False)
class RunningHashes:
    """The running hashes of one process, by upload ID."""

    _hashes: LRUCache[str, RunningHash] = field(init=False, factory=lambda: LRUCache(_MAX_HASHES))

    def pop(self, upload_id: str, size: int, algorithm: str) -> RunningHash | None:
        """Remove and return the hash of exactly ``size`` bytes of an upload, or None.

        The caller owns it until :meth:`put`: two writers never share one.
        """
        running_hash = self._hashes.pop(upload_id)
        if size == 0:
            return RunningHash(algorithm)
        return running_hash if running_hash is not None and running_hash.size == size else None

    def put(self, upload_id: str, running_hash: RunningHash) -> None:
        """Store a hash for the next request to the same upload."""
        self._hashes.put(upload_id, running_hash)


@frozen
class Checkpoint:
    """The digest of the first ``size`` bytes of an upload, stored beside it.

    :ivar content_id: identifies the bytes to their writer.
    """

    size: int
    digest: Digest
    content_id: str = ""

    def to_bytes(self) -> bytes:
        """Return the content of the file."""
        document = {"size": self.size, "digest": str(self.digest)}
        if self.content_id:
            document["mark"] = self.content_id
        return json.dumps(document).encode("ascii")

    @classmethod
    def from_bytes(cls, content: bytes) -> Checkpoint | None:
        """Parse the file; return None if it is torn."""
        try:
            document = json.loads(content)
            digest = Digest.parse(document["digest"])
            return cls(int(document["size"]), digest, str(document.get("mark", "")))
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            return None


@frozen(eq=False)
class UploadOutOfOrder(RegistryError):
    """The bytes do not follow the stored ones, or another request is writing.

    :ivar size: the number of bytes stored, at which the client can resume.
    """

    size: int = field(default=0, kw_only=True)


@define(eq=False, repr=False)
class Uploads:
    """The uploads of one repository."""

    store: StoreContext
    name: str
    publish_event: EventPublisher

    @translate_storage_errors
    async def start(self) -> Upload:
        """Start an upload."""
        upload = Upload(self, str(uuid4()), 0)
        now = datetime.fromtimestamp(self.store.clock.seconds(), UTC)
        await self.store.driver.put(
            layout.upload_started(self.name, upload.id),
            now.strftime("%Y-%m-%dT%H:%M:%SZ").encode("ascii"),
            durable=False,
        )
        return upload

    @translate_storage_errors
    async def find(self, upload_id: str) -> Upload:
        """Return an upload.

        :raises RegistryError: BLOB_UPLOAD_UNKNOWN.
        """
        if is_upload_id(upload_id):
            size = await self._file_size(layout.upload_data(self.name, upload_id))
            if size or await self.is_started(upload_id):
                return Upload(self, upload_id, size or 0)
        raise _upload_unknown(upload_id)

    def resume(self, upload_id: str, size: int) -> Upload:
        """Return an upload in the state that its client claims; the next write checks it.

        :param size: the number of bytes that are stored.
        :raises RegistryError: BLOB_UPLOAD_UNKNOWN for an invalid ID.
        """
        if not is_upload_id(upload_id):
            raise _upload_unknown(upload_id)
        return Upload(self, upload_id, size)

    async def is_started(self, upload_id: str) -> bool:
        """Return whether an upload without bytes was started and has not ended.

        An upload that has ended must not start again: a process that has the running hash of its
        first bytes would take it for that of others. So its ``startedat`` is deleted first; if a
        crash or an error prevents the rest, no bytes can follow. A power cut may restore
        ``startedat``, but also ends all processes; then a checkpoint, which is on the disk, without
        bytes tells that they were moved.
        """
        started = await self._file_size(layout.upload_started(self.name, upload_id))
        if started is None:
            return False
        return await self._file_size(layout.upload_checkpoint(self.name, upload_id)) is None

    def single_request(self) -> Upload:
        """Return an upload of a blob that arrives in one request (end-4b).

        Nothing remains if it is incomplete or has another digest.
        """
        return Upload(self, str(uuid4()), 0, is_single_request=True)

    async def store_blob(self, digest: Digest, body: IBodyProducer) -> int:
        """Store a blob that arrives in one request, and return its size in bytes."""
        return await self.single_request().finish(digest, body)

    async def _file_size(self, path: str) -> int | None:
        try:
            return (await self.store.driver.stat(path)).size
        except PathNotFound:
            return None


@define(eq=False, repr=False)
class Upload:
    """One upload.

    :ivar size: bytes stored when it was found, or after the last operation of this object, also one
        that failed: of the upload, or of the blob that it has become; 0 if they were deleted.
    :ivar is_single_request: whether no client has its ID, so that no other request continues it.
    """

    uploads: Uploads
    id: str
    size: int
    is_single_request: bool = field(default=False, kw_only=True)

    @translate_storage_errors
    async def append(
        self, body: IBodyProducer, *, start: int | None = None, algorithm: str = CANONICAL
    ) -> int:
        """Append bytes (end-5), and return how many are stored.

        :param body: the bytes; it is started only if they can be appended.
        :param start: the offset that the client claims to be next; None accepts any.
        :param algorithm: the algorithm of the running hash.
        :raises UploadOutOfOrder: if ``start`` is not the end, or another request is writing.
        """
        writer, running_hash = await self._open(start, algorithm)
        try:
            await stream_body(body, writer)
        finally:
            # After a disconnect too: the bytes that have arrived remain, and can be continued.
            self.size = await self._close_and_checkpoint(writer, running_hash)
        return self.size

    @translate_storage_errors
    async def finish(
        self, digest: Digest, body: IBodyProducer | None = None, *, start: int | None = None
    ) -> int:
        """Append the last bytes, if any, check the digest, and store the blob (end-6).

        An upload in a single request is deleted if that fails.

        :param digest: the digest that the client claims.
        :returns: the size of the blob in bytes.
        :raises RegistryError: DIGEST_INVALID, and the upload is deleted, as in CNCF Distribution.
        :raises UploadOutOfOrder: as :meth:`append`.
        """
        try:
            return await self._finish(digest, body, start)
        except BaseException:
            if self.is_single_request:
                await self.discard()
            raise

    async def _finish(self, digest: Digest, body: IBodyProducer | None, start: int | None) -> int:
        # The final path of an upload in a single request is known before it is written.
        destination = layout.blob_data(digest) if body is not None and self.size == 0 else None
        writer, running_hash = await self._open(start, digest.algorithm, destination)
        commit = _Commit(self, digest, running_hash)
        is_over = self.is_single_request
        try:
            if body is not None:
                await stream_body(body, writer)
            gate = self.uploads.store.presence.gate
            async with gate.protect_push(self.uploads.name, digest):
                size = await self._finalize(writer, commit)
        except PathNotFound as error:
            # Another request has cancelled it meanwhile.
            is_over = True
            raise _upload_unknown(self.id) from error
        finally:
            if is_over or commit.is_decided:
                self.size = commit.blob_size
                await writer.close()
            else:
                self.size = await self._close_and_checkpoint(writer, running_hash)
        if commit.found != digest:
            await self._prune()
            raise RegistryError(
                ErrorCode.DIGEST_INVALID,
                detail={"digest": str(digest), "found": str(commit.found), "size": size},
            )
        self.uploads.publish_event("push", "blob", digest, size=self.size)
        return self.size

    async def _finalize(self, writer: IWriter, commit: _Commit) -> int:
        try:
            return await writer.finalize(commit.changes)
        except _DigestUnknown:
            commit.found = await self._stored_digest(commit.digest.algorithm, writer)
            return await writer.finalize(commit.changes)

    @translate_storage_errors
    async def delete_bytes(self) -> int:
        """Delete the stored bytes, and return how many they were.

        :returns: 0 if another request writes to the upload, or has ended it: of several requests
            that delete the same bytes, one gets the number.
        :raises RegistryError: if the store fails.
        """
        if not self.size:
            return 0
        try:
            writer, _ = await self._open(self.size, CANONICAL)
        except UploadOutOfOrder:
            return 0
        except RegistryError as error:
            if error.code is ErrorCode.BLOB_UPLOAD_UNKNOWN:
                return 0
            raise
        size, self.size = self.size, 0
        await writer.cancel()
        return size

    @translate_storage_errors
    async def discard(self) -> None:
        """Delete the upload (end-14). It is no error if it does not exist."""
        self.uploads.store.running_hashes.pop(self.id, 0, CANONICAL)
        # In this order, see Uploads.is_started().
        for path in self._started_path, layout.upload_folder(self.uploads.name, self.id):
            with suppress(PathNotFound):
                await self.uploads.store.driver.delete(path)
        await self._prune()

    async def _prune(self) -> None:
        """Remove the folders that only this upload has made."""
        # What stays is empty, and is removed with the next upload.
        with suppress(StorageError):
            await catalog.prune_folders(self.uploads.store.driver, self.uploads.name)

    @property
    def _started_path(self) -> str:
        return layout.upload_started(self.uploads.name, self.id)

    @property
    def _data_path(self) -> str:
        return layout.upload_data(self.uploads.name, self.id)

    @property
    def _checkpoint_path(self) -> str:
        return layout.upload_checkpoint(self.uploads.name, self.id)

    async def _open(
        self, start: int | None, algorithm: str, destination: str | None = None
    ) -> tuple[IWriter, RunningHash | None]:
        # The running hash is that of the expected size; the writer checks the size.
        expected = self.size if start is None else start
        if expected != self.size:
            raise _out_of_order(self.size)
        running_hash = self.uploads.store.running_hashes.pop(self.id, expected, algorithm)
        # An upload without bytes must have been started, and not have ended.
        is_first = expected == 0 and not self.is_single_request
        try:
            writer = await self.uploads.store.driver.writer(
                self._data_path,
                expected,
                None if running_hash is None else running_hash.update,
                destination=destination,
                present=self._started_path if is_first else None,
                absent=self._checkpoint_path if is_first else None,
            )
        except PathNotFound as error:
            raise _upload_unknown(self.id) from error
        except OffsetInvalid as error:
            if not error.size:
                await self.uploads.find(self.id)
            raise _out_of_order(error.size) from error
        except WriterBusy as error:
            size = (await self.uploads.find(self.id)).size
            raise _out_of_order(size, "another request is writing to it") from error
        if running_hash is not None and running_hash.content_id != writer.content_id:
            # Another machine has written other bytes of the same size.
            running_hash = None
        return writer, running_hash

    async def _close_and_checkpoint(self, writer: IWriter, running_hash: RunningHash | None) -> int:
        """Close the writer, and keep the running hash if it covers all bytes.

        :returns: the number of bytes stored.
        """
        try:
            if writer.size < MIN_CHECKPOINT_BYTES:
                size = await writer.close()
            else:
                size = await writer.flush()
                if running_hash is not None and running_hash.size == size:
                    # After the flush: bytes that a power cut damages must not have a checkpoint.
                    await self.uploads.store.driver.put(
                        self._checkpoint_path,
                        Checkpoint(size, running_hash.digest(), writer.content_id).to_bytes(),
                        durable=False,
                    )
            if running_hash is not None and 0 < running_hash.size == size:
                running_hash.content_id = writer.content_id
                self.uploads.store.running_hashes.put(self.id, running_hash)
            return size
        finally:
            await writer.close()

    async def _stored_digest(self, algorithm: str, writer: IWriter) -> Digest:
        """Return the digest of the stored bytes, from a checkpoint or by reading them."""
        driver = self.uploads.store.driver
        checkpoint = None
        with suppress(PathNotFound):
            checkpoint = Checkpoint.from_bytes(
                await driver.get(self._checkpoint_path, _MAX_RECORD_BYTES)
            )
        if (
            checkpoint is not None
            and (checkpoint.size, checkpoint.content_id) == (writer.size, writer.content_id)
            and checkpoint.digest.algorithm == algorithm
        ):
            return checkpoint.digest
        reader = await driver.open(self._data_path)
        digest_hash = hasher(algorithm)
        await reader.feed(digest_hash.update)
        return Digest.from_hasher(digest_hash)


class _DigestUnknown(Exception):
    """There is no running hash of all bytes of an upload."""


@define(eq=False, repr=False)
class _Commit:
    """The end of a complete upload. The thread that writes calls :meth:`changes`.

    :ivar digest: the digest that the client claims.
    :ivar found: the digest of the bytes, once it is known.
    :ivar is_decided: whether the changes that end the upload were returned.
    :ivar blob_size: the size of the blob that these changes store, in bytes; 0 if there is none.
    """

    upload: Upload
    digest: Digest
    running_hash: RunningHash | None
    found: Digest | None = None
    is_decided: bool = False
    blob_size: int = 0

    def changes(self, size: int) -> Sequence[Change]:
        """Return the changes that store the blob and its link, or delete it; and end the upload.

        :param size: the number of bytes stored.
        :raises _DigestUnknown: if the bytes have to be read.
        """
        running_hash, upload = self.running_hash, self.upload
        if self.found is None:
            if running_hash is None or (running_hash.size, running_hash.algorithm) != (
                size,
                self.digest.algorithm,
            ):
                raise _DigestUnknown
            self.found = running_hash.digest()
        name = upload.uploads.name
        changes: list[Change] = []
        if not upload.is_single_request:
            # First, see Uploads.is_started().
            changes.append(Remove(layout.upload_started(name, upload.id)))
        if self.found == self.digest:
            self.blob_size = size
            changes += (
                Move(
                    layout.upload_data(name, upload.id),
                    layout.blob_data(self.digest),
                    self.digest.hex if self.digest.algorithm == CANONICAL else "",
                ),
                put_link(layout.layer_link(name, self.digest), self.digest),
            )
        changes.append(Remove(layout.upload_folder(name, upload.id)))
        self.is_decided = True
        return changes


def _upload_unknown(upload_id: str) -> RegistryError:
    return RegistryError(ErrorCode.BLOB_UPLOAD_UNKNOWN, detail={"id": upload_id})


def _out_of_order(size: int, detail: str = "not the end of the stored bytes") -> UploadOutOfOrder:
    return UploadOutOfOrder(ErrorCode.RANGE_INVALID, detail=detail, size=size)


@define(eq=False, repr=False)
class UploadSecret:
    """The key that signs the state in the URLs of uploads.

    All processes that share a store use the same key, so that any of them can continue an upload,
    also after a restart. Without a configured key, the first process that needs one creates it in
    the store.

    :ivar configured: the key of the operator (``http.secret``), or None.
    """

    driver: IStorageDriver
    configured: bytes | None = None
    _stored: bytes | None = field(init=False, default=None)

    @translate_storage_errors
    async def load(self) -> bytes:
        """Return the key.

        :raises RegistryError: if the store fails.
        """
        if self.configured is not None:
            return self.configured
        if self._stored is None:
            self._stored = await self._load_or_create()
        return self._stored

    async def _load_or_create(self) -> bytes:
        new = secrets.token_hex(MIN_SECRET_BYTES).encode("ascii")
        try:
            stored = await self._read()
        except PathNotFound:
            try:
                await self.driver.create(layout.UPLOAD_SECRET, new)
            except PathExists:
                stored = await self._read()
            except MethodUnsupported:
                # If several processes start at the same time on such a store, the last one wins,
                # and uploads that another has started must start again. http.secret prevents it.
                await self.driver.put(layout.UPLOAD_SECRET, new)
                stored = await self._read()
            else:
                return new
        if len(stored) < MIN_SECRET_BYTES:
            # It is torn or empty: anybody could sign with it.
            await self.driver.put(layout.UPLOAD_SECRET, new)
            return new
        return stored

    async def _read(self) -> bytes:
        return await self.driver.get(layout.UPLOAD_SECRET, _MAX_SECRET_BYTES)


@define(eq=False, repr=False)
class AbandonedUpload:
    """An upload without recent activity.

    :ivar repository: the name of its repository.
    :ivar last_activity: in seconds since the epoch.
    :ivar before: activity since this time, in seconds since the epoch, keeps it.
    """

    driver: IStorageDriver
    repository: str
    id: str
    last_activity: float
    before: float

    @translate_storage_errors
    async def remove(self) -> bool:
        """Delete the upload, and return whether it was deleted.

        It is kept if a request writes to it, or has written to it since it was found.
        """
        path = layout.upload_data(self.repository, self.id)
        writer = None
        try:
            # A writer would create a missing file. Without a file no request is writing.
            with suppress(PathNotFound):
                await self.driver.stat(path)
                writer = await self.driver.writer(path)
        except WriterBusy:
            return False
        try:
            last_activity = await _last_activity(self.driver, self.repository, self.id)
            if last_activity is None or last_activity >= self.before:
                return False
            with suppress(PathNotFound):
                await self.driver.delete(layout.upload_folder(self.repository, self.id))
        finally:
            if writer is not None:
                await writer.close()
        with suppress(StorageError):
            await catalog.prune_folders(self.driver, self.repository)
        return True


async def find_abandoned_uploads(
    driver: IStorageDriver, before: float
) -> AsyncIterator[AbandonedUpload]:
    """Yield the uploads of all repositories without activity since a time.

    :param before: the time in seconds since the epoch.
    :raises RegistryError: if the store fails.
    """
    bulk = bulk_lookup(driver)
    async for name in catalog.walk_repositories(driver, markers=layout.UPLOAD_MARKERS):
        async for folders in iterate_folders(bulk, layout.uploads_folder(name)):
            for upload_id in filter(is_upload_id, folders):
                last_activity = await _last_activity(driver, name, upload_id)
                if last_activity is not None and last_activity < before:
                    yield AbandonedUpload(driver, name, upload_id, last_activity, before)


@translate_storage_errors
async def _last_activity(driver: IStorageDriver, name: str, upload_id: str) -> float | None:
    """Return the time of the last activity in seconds since the epoch, or None."""
    try:
        entries = await driver.list(layout.upload_folder(name, upload_id))
    except PathNotFound:
        return None
    times = [entry.modified_s for entry in entries if entry.modified_s is not None]
    if times:
        return max(times)
    with suppress(PathNotFound, ValueError):
        content = await driver.get(layout.upload_started(name, upload_id), _MAX_RECORD_BYTES)
        started = datetime.fromisoformat(content.decode("ascii").strip())
        return started.astimezone(UTC).timestamp()
    with suppress(PathNotFound):
        return (await driver.stat(layout.upload_folder(name, upload_id))).modified_s
    return None
