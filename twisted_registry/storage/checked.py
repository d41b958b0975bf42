"""What every driver needs, once: paths that keep the grammar, errors of one family, times."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_registry.storage.interfaces import (
    Entry,
    FileVersion,
    IStorageDriver,
    PathInvalid,
    StorageError,
    is_path,
    is_path_uncached,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.storage.interfaces import IReader, IStorageObserver, IWriter

log = Logger()
_T = TypeVar("_T")


@implementer(IStorageDriver)
class CheckedDriver:
    """A driver behind a guard.

    A path that breaks the grammar never reaches the driver and is :class:`PathInvalid`. An
    exception that no driver may raise is logged and becomes a :class:`StorageError`.

    :ivar driver: the driver itself.
    :ivar clock: measures how long calls take.
    :ivar observer: is told.
    """

    def __init__(
        self, driver: IStorageDriver, clock: IReactorTime, observer: IStorageObserver | None = None
    ) -> None:
        self.driver = driver
        self.clock = clock
        self.observer = observer
        self.name = driver.name
        self.min_chunk_bytes = driver.min_chunk_bytes
        self.presigns = driver.presigns

    def get(self, path: str, limit: int) -> Deferred[bytes]:
        """Fire with the whole content of a small file."""
        return self._call("get", (path,), self.driver.get, path, limit)

    def get_many(self, paths: Sequence[str], limit: int) -> Deferred[Sequence[bytes | None]]:
        """Fire with the contents of small files; fail if one of the paths breaks the grammar."""
        return self._call_many("get_many", paths, self.driver.get_many, limit)

    def put(self, path: str, content: bytes, *, durable: bool = True) -> Deferred[None]:
        """Store a small file."""
        return self._call("put", (path,), self.driver.put, path, content, durable=durable)

    def create(self, path: str, content: bytes) -> Deferred[None]:
        """Store a small file where there is none."""
        return self._call("create", (path,), self.driver.create, path, content)

    def stat(self, path: str) -> Deferred[Entry]:
        """Fire with size and time of a file or folder."""
        return self._call("stat", (path,) if path else (), self.driver.stat, path)

    def peek(self, path: str) -> FileVersion | None:
        """Look at a file at once."""
        return self.driver.peek(path) if is_path(path) else None

    def validate(self, versions: Sequence[tuple[str, FileVersion]]) -> bool:
        """Look at files that were seen before: a path that broke the grammar was not."""
        return self.driver.validate(versions)

    def open_cached(self, path: str, version: FileVersion) -> IReader | None:
        """Open a file that looks as it did, at once."""
        return self.driver.open_cached(path, version)

    def copy(self, source: str, destination: str) -> Deferred[None]:
        """Copy a file."""
        paths = (source, destination)
        return self._call("copy", paths, self.driver.copy, source, destination)

    def move(
        self, source: str, destination: str, *, still: Callable[[], bool] | None = None
    ) -> Deferred[None]:
        """Move a file."""
        paths = (source, destination)
        return self._call("move", paths, self.driver.move, source, destination, still=still)

    def delete(self, path: str, *, durable: bool = True) -> Deferred[None]:
        """Remove a file or folder, but never the root."""
        return self._call("delete", (path,), self.driver.delete, path, durable=durable)

    def prune(self, paths: Sequence[str]) -> Deferred[None]:
        """Remove folders that are empty."""
        return self._call_many("prune", paths, self.driver.prune)

    def delete_many(self, paths: Sequence[str]) -> Deferred[None]:
        """Remove files; none at all if one of the paths breaks the grammar."""
        return self._call_many("delete_many", paths, self.driver.delete_many)

    def open(self, path: str, offset: int = 0, length: int | None = None) -> Deferred[IReader]:
        """Open a stretch of a file for reading."""
        return self._call("open", (path,), self.driver.open, path, offset, length)

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
        beside = {"destination": destination, "present": present, "absent": absent}
        paths = [path, *(one for one in beside.values() if one is not None)]
        return self._call("writer", paths, self.driver.writer, path, offset, observe, **beside)

    def remove_leftovers(self, before: float, *, dry_run: bool = False) -> Deferred[int]:
        """Remove what calls that a crash cut off have left."""
        return self._call(
            "sweep", (), partial(self.driver.remove_leftovers, dry_run=dry_run), before
        )

    def list(self, path: str, after: str = "", limit: int = 1000) -> Deferred[Sequence[Entry]]:
        """Fire with what lies directly in a folder."""
        paths = (path,) if path else ()
        return self._call("list", paths, self.driver.list, path, after, limit)

    def list_folders(
        self, path: str, after: str = "", limit: int = 1000, holding: str = ""
    ) -> Deferred[Sequence[str]]:
        """Fire with the names of the folders directly in a folder."""
        paths = tuple(one for one in (path, holding) if one)
        return self._call("folders", paths, self.driver.list_folders, path, after, limit, holding)

    def list_folders_many(
        self, paths: Sequence[str], limit: int
    ) -> Deferred[Sequence[Sequence[str]]]:
        """Fire with the names of the folders in many; fail if a path breaks the grammar."""
        return self._call_many("folders_many", paths, self.driver.list_folders_many, limit)

    def list_marked(
        self, path: str, sign: str, marks: Sequence[str], after: str, limit: int
    ) -> Deferred[tuple[Sequence[str], bool] | None]:
        """Fire with folders at any depth that hold marked ones, or with None."""
        paths = (path, sign, *marks)
        return self._call("marked", paths, self.driver.list_marked, path, sign, marks, after, limit)

    def walk(self, prefix: str, after: str = "", limit: int = 1000) -> Deferred[Sequence[Entry]]:
        """Fire with the files below a folder."""
        paths = (prefix,) if prefix else ()
        return self._call("walk", paths, self.driver.walk, prefix, after, limit)

    def presign(self, path: str, method: str, expires: int, client: str = "") -> Deferred[str]:
        """Fire with a URL for the file."""
        return self._call("presign", (path,), self.driver.presign, path, method, expires, client)

    def lock(self, name: str) -> Deferred[Callable[[], object] | None]:
        """Keep other processes waiting."""
        return self._call("hold", (), self.driver.lock, name)

    def close(self) -> Deferred[None]:
        """Close the driver."""
        return self._call("close", (), self.driver.close)

    def _call_many(
        self,
        action: str,
        paths: Sequence[str],
        method: Callable[..., Deferred[_T]],
        *arguments: Any,
    ) -> Deferred[_T]:
        """Call with a list of paths, so many that remembering them would push out the others."""
        paths = tuple(paths)
        for path in paths:
            if not is_path_uncached(path):
                return fail(PathInvalid(path, "is not a path"))
        return self._call(action, paths[:1], method, paths, *arguments)

    def _call(
        self,
        action: str,
        paths: Sequence[str],
        method: Callable[..., Deferred[_T]],
        *arguments: Any,
        **options: Any,
    ) -> Deferred[_T]:
        for path in paths:
            if not is_path(path):
                return fail(PathInvalid(path, "is not a path"))
        observer = self.observer
        started = 0.0 if observer is None else self.clock.seconds()
        try:
            answer = method(*arguments, **options)
        except Exception:  # noqa: BLE001 (whatever it is, it is explained below)
            answer = fail()
        if observer is not None:
            answer.addBoth(self._report, observer, action, started)
        elif answer.called and not isinstance(answer.result, Failure | Deferred):
            # There is nothing to explain, nor will be.
            return answer
        return answer.addErrback(self._explain, action, paths[0] if paths else "")

    def _report(
        self, result: _T | Failure, observer: IStorageObserver, action: str, started: float
    ) -> _T | Failure:
        failed = isinstance(result, Failure) and _is_breakdown(result.value)
        observer.call_ended(self.name, action, self.clock.seconds() - started, failed)
        return result

    def _explain(self, failure: Failure, action: str, path: str) -> Failure:
        error = failure.value
        if isinstance(error, (StorageError, CancelledError)):
            return failure
        log.failure(
            "{driver} driver: {action} of {path!r} failed",
            failure,
            driver=self.name,
            action=action,
            path=path,
        )
        raise StorageError(path, f"{self.name}: {error!r}") from error


def _is_breakdown(error: BaseException | None) -> bool:
    """Whether an error says that the store broke down, rather than how things are."""
    return not isinstance(error, CancelledError) and (
        type(error) is StorageError or not isinstance(error, StorageError)
    )
