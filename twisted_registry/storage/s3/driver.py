"""The s3 storage driver: files are objects of a bucket, folders are common prefixes of keys.

A complete file is one object, stored in one request. A file that is still being written is a list
of pieces (:class:`~twisted_registry.storage.s3.sinks.PieceList`), which every process can read and
continue. Moving it to its name copies the pieces to one object inside the store. A file whose name
is known from the start is a multipart upload to that name, which needs no copy.

There are no locks across machines. Two writers of one file do not affect each other because each
has its own pieces; their :attr:`~twisted_registry.storage.interfaces.IWriter.content_id` tells their
contents apart.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final
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
    at_once,
    too_large_error,
)
from twisted_registry.storage.s3.listing import (
    MarkerListing,
    list_folder,
    list_folders,
    list_folders_with_file,
    walk_objects,
)
from twisted_registry.storage.s3.reader import ObjectReader
from twisted_registry.storage.s3.sinks import unfinished_size
from twisted_registry.storage.s3.writer import MemoryBudget
from twisted_registry.storage.s3.writers import MIN_PART_BYTES, OpenWriters
from twisted_registry.storage.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.base import ReactorBase

    from twisted_registry.storage.interfaces import Change, IWriter
    from twisted_registry.storage.s3.interfaces import IS3Client
    from twisted_registry.storage.s3.sinks import DeferredGenerator
    from twisted_registry.storage.s3.writer import ObjectWriter


@define(eq=False)
class ConditionalWriteProbe:
    """What a store was found to do.

    :ivar root: the prefix of our keys.
    """

    _client: IS3Client
    _root: str
    _supported: bool | None = field(init=False, default=None)
    _waiting: list[Deferred[bool]] = field(init=False, factory=list)

    def hold(self) -> Deferred[bool]:
        """Fire with whether the store obeys them; it is asked once."""
        if self._supported is not None:
            return succeed(self._supported)
        waiting: Deferred[bool] = Deferred()
        self._waiting.append(waiting)
        if len(self._waiting) == 1:
            self._probe().addBoth(self._probed)
        return waiting

    def _probed(self, result: Any) -> None:
        if isinstance(result, bool):
            self._supported = result
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.callback(result)

    @inlineCallbacks
    def _probe(self) -> DeferredGenerator:
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


#: Bytes that all uploads of this process may hold, together.
UPLOAD_MEMORY_BYTES: Final = 40 * 1024 * 1024
#: Requests of one call that are under way at once.
MAX_CONCURRENT_REQUESTS: Final = 24
_HASH_THREADS: Final = 8
#: What a store can be asked for by a URL alone.
_PRESIGNABLE_METHODS: Final = frozenset({"GET", "HEAD"})


@implementer(IStorageDriver, IBulkLookup, ILeftovers, IPresigner, IMarkerListing)
@define(eq=False)
class S3Driver:
    """Objects of one bucket.

    :ivar client: of the bucket.
    :ivar reactor: for the threads that hash.
    :ivar root: what all keys begin with.
    :ivar chunk: bytes of the pieces of an upload, at least :data:`MIN_PART_BYTES`.
    :ivar copying: how objects are copied.
    :ivar memory: bytes that all uploads may hold.
    """

    client: IS3Client
    _reactor: ReactorBase
    root: str = ""
    chunk_size: int = 10 * 1024 * 1024
    copy_options: CopyOptions = field(factory=CopyOptions)
    memory: int = UPLOAD_MEMORY_BYTES
    name: str = "s3"
    min_chunk_bytes: int = MIN_PART_BYTES
    _keys: KeyMapping = field(init=False)
    _lookup: FileLookup = field(init=False)
    _copier: Copier = field(init=False)
    _deleter: ObjectDeleter = field(init=False)
    _conditional_writes: ConditionalWriteProbe = field(init=False)
    _threads: Threads = field(init=False)
    _writers: OpenWriters = field(init=False)
    _mover: FileMover = field(init=False)
    _marker_listing: MarkerListing = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Put the parts together."""
        self._keys = KeyMapping(self.root)
        self._lookup = FileLookup(self.client, self._keys)
        self._copier = Copier(self.client, self.copy_options, MIN_PART_BYTES)
        self._deleter = ObjectDeleter(self.client)
        self._conditional_writes = ConditionalWriteProbe(self.client, self._keys.root)
        self._marker_listing = MarkerListing(self.client, MAX_CONCURRENT_REQUESTS)
        self._threads = Threads(self._reactor, _HASH_THREADS, "s3")
        self._writers = OpenWriters(
            self.client, self._keys, self._lookup, self._copier, self._threads,
            MemoryBudget(self.memory), self.chunk_size, self._apply_changes,
        )  # fmt: skip
        self._mover = FileMover(
            self.client, self._keys, self._lookup, self._copier, self._deleter, self._writers
        )

    @translate_errors
    @inlineCallbacks
    def get(self, path: str, limit: int) -> DeferredGenerator:
        """Fire with the whole content of a small file."""
        found, content = self._writers.find_unfinished(path), b""
        if found is None:
            found, content = yield self._lookup.read(path, limit)
        if found.piece_list is None:
            return content
        if found.size > limit:
            raise too_large_error(path, found.size, limit)
        pieces: list[bytes] = []
        yield self._reader(found).feed(pieces.append)
        return b"".join(pieces)

    @translate_errors
    def get_many(self, paths: Sequence[str], limit: int) -> Deferred[Sequence[bytes | None]]:
        """Fire with the contents of small files."""

        def get(path: str) -> Deferred[bytes | None]:
            content: Deferred[bytes | None] = self.get(path, limit)
            return content.addErrback(none_if_missing)

        answers: Deferred[Sequence[bytes | None]]
        answers = at_once(MAX_CONCURRENT_REQUESTS, [partial(get, path) for path in paths])
        return answers

    @translate_errors
    def put(self, path: str, content: bytes, *, durable: bool = True) -> Deferred[None]:  # noqa: ARG002
        """Store a small file; what a store has answered is durable."""
        return self.client.put_object(self._keys.object_key(path), content).addCallback(
            lambda _: None
        )

    @translate_errors
    @inlineCallbacks
    def create(self, path: str, content: bytes) -> DeferredGenerator:
        """Store a small file where there is none, on stores that can be told to."""
        if not (yield self._conditional_writes.hold()):
            raise MethodUnsupported(path, "the store has no conditional writes")
        try:
            yield self.client.put_object(self._keys.object_key(path), content, if_none_match=True)
        except PreconditionFailed as error:
            raise PathExists(path) from error

    @translate_errors
    @inlineCallbacks
    def stat(self, path: str) -> DeferredGenerator:
        """Fire with size and time of a file; a folder has neither."""
        if not path:
            return Entry("", None)
        found = self._writers.find_unfinished(path)
        if found is not None:
            return Entry(path, found.size)
        try:
            info = yield self.client.head_object(self._keys.object_key(path))
        except NotFound:
            listing = yield self.client.list_objects(self._keys.below(path), limit=1)
            if not listing.objects:
                raise PathNotFound(path) from None
            return Entry(path, None)
        size = unfinished_size(info.metadata)
        return Entry(path, info.size if size is None else size, info.modified)

    @translate_errors
    def copy(self, source: str, destination: str) -> Deferred[None]:
        """Copy a file, inside the store."""
        return self._mover.copy(source, destination)

    @translate_errors
    def move(
        self, source: str, destination: str, *, still: Callable[[], bool] | None = None
    ) -> Deferred[None]:
        """Give a file its name; an unfinished file becomes an object."""
        return self._mover.move(source, destination, still=still)

    @translate_errors
    @inlineCallbacks
    def _apply_changes(
        self, writer: ObjectWriter, decide: Callable[[int], Sequence[Change]]
    ) -> DeferredGenerator:
        """Commit and close a file of this driver, with what is to happen in between.

        What is removed goes last, all at once and beside the last small file: it does not matter
        what of it another process finds meanwhile, because marks tell uploads apart.
        """
        size = yield writer.commit()
        changes = decide(size)
        removed = [change.path for change in changes if isinstance(change, Remove)]
        outermost = [path for path in removed if not _is_below(path, removed)]
        last = [partial(self._delete_if_present, path) for path in outermost]
        others = [change for change in changes if not isinstance(change, Remove)]
        for change in others:
            if isinstance(change, Move):
                keep_source = _is_below(change.source, removed)
                yield self._mover.move(change.source, change.destination, keep_source=keep_source)
            elif change is others[-1]:
                last.append(partial(self.put, change.path, change.content))
            else:
                yield self.put(change.path, change.content)
        yield at_once(MAX_CONCURRENT_REQUESTS, last)
        yield writer.close()
        return size

    def _delete_if_present(self, path: str) -> Deferred[None]:
        gone: Deferred[None] = self.delete(path)
        return gone.addErrback(none_if_missing)

    @translate_errors
    @inlineCallbacks
    def delete(self, path: str, *, durable: bool = True) -> DeferredGenerator:  # noqa: ARG002
        """Remove a file, or a folder with all that is in it."""
        key = self._keys.object_key(path)
        info, below = yield at_once(
            MAX_CONCURRENT_REQUESTS,
            [
                lambda: self.client.head_object(key).addErrback(none_if_missing),
                lambda: self._deleter.below(self._keys.below(path)),
            ],
        )
        if info is None and not below:
            raise PathNotFound(path)
        self._writers.removed(path)
        if info is not None:
            yield self.client.delete_object(key)
            if unfinished_size(info.metadata) is not None:
                yield self._deleter.below(self._keys.pieces(path))

    @translate_errors
    def delete_many(self, paths: Sequence[str]) -> Deferred[None]:
        """Remove files; pieces of unfinished ones stay until their folder goes."""
        answer: Deferred[None] = self._deleter.keys([self._keys.object_key(path) for path in paths])
        return answer

    @translate_errors
    @inlineCallbacks
    def open(self, path: str, offset: int = 0, length: int | None = None) -> DeferredGenerator:
        """Open a stretch of a file for reading."""
        found, body = self._writers.find_unfinished(path), None
        key = self._keys.object_key(path)
        if found is None and length != 0:
            try:
                body = yield self.client.get_object(key, offset, length)
            except RangeUnsatisfiable:
                found = yield self._lookup.find(path)
            else:
                found = StoredFile(path, body.info)
                if unfinished_size(body.info.metadata) is not None:
                    body.close()
                    found, body = (yield self._lookup.find(path)), None
        elif found is None:
            found = yield self._lookup.find(path)
        ranges = self._lookup.ranges(found, offset, length)
        return ObjectReader(self.client, self._threads, path, offset, ranges, body)

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
        answer: Deferred[IWriter]
        answer = self._writers.open_writer(path, offset, observe, destination, present, absent)
        return answer

    @translate_errors
    def remove_leftovers(self, before: float, *, dry_run: bool = False) -> Deferred[int]:
        """Abort multipart uploads that nobody will complete."""
        answer: Deferred[int] = self._deleter.uploads(self._keys.root, before, dry_run=dry_run)
        return answer

    @translate_errors
    @inlineCallbacks
    def list(self, path: str, after: str = "", limit: int = 1000) -> DeferredGenerator:
        """Fire with what lies directly in a folder."""
        entries = yield list_folder(self.client, self._keys.below(path), after, limit)
        if entries is None and path:
            raise PathNotFound(path)
        return entries or []

    @translate_errors
    @inlineCallbacks
    def list_folders(
        self, path: str, after: str = "", limit: int = 1000, containing: str = ""
    ) -> DeferredGenerator:
        """Fire with the names of the folders directly in a folder."""
        prefix = self._keys.below(path)
        if containing:
            entries = yield list_folders_with_file(self.client, prefix, containing, after, limit)
            return [entry.path for entry in entries or ()]
        names = yield list_folders(self.client, prefix, after, limit)
        if names is None and path:
            raise PathNotFound(path)
        return names or []

    @translate_errors
    def list_folders_many(
        self, paths: Sequence[str], limit: int
    ) -> Deferred[Sequence[Sequence[str]]]:
        """Fire with the names of the folders in each of many."""

        def names(path: str) -> Deferred[Sequence[str]]:
            found: Deferred[Sequence[str] | None] = self.list_folders(path, limit=limit)
            return found.addErrback(none_if_missing).addCallback(lambda names: names or ())

        answers: Deferred[Sequence[Sequence[str]]]
        answers = at_once(MAX_CONCURRENT_REQUESTS, [partial(names, path) for path in paths])
        return answers

    @translate_errors
    def list_marked(
        self, path: str, sign: str, marks: Sequence[str], after: str, limit: int
    ) -> Deferred[tuple[Sequence[str], bool] | None]:
        """Fire with folders at any depth that hold marked ones, if the store can group by those."""
        return self._marker_listing.page(self._keys.below(path), sign, marks, after, limit)

    @translate_errors
    def walk(self, prefix: str, after: str = "", limit: int = 1000) -> Deferred[Sequence[Entry]]:
        """Fire with the files below a folder."""
        keys = self._keys
        answer: Deferred[Sequence[Entry]]
        answer = walk_objects(self.client, keys.root, keys.below(prefix), after, limit)
        return answer

    @translate_errors
    def presign(self, path: str, method: str, expires: int, client: str = "") -> Deferred[str]:  # noqa: ARG002
        """Fire with a URL for GET or HEAD."""
        if method not in _PRESIGNABLE_METHODS:
            return fail(MethodUnsupported(path, f"there is no URL for {method}"))
        return self.client.presign(self._keys.object_key(path), method, expires)

    @inlineCallbacks
    def close(self) -> DeferredGenerator:
        """Close connections and threads."""
        yield self.client.close()
        yield self._threads.close()

    def _reader(self, found: StoredFile) -> ObjectReader:
        ranges = self._lookup.ranges(found, 0, None)
        return ObjectReader(self.client, self._threads, found.path, 0, ranges)


def _is_below(path: str, folders: Sequence[str]) -> bool:
    return any(path.startswith(f"{folder}/") for folder in folders)
