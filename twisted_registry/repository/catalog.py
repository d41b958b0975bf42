"""The catalog: the names of all repositories, in the order of whole names.

``-`` and ``.`` sort before ``/``, so the order is ``a``, ``a-b``, ``a.b``, ``a/b``, which no
traversal of the tree yields by itself. The walk takes two kinds of steps in every folder: the
repository ``x`` itself, and all names below it, ``x/``. All names below ``x/`` sort between ``x/``
and the next step. So the folder ``x`` waits while the names that begin with ``x-`` and ``x.`` pass;
of the waiting folders, the last is visited first. The walk begins at the start of the page, and
stops at its end.

Each request to the store asks about many folders: those that follow in the same folder, and those
that are known to be below them.
"""

from __future__ import annotations

from bisect import bisect_right
from contextlib import suppress
from itertools import chain, islice
from typing import TYPE_CHECKING

from attrs import define, field

from twisted_registry.oci.names import MAX_NAME_LENGTH, is_component, is_name
from twisted_registry.repository import layout
from twisted_registry.repository.errors import translate_storage_errors
from twisted_registry.storage.fallbacks import bulk_lookup, find_marker_listing, folders
from twisted_registry.storage.interfaces import PathNotFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from twisted_registry.storage.interfaces import IBulkLookup, IStorageDriver

#: Folders in one request, at most.
_MAX_BATCH_FOLDERS = 1024
#: Folders in the first request, at least. Where few folders are repositories, it doubles with every
#: request.
_FIRST_BATCH_FOLDERS = 16
#: Names that a request returns for each folder. A folder with more is listed by itself.
_MAX_SUBFOLDERS = 64
#: Folders that are fetched in advance, at most; each takes some hundred bytes.
_MAX_PREFETCHED = 4000


async def walk_repositories(
    driver: IStorageDriver, after: str = "", markers: Sequence[str] = layout.REPOSITORY_MARKERS
) -> AsyncIterator[str]:
    """Yield the names of repositories in order.

    :param after: yield only names greater than this; it need not be a repository.
    :param markers: see :func:`is_repository`.
    :raises RegistryError: if the store fails.
    """
    more = True
    while more:
        names, more = await page_by_walk(driver, after, _MAX_BATCH_FOLDERS, markers)
        for name in names:
            yield name
            after = name


@translate_storage_errors
async def page_by_walk(
    driver: IStorageDriver,
    after: str,
    limit: int,
    markers: Sequence[str] = layout.REPOSITORY_MARKERS,
) -> tuple[list[str], bool]:
    """Return one page of the names of repositories, and whether there are more.

    :param after: return only names greater than this; it need not be a repository.
    :param limit: the number of names, at most.
    :param markers: see :func:`is_repository`.
    :raises RegistryError: if the store fails.
    """
    # One more than the limit tells whether there are more.
    walk = _CatalogWalk(driver, after, limit + 1, markers)
    await walk.visit("", None)
    return walk.found[:limit], len(walk.found) > limit


@translate_storage_errors
async def list_repositories(
    driver: IStorageDriver, after: str, limit: int
) -> tuple[list[str], bool]:
    """Return a page like :func:`page_by_walk`, with as few requests as the store allows.

    A driver with :class:`~twisted_registry.storage.interfaces.IMarkerListing` needs at most n + d
    listings for a page of n names of d levels, 24 at a time: one for each name, and one for each
    level. More are necessary for folders that have nothing but uploads (one for each), for each
    thousand such folders (one for each prefix of the last name of the page), and for folders that
    cannot be repositories. With other drivers the tree is walked.

    A full page may claim that there are more if only uploads follow.

    :param limit: the number of names, at most; 0 returns none.
    :raises RegistryError: if the store fails.
    """
    marker_listing = find_marker_listing(driver)
    if not limit or marker_listing is None:
        return await page_by_walk(driver, after, limit)
    found: list[str] = []
    more = True
    while more and len(found) < limit:
        answer = await marker_listing.list_marked(
            layout.REPOSITORIES,
            layout.RESERVED_PREFIX,
            layout.REPOSITORY_MARKERS,
            after,
            limit - len(found),
        )
        if answer is None:
            rest, more = await page_by_walk(driver, after, limit - len(found))
            return found + rest, more
        names, more = answer
        found += filter(is_name, names)
        after = names[-1] if names else after
    return found, more


@translate_storage_errors
async def mark_repository(driver: IStorageDriver, name: str) -> None:
    """Make a repository one for CNCF Distribution 2.8.3 too, even if it links no blob."""
    try:
        await driver.stat(layout.layers_folder(name))
    except PathNotFound:
        await driver.put(layout.layers_marker(name), b"")


async def prune_folders(driver: IStorageDriver, name: str) -> None:
    """Remove the folders of a repository and of those above it that are empty.

    Its folder of uploads is removed too if it is empty. A concurrent push makes them again.

    :raises StorageError: if the store fails.
    """
    parts = name.split("/")
    above = ["/".join(parts[:end]) for end in range(len(parts), 0, -1)]
    paths = [layout.uploads_folder(name), *map(layout.repository_folder, above)]
    await folders(driver).prune(paths)


@translate_storage_errors
async def is_repository(
    driver: IStorageDriver, name: str, markers: Sequence[str] = layout.REPOSITORY_MARKERS
) -> bool:
    """Return whether the store has a repository of a name.

    :param markers: names of folders. A folder that contains one of them is a repository.
    :raises RegistryError: if the store fails.
    """
    folder = layout.repository_folder(name)
    for marker in markers:
        with suppress(PathNotFound):
            if (await driver.stat(f"{folder}/{marker}")).is_folder:
                return True
    return False


@define(eq=False, repr=False)
class _CatalogWalk:
    """A walk that ends when ``limit`` names are found.

    :ivar found: names greater than ``after``, in order.
    """

    driver: IStorageDriver
    after: str
    limit: int
    markers: Sequence[str]
    found: list[str] = field(init=False, factory=list)
    _bulk: IBulkLookup = field(init=False)
    #: folders that the walk will come to, and their subfolders
    _prefetched: dict[str, Sequence[str]] = field(init=False, factory=dict)
    #: the children of prefetched folders that are not prefetched, in the order to fetch them
    _frontier: dict[str, None] = field(init=False, factory=dict)
    _batch_folders: int = field(init=False, default=_FIRST_BATCH_FOLDERS)

    @_bulk.default
    def _adapt_driver(self) -> IBulkLookup:
        return bulk_lookup(self.driver)

    async def visit(self, prefix: str, subfolders: Sequence[str] | None) -> None:
        """Find the names that begin with ``prefix``, which is empty or ends with a slash.

        :param subfolders: all folders there, in order, if they are known.
        """
        # Of the folders at or before ``last``, only those that are a prefix of it have names below
        # them that are greater than ``after``.
        last = self.after[len(prefix) :] if self.after.startswith(prefix) else ""
        waiting = [child async for child in self._children_to_resume(prefix, last)]
        while not self._is_full():
            limit = self._request_folders()
            names = await self._next_folders(prefix, subfolders, last, limit)
            paths = _repository_names(prefix, names)
            for position, path in enumerate(paths):
                while waiting and f"{waiting[-1][0]}/" < path:
                    await self._visit_children(*waiting.pop())
                if self._is_full():
                    return
                if path not in self._prefetched:
                    await self._prefetch(paths[position:])
                children = self._prefetched.pop(path)
                if await self._is_marked(path, children):
                    self.found.append(path)
                waiting += _folder_to_visit(path, children)
            if len(names) < limit:
                break
            last = names[-1]
        while waiting and not self._is_full():
            await self._visit_children(*waiting.pop())

    def _is_full(self) -> bool:
        return len(self.found) >= self.limit

    def _request_folders(self) -> int:
        """Return the folders for one request: those that the page needs if all are repositories."""
        return min(max(self.limit - len(self.found), self._batch_folders), _MAX_BATCH_FOLDERS)

    async def _visit_children(self, path: str, subfolders: Sequence[str] | None) -> None:
        if not self._is_full():
            await self.visit(f"{path}/", subfolders)

    async def _children_to_resume(
        self, prefix: str, last: str
    ) -> AsyncIterator[tuple[str, Sequence[str] | None]]:
        """Yield the folders at or before ``last`` that may have names after it below them."""
        component = last.partition("/")[0]
        # "a" and "a-b" for "a-b-c": a/x and a-b/x sort after it.
        prefixes = [component[:end] for end in range(1, len(component)) if component[end] < "/"]
        paths = _repository_names(prefix, [*prefixes, component][:MAX_NAME_LENGTH])
        for position, path in enumerate(paths):
            if path not in self._prefetched:
                await self._prefetch(paths[position:])
            for child in _folder_to_visit(path, self._prefetched.pop(path)):
                yield child

    async def _next_folders(
        self, prefix: str, subfolders: Sequence[str] | None, last: str, limit: int
    ) -> Sequence[str]:
        """Return the next names of folders in a folder."""
        if subfolders is not None:
            start = bisect_right(subfolders, last)
            return subfolders[start : start + limit]
        folder = layout.repository_folder(prefix[:-1]) if prefix else layout.REPOSITORIES
        try:
            return await self._bulk.list_folders(folder, last, limit)
        except PathNotFound:
            return ()

    async def _is_marked(self, path: str, subfolders: Sequence[str]) -> bool:
        if any(marker in subfolders for marker in self.markers):
            return True
        return _is_truncated(subfolders) and await is_repository(self.driver, path, self.markers)

    async def _prefetch(self, upcoming: Sequence[str]) -> None:
        """Fetch the subfolders of folders, and level by level those of the folders below them.

        :param upcoming: the folders that the walk comes to next; the first of them now.
        """
        limit = self._request_folders()
        self._batch_folders = min(2 * self._batch_folders, _MAX_BATCH_FOLDERS)
        unknown = (path for path in upcoming if path not in self._prefetched)
        requested = list(islice(dict.fromkeys(chain(unknown, self._frontier)), limit))
        while requested:
            paths = [layout.repository_folder(path) for path in requested]
            found = await self._bulk.list_folders_many(paths, _MAX_SUBFOLDERS)
            self._prefetched.update(zip(requested, found, strict=True))
            self._move_frontier(requested, found)
            if len(self._prefetched) > _MAX_PREFETCHED:
                return
            requested = list(islice(self._frontier, limit))

    def _move_frontier(self, requested: Sequence[str], found: Sequence[Sequence[str]]) -> None:
        for path, subfolders in zip(requested, found, strict=True):
            self._frontier.pop(path, None)
            # What does not fit is fetched when the walk comes to it.
            if len(self._frontier) < _MAX_PREFETCHED:
                self._frontier.update(dict.fromkeys(_children(path, subfolders)))


def _repository_names(prefix: str, names: Sequence[str]) -> list[str]:
    """Return the whole names of the folders that can be repositories."""
    longest = MAX_NAME_LENGTH - len(prefix)
    return [prefix + name for name in names if len(name) <= longest and is_component(name)]


def _children(path: str, subfolders: Sequence[str]) -> list[str]:
    """Return the names below a folder, or none if not all of its subfolders are known."""
    folders = () if _is_truncated(subfolders) else _possible_components(subfolders)
    return _repository_names(f"{path}/", folders) if folders else []


def _possible_components(subfolders: Sequence[str]) -> list[str]:
    """Return the folders that can be part of a name: not those that belong to a repository."""
    return [name for name in subfolders if not name.startswith(layout.RESERVED_PREFIX)]


def _is_truncated(subfolders: Sequence[str]) -> bool:
    return len(subfolders) == _MAX_SUBFOLDERS


def _folder_to_visit(
    path: str, subfolders: Sequence[str]
) -> list[tuple[str, Sequence[str] | None]]:
    """Return a folder and its subfolders, or an empty list if no repository can be below it."""
    if _is_truncated(subfolders):
        return [(path, None)]
    folders = _possible_components(subfolders)
    return [(path, folders)] if folders else []
