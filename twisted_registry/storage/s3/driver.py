"""The s3 driver: files are objects of a bucket, folders what their keys have in common.

An object that is whole is stored in one step. A file that is still being written is a plan of
pieces (:mod:`~twisted_registry.storage.s3.plan`), which every process can read and go on with;
it becomes an object when it is moved to its name, by copies inside the store. One whose name is
known beforehand is a multipart upload to it from the start, and needs no copy.

There are no locks between machines: two writers of one file keep apart because each has its own
pieces, and because of its :attr:`~twisted_registry.storage.interfaces.IWriter.mark` nobody takes
the bytes of one for those of the other.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final

from attrs import define, field
from twisted.internet.defer import Deferred, fail, inlineCallbacks, succeed
from zope.interface import implementer

from twisted_registry.storage.interfaces import (
    Entry,
    Glance,
    IStorageDriver,
    MethodUnsupported,
    Move,
    PathExists,
    PathNotFound,
    Remove,
)
from twisted_registry.storage.s3.budget import Budget
from twisted_registry.storage.s3.conditional import Conditions
from twisted_registry.storage.s3.copying import Copier, CopyRules, at_once
from twisted_registry.storage.s3.errors import NotFound, PreconditionFailed, RangeUnsatisfiable
from twisted_registry.storage.s3.failures import nothing, told
from twisted_registry.storage.s3.files import Files, Found, too_large
from twisted_registry.storage.s3.keys import Keys
from twisted_registry.storage.s3.listing import list_folder, list_folders, list_holders, walk_keys
from twisted_registry.storage.s3.marked import MarkedFolders
from twisted_registry.storage.s3.moving import Mover
from twisted_registry.storage.s3.plan import noted_size
from twisted_registry.storage.s3.reader import ObjectReader
from twisted_registry.storage.s3.removing import Remover
from twisted_registry.storage.s3.writers import LEAST_PART, Writers
from twisted_registry.storage.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.base import ReactorBase

    from twisted_registry.storage.interfaces import Change
    from twisted_registry.storage.s3.interfaces import IS3Client
    from twisted_registry.storage.s3.sinks import Steps
    from twisted_registry.storage.s3.writer import ObjectWriter
    from twisted_registry.storage.streams import IReader, IWriter

#: Bytes that all uploads of this process may hold, together.
MEMORY: Final = 40 * 1024 * 1024
#: Requests of one call that are under way at once.
AT_ONCE: Final = 24
_THREADS: Final = 8
#: What a store can be asked for by a URL alone.
_PRESIGNED: Final = frozenset({"GET", "HEAD"})


@implementer(IStorageDriver)
@define(eq=False)
class S3Driver:
    """Objects of one bucket.

    :ivar client: of the bucket.
    :ivar reactor: for the threads that hash.
    :ivar root: what all keys begin with.
    :ivar chunk: bytes of the pieces of an upload, at least :data:`LEAST_PART`.
    :ivar copying: how objects are copied.
    :ivar memory: bytes that all uploads may hold.
    """

    client: IS3Client
    _reactor: ReactorBase
    root: str = ""
    chunk: int = 10 * 1024 * 1024
    copying: CopyRules = field(factory=CopyRules)
    memory: int = MEMORY
    name: str = "s3"
    minimum_chunk: int = LEAST_PART
    presigns: ClassVar[bool] = True
    _keys: Keys = field(init=False)
    _files: Files = field(init=False)
    _copier: Copier = field(init=False)
    _remover: Remover = field(init=False)
    _conditions: Conditions = field(init=False)
    _threads: Threads = field(init=False)
    _writers: Writers = field(init=False)
    _mover: Mover = field(init=False)
    _marked: MarkedFolders = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Put the parts together."""
        self._keys = Keys(self.root)
        self._files = Files(self.client, self._keys)
        self._copier = Copier(self.client, self.copying, LEAST_PART)
        self._remover = Remover(self.client)
        self._conditions = Conditions(self.client, self._keys.root)
        self._marked = MarkedFolders(self.client, AT_ONCE)
        self._threads = Threads(self._reactor, _THREADS, "s3")
        self._writers = Writers(
            self.client, self._keys, self._files, self._copier, self._threads,
            Budget(self.memory), self.chunk, self._conclude,
        )  # fmt: skip
        self._mover = Mover(
            self.client, self._keys, self._files, self._copier, self._remover, self._writers
        )

    @told
    @inlineCallbacks
    def get(self, path: str, limit: int) -> Steps:
        """Fire with the whole content of a small file."""
        found, content = self._writers.unfinished(path), b""
        if found is None:
            found, content = yield self._files.read(path, limit)
        if found.plan is None:
            return content
        if found.size > limit:
            raise too_large(path, found.size, limit)
        pieces: list[bytes] = []
        yield self._reader(found).feed(pieces.append)
        return b"".join(pieces)

    @told
    def get_many(self, paths: Sequence[str], limit: int) -> Deferred[Sequence[bytes | None]]:
        """Fire with the contents of small files."""

        def get(path: str) -> Deferred[bytes | None]:
            content: Deferred[bytes | None] = self.get(path, limit)
            return content.addErrback(nothing)

        answers: Deferred[Sequence[bytes | None]]
        answers = at_once(AT_ONCE, [partial(get, path) for path in paths])
        return answers

    @told
    def put(self, path: str, content: bytes, *, durable: bool = True) -> Deferred[None]:  # noqa: ARG002
        """Store a small file; what a store has answered is durable."""
        return self.client.put_object(self._keys.of(path), content).addCallback(lambda _: None)

    @told
    @inlineCallbacks
    def create(self, path: str, content: bytes) -> Steps:
        """Store a small file where there is none, on stores that can be told to."""
        if not (yield self._conditions.hold()):
            raise MethodUnsupported(path, "the store has no conditional writes")
        try:
            yield self.client.put_object(self._keys.of(path), content, absent=True)
        except PreconditionFailed as error:
            raise PathExists(path) from error

    @told
    @inlineCallbacks
    def stat(self, path: str) -> Steps:
        """Fire with size and time of a file; a folder has neither."""
        if not path:
            return Entry("", None)
        found = self._writers.unfinished(path)
        if found is not None:
            return Entry(path, found.size)
        try:
            info = yield self.client.head_object(self._keys.of(path))
        except NotFound:
            listing = yield self.client.list_objects(self._keys.below(path), limit=1)
            if not listing.objects:
                raise PathNotFound(path) from None
            return Entry(path, None)
        size = noted_size(info.note)
        return Entry(path, info.size if size is None else size, info.modified)

    def glance(self, path: str) -> Glance | None:  # noqa: ARG002
        """Return None: the store is far away."""
        return None

    def unchanged(self, looks: Sequence[tuple[str, Glance]]) -> bool:  # noqa: ARG002
        """Return False: the store is far away."""
        return False

    def reopen(self, path: str, seen: Glance) -> IReader | None:  # noqa: ARG002
        """Return None: the store is far away."""
        return None

    @told
    def copy(self, source: str, destination: str) -> Deferred[None]:
        """Copy a file, inside the store."""
        return self._mover.copy(source, destination)

    @told
    def move(
        self, source: str, destination: str, *, still: Callable[[], bool] | None = None
    ) -> Deferred[None]:
        """Give a file its name; an unfinished file becomes an object."""
        return self._mover.move(source, destination, still=still)

    @told
    @inlineCallbacks
    def _conclude(self, writer: ObjectWriter, decide: Callable[[int], Sequence[Change]]) -> Steps:
        """Commit and close a file of this driver, with what is to happen in between.

        What is removed goes last, all at once and beside the last small file: it does not matter
        what of it another process finds meanwhile, because marks tell uploads apart.
        """
        size = yield writer.commit()
        changes = decide(size)
        removed = [change.path for change in changes if isinstance(change, Remove)]
        outermost = [path for path in removed if not _is_below(path, removed)]
        last = [partial(self._discard, path) for path in outermost]
        others = [change for change in changes if not isinstance(change, Remove)]
        for change in others:
            if isinstance(change, Move):
                leave = _is_below(change.source, removed)
                yield self._mover.move(change.source, change.destination, leave=leave)
            elif change is others[-1]:
                last.append(partial(self.put, change.path, change.content))
            else:
                yield self.put(change.path, change.content)
        yield at_once(AT_ONCE, last)
        yield writer.close()
        return size

    def _discard(self, path: str) -> Deferred[None]:
        gone: Deferred[None] = self.delete(path)
        return gone.addErrback(nothing)

    @told
    @inlineCallbacks
    def delete(self, path: str, *, durable: bool = True) -> Steps:  # noqa: ARG002
        """Remove a file, or a folder with all that is in it."""
        key = self._keys.of(path)
        info, below = yield at_once(
            AT_ONCE,
            [
                lambda: self.client.head_object(key).addErrback(nothing),
                lambda: self._remover.below(self._keys.below(path)),
            ],
        )
        if info is None and not below:
            raise PathNotFound(path)
        self._writers.removed(path)
        if info is not None:
            yield self.client.delete_object(key)
            if noted_size(info.note) is not None:
                yield self._remover.below(self._keys.pieces(path))

    def prune(self, paths: Sequence[str]) -> Deferred[None]:  # noqa: ARG002
        """Do nothing: there are no folders."""
        return succeed(None)

    @told
    def delete_many(self, paths: Sequence[str]) -> Deferred[None]:
        """Remove files; pieces of unfinished ones stay until their folder goes."""
        answer: Deferred[None] = self._remover.keys([self._keys.of(path) for path in paths])
        return answer

    @told
    @inlineCallbacks
    def open(self, path: str, offset: int = 0, length: int | None = None) -> Steps:
        """Open a stretch of a file for reading."""
        found, body = self._writers.unfinished(path), None
        key = self._keys.of(path)
        if found is None and length != 0:
            try:
                body = yield self.client.get_object(key, offset, length)
            except RangeUnsatisfiable:
                found = yield self._files.find(path)
            else:
                found = Found(path, body.info)
                if noted_size(body.info.note) is not None:
                    body.close()
                    found, body = (yield self._files.find(path)), None
        elif found is None:
            found = yield self._files.find(path)
        stretches = self._files.stretches(found, offset, length)
        return ObjectReader(self.client, self._threads, path, offset, stretches, body)

    @told
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
        answer = self._writers.begin(path, offset, observe, destination, present, absent)
        return answer

    @told
    def sweep(self, before: float, *, dry_run: bool = False) -> Deferred[int]:
        """Abort multipart uploads that nobody will complete."""
        answer: Deferred[int] = self._remover.uploads(self._keys.root, before, dry_run=dry_run)
        return answer

    @told
    @inlineCallbacks
    def list(self, path: str, after: str = "", limit: int = 1000) -> Steps:
        """Fire with what lies directly in a folder."""
        entries = yield list_folder(self.client, self._keys.below(path), after, limit)
        if entries is None and path:
            raise PathNotFound(path)
        return entries or []

    @told
    @inlineCallbacks
    def folders(self, path: str, after: str = "", limit: int = 1000, holding: str = "") -> Steps:
        """Fire with the names of the folders directly in a folder."""
        prefix = self._keys.below(path)
        if holding:
            entries = yield list_holders(self.client, prefix, holding, after, limit)
            return [entry.path for entry in entries or ()]
        names = yield list_folders(self.client, prefix, after, limit)
        if names is None and path:
            raise PathNotFound(path)
        return names or []

    @told
    def folders_many(self, paths: Sequence[str], limit: int) -> Deferred[Sequence[Sequence[str]]]:
        """Fire with the names of the folders in each of many."""

        def names(path: str) -> Deferred[Sequence[str]]:
            found: Deferred[Sequence[str] | None] = self.folders(path, limit=limit)
            return found.addErrback(nothing).addCallback(lambda names: names or ())

        answers: Deferred[Sequence[Sequence[str]]]
        answers = at_once(AT_ONCE, [partial(names, path) for path in paths])
        return answers

    @told
    def marked(
        self, path: str, sign: str, marks: Sequence[str], after: str, limit: int
    ) -> Deferred[tuple[Sequence[str], bool] | None]:
        """Fire with folders at any depth that hold marked ones, if the store can group by those."""
        return self._marked.page(self._keys.below(path), sign, marks, after, limit)

    @told
    def walk(self, prefix: str, after: str = "", limit: int = 1000) -> Deferred[Sequence[Entry]]:
        """Fire with the files below a folder."""
        keys = self._keys
        answer: Deferred[Sequence[Entry]]
        answer = walk_keys(self.client, keys.root, keys.below(prefix), after, limit)
        return answer

    @told
    def presign(self, path: str, method: str, expires: int, client: str = "") -> Deferred[str]:  # noqa: ARG002
        """Fire with a URL for GET or HEAD."""
        if method not in _PRESIGNED:
            return fail(MethodUnsupported(path, f"there is no URL for {method}"))
        return self.client.presign(self._keys.of(path), method, expires)

    def hold(self, name: str) -> Deferred[Callable[[], object] | None]:  # noqa: ARG002
        """Keep nobody waiting: S3 has no locks, and its users may be on any host."""
        return succeed(None)

    @inlineCallbacks
    def close(self) -> Steps:
        """Close connections and threads."""
        yield self.client.close()
        yield self._threads.close()

    def _reader(self, found: Found) -> ObjectReader:
        stretches = self._files.stretches(found, 0, None)
        return ObjectReader(self.client, self._threads, found.path, 0, stretches)


def _is_below(path: str, folders: Sequence[str]) -> bool:
    return any(path.startswith(f"{folder}/") for folder in folders)
