"""The optional interfaces of a driver, with substitutes for those that it does not provide.

Each function adapts a driver. Call it once, when the user of the driver is made.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred, DeferredList, DeferredSemaphore, succeed
from zope.interface import implementer

from twisted_registry.storage.interfaces import (
    IBulkLookup,
    IFastLookup,
    IFolders,
    IHostLock,
    ILeftovers,
    IMarkerListing,
    IPresigner,
    IReserve,
    PathInvalid,
    PathNotFound,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from twisted_registry.storage.interfaces import (
        FileVersion,
        IReader,
        IStorageDriver,
    )

_T = TypeVar("_T")
_PAGE_ENTRIES = 1000
_MAX_CONCURRENT_CALLS = 16


def fast_lookup(driver: IStorageDriver) -> IFastLookup:
    """Return the driver's :class:`IFastLookup`, or one that never knows anything."""
    return IFastLookup(driver, None) or _NoFastLookup()


def bulk_lookup(driver: IStorageDriver) -> IBulkLookup:
    """Return the driver's :class:`IBulkLookup`, or one that makes a call for each path."""
    return IBulkLookup(driver, None) or _GenericBulkLookup(driver)


def folders(driver: IStorageDriver) -> IFolders:
    """Return the driver's :class:`IFolders`, or one that does nothing."""
    return IFolders(driver, None) or _NoFolders()


def leftovers(driver: IStorageDriver) -> ILeftovers:
    """Return the driver's :class:`ILeftovers`, or one that finds nothing."""
    return ILeftovers(driver, None) or _NoLeftovers()


def host_lock(driver: IStorageDriver) -> IHostLock:
    """Return the driver's :class:`IHostLock`, or one that locks out nobody."""
    return IHostLock(driver, None) or _NoHostLock()


def with_reserve(driver: IStorageDriver) -> IStorageDriver:
    """Return the same store, whose changes may use its reserve if it has one.

    For what frees space, see :class:`~twisted_registry.storage.interfaces.IReserve`.
    """
    reserve = IReserve(driver, None)
    return driver if reserve is None else reserve.privileged


def find_presigner(driver: IStorageDriver) -> IPresigner | None:
    """Return the driver's :class:`IPresigner`, or None."""
    presigner: IPresigner | None = IPresigner(driver, None)
    return presigner


def find_marker_listing(driver: IStorageDriver) -> IMarkerListing | None:
    """Return the driver's :class:`IMarkerListing`, or None."""
    marker_listing: IMarkerListing | None = IMarkerListing(driver, None)
    return marker_listing


@implementer(IFastLookup)
class _NoFastLookup:
    def peek(self, path: str) -> FileVersion | None:  # noqa: ARG002
        """Return None."""
        return None

    def validate(self, versions: Sequence[tuple[str, FileVersion]]) -> bool:  # noqa: ARG002
        """Return False."""
        return False

    def open_cached(self, path: str, version: FileVersion) -> IReader | None:  # noqa: ARG002
        """Return None."""
        return None


@implementer(IFolders)
class _NoFolders:
    def prune(self, paths: Sequence[str]) -> Deferred[None]:  # noqa: ARG002
        """Do nothing."""
        return succeed(None)


@implementer(ILeftovers)
class _NoLeftovers:
    def remove_leftovers(self, before: float, *, dry_run: bool = False) -> Deferred[int]:  # noqa: ARG002
        """Fire with 0."""
        return succeed(0)


@implementer(IHostLock)
class _NoHostLock:
    def lock(self, name: str) -> Deferred[Callable[[], object]]:  # noqa: ARG002
        """Fire with a function that does nothing."""
        return succeed(lambda: None)


@implementer(IBulkLookup)
@frozen(eq=False)
class _GenericBulkLookup:
    """Operations on many paths by the methods that every driver has, a few at a time."""

    driver: IStorageDriver

    def get_many(self, paths: Sequence[str], limit: int) -> Deferred[Sequence[bytes | None]]:
        """Read the files."""

        async def read(path: str) -> bytes | None:
            try:
                return await self.driver.get(path, limit)
            except (PathNotFound, PathInvalid):
                return None

        return Deferred.fromCoroutine(_map_all(read, paths))

    def delete_many(self, paths: Sequence[str]) -> Deferred[None]:
        """Delete the files; a folder is an error."""

        async def delete(path: str) -> None:
            with suppress(PathNotFound):
                if (await self.driver.stat(path)).is_folder:
                    raise PathInvalid(path, "is a folder")
                await self.driver.delete(path)

        return Deferred.fromCoroutine(_map_all(delete, paths)).addCallback(lambda _: None)

    def list_folders(
        self, path: str, after: str = "", limit: int = 1000, containing: str = ""
    ) -> Deferred[Sequence[str]]:
        """List whole folders, page by page."""
        return Deferred.fromCoroutine(self._list_folders(path, after, limit, containing))

    def list_folders_many(
        self, paths: Sequence[str], limit: int
    ) -> Deferred[Sequence[Sequence[str]]]:
        """List the folders."""

        async def names(path: str) -> Sequence[str]:
            try:
                return await self._list_folders(path, "", limit, "")
            except (PathNotFound, PathInvalid):
                return ()

        return Deferred.fromCoroutine(_map_all(names, paths))

    async def _list_folders(
        self, path: str, after: str, limit: int, containing: str
    ) -> Sequence[str]:
        prefix = f"{path}/" if path else ""
        found: list[str] = []
        while len(found) < limit:
            page = await self.driver.list(path, after, _PAGE_ENTRIES)
            found += [
                entry.path
                for entry in page
                if entry.is_folder
                and (not containing or await self._has_file(f"{prefix}{entry.path}/{containing}"))
            ]
            if len(page) < _PAGE_ENTRIES:
                break
            after = page[-1].path
        return found[:limit]

    async def _has_file(self, path: str) -> bool:
        try:
            return bool((await self.driver.stat(path)).size)
        except (PathNotFound, PathInvalid):
            return False


async def _map_all(
    function: Callable[[str], Coroutine[Any, Any, _T]], paths: Sequence[str]
) -> list[_T]:
    """Call ``function`` with all paths, a few at a time; raise the first error at the end."""
    limit = DeferredSemaphore(_MAX_CONCURRENT_CALLS)

    def start(path: str) -> Deferred[_T]:
        return Deferred.fromCoroutine(function(path))

    calls = [limit.run(start, path) for path in paths]
    results: Any = await DeferredList(calls, consumeErrors=True)
    for success, failure in results:
        if not success:
            failure.raiseException()
    return [result for _, result in results]
