"""The s3 storage driver: files are objects of a bucket, folders are common prefixes of keys.

A complete file is one object, stored in one request. A file that is still being written is a list
of pieces (:class:`~twisted_registry.storage.s3.pieces.PieceList`), which every process can read and
continue. Moving it to its name copies the pieces to one object inside the store. A file whose name
is known from the start is a multipart upload to that name, which needs no copy.

There are no locks across machines. Two writers of one file do not affect each other because each
has its own pieces; :attr:`~twisted_registry.storage.interfaces.IWriter.content_id` distinguishes
their contents.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from attrs import define, field
from twisted.internet.defer import Deferred, fail, inlineCallbacks, succeed
from zope.interface import implementer

from twisted_registry.storage.interfaces import (
    Entry,
    IBulkLookup,
    ILeftovers,
    IMarkerListing,
    IPresigner,
    IStorageDriver,
    MethodUnsupported,
    Move,
    PathExists,
    PathNotFound,
    Remove,
    StorageError,
)
from twisted_registry.storage.s3.errors import (
    NotFound,
    PreconditionFailed,
    RangeUnsatisfiable,
    Unsupported,
    none_if_missing,
    translate_errors,
)
from twisted_registry.storage.s3.files import (
    Copier,
    CopyOptions,
    FileLookup,
    FileMover,
    KeyMapping,
    ObjectDeleter,
    StoredFile,
    gather_limited,
)
from twisted_registry.storage.s3.listing import (
    MarkerListing,
    list_folder,
    list_folders,
    list_folders_with_file,
    walk_objects,
)
from twisted_registry.storage.s3.pieces import MIN_PART_BYTES, unfinished_size
from twisted_registry.storage.s3.reader import ObjectReader
from twisted_registry.storage.s3.upload_memory import READ_BYTES, UploadMemory
from twisted_registry.storage.s3.writer import UploadTools
from twisted_registry.storage.s3.writers import OpenWriters
from twisted_registry.storage.threads import Threads
from twisted_registry.storage.writers import trim_heap

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.base import ReactorBase
    from twisted.python.failure import Failure

    from twisted_registry.storage.interfaces import Change, IReader, IWriter
    from twisted_registry.storage.s3.interfaces import (
        DeferredGenerator,
        IObjectBody,
        IS3Client,
        ObjectInfo,
        ObjectListing,
    )
    from twisted_registry.storage.s3.writer import ObjectWriter

#: Memory that all uploads of a process share, unless two pieces need more.
_UPLOAD_MEMORY_BYTES: Final = 40 * 1024 * 1024
#: Maximum number of pending requests of one call.
_MAX_CONCURRENT_REQUESTS: Final = 24
#: Threads that hash contents and run observers.
WORKER_THREADS: Final = 8
_PRESIGNABLE_METHODS: Final = frozenset({"GET", "HEAD"})


@implementer(IStorageDriver, IBulkLookup, ILeftovers, IPresigner, IMarkerListing)
@define(eq=False)
class S3Driver:
    """Files as objects of one bucket.

    :ivar client: of the bucket; closed with the driver.
    :ivar reactor: for the threads.
    :ivar root: prefix of all keys, with or without slashes around it.
    :ivar chunk_size: bytes of the pieces of an upload, at least :data:`MIN_PART_BYTES`.
    :ivar copy_options: how objects are copied.
    :ivar memory: memory that all uploads share; by default 40 MiB, or what two pieces need.
    :ivar threads: run observers; closed with the driver.
    """

    client: IS3Client
    _reactor: ReactorBase
    root: str = ""
    chunk_size: int = 10 * 1024 * 1024
    copy_options: CopyOptions = field(factory=CopyOptions)
    memory: UploadMemory = field()
    threads: Threads = field()
    name: str = "s3"
    min_chunk_bytes: int = MIN_PART_BYTES
    _keys: KeyMapping = field(init=False)
    _lookup: FileLookup = field(init=False)
    _copier: Copier = field(init=False)
    _deleter: ObjectDeleter = field(init=False)
    _conditional_writes: ConditionalWriteProbe = field(init=False)
    _writers: OpenWriters = field(init=False)
    _mover: FileMover = field(init=False)
    _marker_listing: MarkerListing = field(init=False)

    @memory.default
    def _make_memory(self) -> UploadMemory:
        two_pieces = 2 * (self.chunk_size + READ_BYTES)
        limit = max(_UPLOAD_MEMORY_BYTES, two_pieces)
        return UploadMemory(limit, self._reactor, self._trim_heap)

    def _trim_heap(self) -> None:
        # The pool may be closed already.
        self.threads.run_blocking(trim_heap).addErrback(lambda _: None)

    @threads.default
    def _make_threads(self) -> Threads:
        return Threads(self._reactor, WORKER_THREADS, "s3")

    def __attrs_post_init__(self) -> None:
        """Make the parts of the driver."""
        self._keys = KeyMapping(self.root)
        self._lookup = FileLookup(self.client, self._keys)
        self._copier = Copier(
            self.client, self.copy_options, self.threads, self.memory, self.chunk_size
        )
        self._deleter = ObjectDeleter(self.client)
        self._conditional_writes = ConditionalWriteProbe(self.client, self._keys.root)
        self._marker_listing = MarkerListing(self.client, _MAX_CONCURRENT_REQUESTS)
        tools = UploadTools(
            self.client, self._copier, self.threads, self.memory, self.chunk_size,
            self._apply_changes,
        )  # fmt: skip
        self._writers = OpenWriters(tools, self._keys, self._lookup)
        self._mover = FileMover(
            self.client, self._keys, self._lookup, self._copier, self._deleter, self._writers
        )

    @translate_errors
    @inlineCallbacks
    def get(self, path: str, limit: int) -> DeferredGenerator[bytes]:
        """Fire with the whole content of a small file."""
        found, content = self._writers.find_unfinished(path), b""
        if found is None:
            found, content = yield self._lookup.read_file(path, limit)
            assert found is not None
        if found.size > limit:
            raise StorageError(path, f"has {found.size} bytes, more than {limit}")
        if found.piece_list is None:
            return content
        ranges = self._lookup.ranges(found, 0, None)
        blocks: list[bytes] = []
        yield ObjectReader(self.client, self.threads, path, ranges).feed(blocks.append)
        return b"".join(blocks)

    @translate_errors
    def get_many(self, paths: Sequence[str], limit: int) -> Deferred[Sequence[bytes | None]]:
        """Fire with the contents of small files."""

        def get_if_present(path: str) -> Deferred[bytes | None]:
            return self.get(path, limit).addErrback(none_if_missing)

        return gather_limited(
            _MAX_CONCURRENT_REQUESTS, [partial(get_if_present, path) for path in paths]
        )

    @translate_errors
    def put(self, path: str, content: bytes, *, durable: bool = True) -> Deferred[None]:  # noqa: ARG002
        """Store a small file; it is always durable."""
        storing = self.client.put_object(self._keys.object_key(path), content)
        return storing.addCallback(lambda _: None)

    @translate_errors
    @inlineCallbacks
    def create(self, path: str, content: bytes) -> DeferredGenerator[None]:
        """Store a small file if the path is free, on stores with conditional writes."""
        if not (yield self._conditional_writes.is_supported()):
            raise MethodUnsupported(path, "the store has no conditional writes")
        key = self._keys.object_key(path)
        try:
            yield self.client.put_object(key, content, if_none_match=True)
        except PreconditionFailed as error:
            raise PathExists(path) from error

    @translate_errors
    @inlineCallbacks
    def stat(self, path: str) -> DeferredGenerator[Entry]:
        """Fire with size and time of a file; folders have neither."""
        if not path:
            return Entry("", None)
        found = self._writers.find_unfinished(path)
        if found is not None:
            return Entry(path, found.size)
        try:
            info: ObjectInfo = yield self.client.head_object(self._keys.object_key(path))
        except NotFound:
            prefix = self._keys.folder_prefix(path)
            listing: ObjectListing = yield self.client.list_objects(prefix, limit=1)
            if not listing.objects:
                raise PathNotFound(path) from None
            return Entry(path, None)
        size = unfinished_size(info.metadata)
        return Entry(path, info.size if size is None else size, info.modified)

    @translate_errors
    @inlineCallbacks
    def open(
        self, path: str, offset: int = 0, length: int | None = None
    ) -> DeferredGenerator[IReader]:
        """Open a range of a file for reading."""
        found: StoredFile | None = self._writers.find_unfinished(path)
        body: IObjectBody | None = None
        if found is None and length != 0:
            try:
                body = yield self.client.get_object(self._keys.object_key(path), offset, length)
            except RangeUnsatisfiable:
                pass
            else:
                if unfinished_size(body.info.metadata) is None:
                    found = StoredFile(path, body.info)
                else:
                    body.close()
                    body = None
        if found is None:
            found = yield self._lookup.find(path)
            assert found is not None
        ranges = self._lookup.ranges(found, offset, length)
        return ObjectReader(self.client, self.threads, path, ranges, body)

    @translate_errors
    def writer(
        self,
        path: str,
        offset: int | None = None,
        observe: Callable[[bytes], object] | None = None,
        *,
        destination: str | None = None,
        present: str | None = None,
        absent: str | None = None,
    ) -> Deferred[IWriter]:
        """Begin or continue a file."""
        return self._writers.open_writer(path, offset, observe, destination, present, absent)

    @translate_errors
    def copy(self, source: str, destination: str) -> Deferred[None]:
        """Copy a file inside the store."""
        return self._mover.copy(source, destination)

    @translate_errors
    def move(
        self, source: str, destination: str, *, still: Callable[[], bool] | None = None
    ) -> Deferred[None]:
        """Move a file; an unfinished file becomes one object."""
        return self._mover.move(source, destination, still=still)

    @translate_errors
    @inlineCallbacks
    def delete(self, path: str, *, durable: bool = True) -> DeferredGenerator[None]:  # noqa: ARG002
        """Delete a file, or a folder with all its content."""
        key = self._keys.object_key(path)
        info: ObjectInfo | None
        info, had_files = yield gather_limited(
            _MAX_CONCURRENT_REQUESTS,
            [
                lambda: self.client.head_object(key).addErrback(none_if_missing),
                lambda: self._deleter.delete_prefix(self._keys.folder_prefix(path)),
            ],
        )
        if info is None and not had_files:
            raise PathNotFound(path)
        self._writers.mark_removed(path)
        if info is not None:
            yield self.client.delete_object(key)
            if unfinished_size(info.metadata) is not None:
                yield self._deleter.delete_prefix(self._keys.pieces_prefix(path))

    @translate_errors
    def delete_many(self, paths: Sequence[str]) -> Deferred[None]:
        """Delete files; pieces of unfinished ones remain until their folder is deleted."""
        return self._deleter.delete_keys([self._keys.object_key(path) for path in paths])

    @translate_errors
    def remove_leftovers(self, before: float, *, dry_run: bool = False) -> Deferred[int]:
        """Abort multipart uploads that were abandoned."""
        return self._deleter.abort_stale_uploads(self._keys.root, before, dry_run=dry_run)

    @translate_errors
    @inlineCallbacks
    def list(
        self, path: str, after: str = "", limit: int = 1000
    ) -> DeferredGenerator[Sequence[Entry]]:
        """Fire with the entries of a folder."""
        entries: Sequence[Entry] | None = yield list_folder(
            self.client, self._keys.folder_prefix(path), after, limit
        )
        if entries is None and path:
            raise PathNotFound(path)
        return entries or []

    @translate_errors
    @inlineCallbacks
    def list_folders(
        self, path: str, after: str = "", limit: int = 1000, containing: str = ""
    ) -> DeferredGenerator[Sequence[str]]:
        """Fire with the names of the folders in a folder."""
        prefix = self._keys.folder_prefix(path)
        if containing:
            entries: Sequence[Entry] | None = yield list_folders_with_file(
                self.client, prefix, containing, after, limit
            )
            return [entry.path for entry in entries or ()]
        names: Sequence[str] | None = yield list_folders(self.client, prefix, after, limit)
        if names is None and path:
            raise PathNotFound(path)
        return names or []

    @translate_errors
    def list_folders_many(
        self, paths: Sequence[str], limit: int
    ) -> Deferred[Sequence[Sequence[str]]]:
        """Fire with the names of the folders in each of many folders."""

        def list_names(path: str) -> Deferred[Sequence[str]]:
            return self.list_folders(path, limit=limit).addErrback(_empty_if_missing)

        return gather_limited(
            _MAX_CONCURRENT_REQUESTS, [partial(list_names, path) for path in paths]
        )

    @translate_errors
    def list_marked(
        self, path: str, sign: str, marks: Sequence[str], after: str, limit: int
    ) -> Deferred[tuple[Sequence[str], bool] | None]:
        """Fire with the folders that contain a marker, if the store supports long delimiters."""
        prefix = self._keys.folder_prefix(path)
        return self._marker_listing.page(prefix, sign, marks, after, limit)

    @translate_errors
    def walk(self, prefix: str, after: str = "", limit: int = 1000) -> Deferred[Sequence[Entry]]:
        """Fire with the files below a folder."""
        keys = self._keys
        return walk_objects(self.client, keys.root, keys.folder_prefix(prefix), after, limit)

    @translate_errors
    def presign(self, path: str, method: str, expires: int, client: str = "") -> Deferred[str]:  # noqa: ARG002
        """Fire with a URL for GET or HEAD."""
        if method not in _PRESIGNABLE_METHODS:
            return fail(MethodUnsupported(path, f"there is no URL for {method}"))
        return self.client.presign(self._keys.object_key(path), method, expires)

    @inlineCallbacks
    def close(self) -> DeferredGenerator[None]:
        """Close connections and threads."""
        yield self.client.close()
        yield self.threads.close()

    @translate_errors
    @inlineCallbacks
    def _apply_changes(
        self, writer: ObjectWriter, decide: Callable[[int], Sequence[Change]]
    ) -> DeferredGenerator[int]:
        """Commit a file, make the changes that ``decide`` returns, and close the file.

        Removals come last, all at the same time, together with the last small file. Other
        processes may see them in any order, because content ids distinguish uploads.
        """
        size: int = yield writer.commit()
        changes = decide(size)
        removed = [change.path for change in changes if isinstance(change, Remove)]
        outermost = [path for path in removed if not _is_below(path, removed)]
        last = [partial(self._delete_if_present, path) for path in outermost]
        others = [change for change in changes if not isinstance(change, Remove)]
        for change in others:
            if isinstance(change, Move):
                keep_source = _is_below(change.source, removed)
                yield self._mover.move(
                    change.source,
                    change.destination,
                    keep_source=keep_source,
                    sha256=change.sha256,
                )
            elif change is others[-1]:
                last.append(partial(self.put, change.path, change.content))
            else:
                yield self.put(change.path, change.content)
        yield gather_limited(_MAX_CONCURRENT_REQUESTS, last)
        yield writer.close()
        return size

    def _delete_if_present(self, path: str) -> Deferred[None]:
        return self.delete(path).addErrback(none_if_missing)


@define(eq=False)
class ConditionalWriteProbe:
    """Finds out whether the store refuses to replace an object with ``If-None-Match: *``.

    Some stores report that they do not implement the condition; others ignore it and would
    replace the object. So it is tried with a temporary key before it is used.

    :ivar root: prefix of the temporary key.
    """

    _client: IS3Client
    _root: str
    _supported: bool | None = field(init=False, default=None)
    _waiting: list[Deferred[bool]] = field(init=False, factory=list)

    def is_supported(self) -> Deferred[bool]:
        """Fire with whether the store obeys the condition. The result is kept; errors are not."""
        if self._supported is not None:
            return succeed(self._supported)
        waiting: Deferred[bool] = Deferred()
        self._waiting.append(waiting)
        if len(self._waiting) == 1:
            self._probe().addBoth(self._probed)
        return waiting

    def _probed(self, result: bool | Failure) -> None:  # noqa: FBT001
        if isinstance(result, bool):
            self._supported = result
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.callback(result)

    @inlineCallbacks
    def _probe(self) -> DeferredGenerator[bool]:
        key = f"{self._root}.twisted-registry-{uuid4().hex}"
        try:
            yield self._client.put_object(key, b"", if_none_match=True)
        except Unsupported:
            return False
        try:
            yield self._client.put_object(key, b"", if_none_match=True)
        except PreconditionFailed:
            return True
        else:
            return False
        finally:
            yield self._client.delete_object(key)


def _empty_if_missing(failure: Failure) -> Sequence[str]:
    failure.trap(PathNotFound)
    return ()


def _is_below(path: str, folders: Sequence[str]) -> bool:
    return any(path.startswith(f"{folder}/") for folder in folders)
