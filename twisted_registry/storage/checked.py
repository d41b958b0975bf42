"""A driver behind checks: valid paths, errors of one family, durations, spans."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer

from twisted_registry.storage.fallbacks import fast_lookup
from twisted_registry.storage.interfaces import (
    OPTIONAL_INTERFACES,
    Entry,
    FileVersion,
    IBulkLookup,
    IFolders,
    IHostLock,
    ILeftovers,
    IMarkerListing,
    IPresigner,
    IReserve,
    IStorageDriver,
    PathInvalid,
    StorageError,
    is_path,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.storage.interfaces import (
        IReader,
        IStorageObserver,
        IStorageTracer,
        IWriter,
    )

log = Logger()
_T = TypeVar("_T")


@implementer(IStorageDriver)
class CheckedDriver:
    """Passes calls to a driver if their paths are valid, and checks what comes back.

    A path that breaks the grammar fails with ``PathInvalid`` and never reaches the driver.
    An exception that drivers must not raise is logged and becomes a ``StorageError``. It
    provides the optional interfaces that the driver has, with the same checks.

    :ivar driver: the driver.
    :ivar clock: measures the duration of calls.
    :ivar observer: receives the durations.
    :ivar tracer: makes spans of the calls; None for none.
    """

    def __init__(
        self,
        driver: IStorageDriver,
        clock: IReactorTime,
        observer: IStorageObserver | None = None,
        tracer: IStorageTracer | None = None,
    ) -> None:
        self.driver = driver
        self.clock = clock
        self.observer = observer
        self.tracer = tracer
        self.name = driver.name
        self.min_chunk_bytes = driver.min_chunk_bytes
        self._optional: dict[Any, Any] = {
            interface: provided
            for interface in OPTIONAL_INTERFACES
            if (provided := interface(driver, None)) is not None
        }
        alsoProvides(self, *self._optional)
        lookup = fast_lookup(driver)
        self._peek = lookup.peek
        # Versions come from peek(), so their paths are valid.
        self.validate, self.open_cached = lookup.validate, lookup.open_cached

    def get(self, path: str, limit: int) -> Deferred[bytes]:
        """Check and pass on."""
        return self._call("get", (path,), self.driver.get, path, limit)

    def put(self, path: str, content: bytes, *, durable: bool = True) -> Deferred[None]:
        """Check and pass on."""
        return self._call("put", (path,), self.driver.put, path, content, durable=durable)

    def create(self, path: str, content: bytes) -> Deferred[None]:
        """Check and pass on."""
        return self._call("create", (path,), self.driver.create, path, content)

    def stat(self, path: str) -> Deferred[Entry]:
        """Check and pass on; the root is valid."""
        return self._call("stat", (path,) if path else (), self.driver.stat, path)

    def open(self, path: str, offset: int = 0, length: int | None = None) -> Deferred[IReader]:
        """Check and pass on."""
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
        """Check and pass on."""
        others = {"destination": destination, "present": present, "absent": absent}
        paths = [path, *(other for other in others.values() if other is not None)]
        return self._call("writer", paths, self.driver.writer, path, offset, observe, **others)

    def copy(self, source: str, destination: str) -> Deferred[None]:
        """Check and pass on."""
        paths = (source, destination)
        return self._call("copy", paths, self.driver.copy, source, destination)

    def move(
        self, source: str, destination: str, *, still: Callable[[], bool] | None = None
    ) -> Deferred[None]:
        """Check and pass on."""
        paths = (source, destination)
        return self._call("move", paths, self.driver.move, source, destination, still=still)

    def delete(self, path: str, *, durable: bool = True) -> Deferred[None]:
        """Check and pass on; the root is not valid."""
        return self._call("delete", (path,), self.driver.delete, path, durable=durable)

    def list(self, path: str, after: str = "", limit: int = 1000) -> Deferred[Sequence[Entry]]:
        """Check and pass on; the root is valid."""
        paths = (path,) if path else ()
        return self._call("list", paths, self.driver.list, path, after, limit)

    def walk(self, prefix: str, after: str = "", limit: int = 1000) -> Deferred[Sequence[Entry]]:
        """Check and pass on; the root is valid."""
        paths = (prefix,) if prefix else ()
        return self._call("walk", paths, self.driver.walk, prefix, after, limit)

    def close(self) -> Deferred[None]:
        """Close the driver."""
        return self._call("close", (), self.driver.close)

    def peek(self, path: str) -> FileVersion | None:
        """Check and pass on; no file has an invalid path."""
        return self._peek(path) if is_path(path) else None

    def get_many(self, paths: Sequence[str], limit: int) -> Deferred[Sequence[bytes | None]]:
        """Check and pass on; one invalid path fails the call."""
        return self._call_many("get_many", paths, self._optional[IBulkLookup].get_many, limit)

    def delete_many(self, paths: Sequence[str]) -> Deferred[None]:
        """Check and pass on; one invalid path fails the call."""
        return self._call_many("delete_many", paths, self._optional[IBulkLookup].delete_many)

    def list_folders(
        self, path: str, after: str = "", limit: int = 1000, containing: str = ""
    ) -> Deferred[Sequence[str]]:
        """Check and pass on; the root is valid."""
        paths = [given for given in (path, containing) if given]
        method = self._optional[IBulkLookup].list_folders
        return self._call("folders", paths, method, path, after, limit, containing)

    def list_folders_many(
        self, paths: Sequence[str], limit: int
    ) -> Deferred[Sequence[Sequence[str]]]:
        """Check and pass on; one invalid path fails the call."""
        method = self._optional[IBulkLookup].list_folders_many
        return self._call_many("folders_many", paths, method, limit)

    def prune(self, paths: Sequence[str]) -> Deferred[None]:
        """Check and pass on; one invalid path fails the call."""
        return self._call_many("prune", paths, self._optional[IFolders].prune)

    def remove_leftovers(self, before: float, *, dry_run: bool = False) -> Deferred[int]:
        """Pass on."""
        method = self._optional[ILeftovers].remove_leftovers
        return self._call("sweep", (), method, before, dry_run=dry_run)

    def presign(self, path: str, method: str, expires: int, client: str = "") -> Deferred[str]:
        """Check and pass on."""
        presign = self._optional[IPresigner].presign
        return self._call("presign", (path,), presign, path, method, expires, client)

    def lock(self, name: str) -> Deferred[Callable[[], object]]:
        """Pass on; the name is not a path."""
        return self._call("hold", (), self._optional[IHostLock].lock, name)

    @property
    def privileged(self) -> IStorageDriver:
        """The driver that may use the reserve, behind the same checks."""
        privileged = self._optional[IReserve].privileged
        return CheckedDriver(privileged, self.clock, self.observer, self.tracer)

    def refill(self, *, create: bool = True) -> Deferred[bool]:
        """Pass on."""
        return self._call("refill", (), self._optional[IReserve].refill, create=create)

    def list_marked(
        self, path: str, sign: str, marks: Sequence[str], after: str, limit: int
    ) -> Deferred[tuple[Sequence[str], bool] | None]:
        """Check and pass on; the markers must be valid, too."""
        paths = (path, sign, *marks)
        method = self._optional[IMarkerListing].list_marked
        return self._call("marked", paths, method, path, sign, marks, after, limit)

    def _call_many(
        self,
        action: str,
        paths: Sequence[str],
        method: Callable[..., Deferred[_T]],
        *arguments: Any,
    ) -> Deferred[_T]:
        """Call a method of the driver whose first argument is ``paths``, if all are valid."""
        paths = tuple(paths)
        return self._call(action, paths, method, paths, *arguments)

    def _call(
        self,
        action: str,
        paths: Sequence[str],
        method: Callable[..., Deferred[_T]],
        *arguments: Any,
        **options: Any,
    ) -> Deferred[_T]:
        """Call a method of the driver if ``paths`` are valid.

        :param action: what the observer and the log call it.
        """
        for path in paths:
            if not is_path(path):
                return fail(PathInvalid(path, "is not a path"))
        observer, tracer = self.observer, self.tracer
        started = 0.0 if observer is None else self.clock.seconds()
        try:
            if tracer is None:
                answer = method(*arguments, **options)
            else:
                call = partial(method, *arguments, **options)
                path = paths[0] if len(paths) == 1 else ""
                answer = tracer.run(self.name, action, path, call, _is_breakdown)
        except Exception:  # noqa: BLE001 - _explain() handles any
            answer = fail()
        if observer is not None:
            answer.addBoth(self._report, observer, action, started)
        elif answer.called and not isinstance(answer.result, Failure | Deferred):
            # It has succeeded: there is no error to translate.
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
    """Return whether an error means that the store is broken, and not the state of a file."""
    return not isinstance(error, CancelledError) and (
        type(error) is StorageError or not isinstance(error, StorageError)
    )
