"""All repositories, in the order of their whole names.

``-`` and ``.`` sort before ``/``, so ``a``, ``a-b``, ``a.b``, ``a/b`` is the order, which no walk
of the tree gives. In every folder there are two kinds of steps: the repository ``x`` itself, and
all below it as ``x/``. Whatever lies below ``x/`` sorts between ``x/`` and the next step. So all
below ``x`` waits while the names that begin with ``x-`` and ``x.`` pass, and what waits last goes
first. The walk begins where a page begins, and stops after it.

The store is asked about many folders at once: those that come next in the same folder, and those
that are known to lie below them.

Repositories that hold nothing, and how they leave the catalog.

A repository is listed for its folders. When its manifests, tags and blobs are gone, these may be
left: the mark that Distribution 2.8.3 wants, links of referrers, empty folders. Uploads are no
content: they stay, and a repository that has nothing else is not listed.

It is safe beside pushes by the order of steps. A manifest PUT writes its link and then looks for
the mark; here the mark goes and then links are looked for. So one of the two sees the other.
"""

from __future__ import annotations

from bisect import bisect_right
from contextlib import suppress
from itertools import chain, islice
from typing import TYPE_CHECKING

from twisted_registry.oci.names import MAX_NAME_LENGTH, is_component, is_name
from twisted_registry.repository import layout
from twisted_registry.repository.errors import translate_storage_errors
from twisted_registry.storage.fallbacks import bulk_lookup, find_marker_listing, folders
from twisted_registry.storage.interfaces import PathNotFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from twisted_registry.storage.interfaces import IBulkLookup, IStorageDriver

#: Folders that the store is asked about at once, and how many at the first time at least: where
#: few of them are repositories, more and more are asked about.
_MAX_BATCH_FOLDERS = 1024
_FIRST_BATCH_FOLDERS = 16
#: Names that it answers for each: a folder with more is read by itself.
_MAX_SUBFOLDERS = 64
#: Folders that are read ahead at most, some hundred bytes each.
_MAX_PREFETCHED = 4000


async def walk_repositories(
    driver: IStorageDriver, after: str = "", markers: Sequence[str] = layout.REPOSITORY_MARKERS
) -> AsyncIterator[str]:
    """Yield the names of repositories in order.

    :param after: only names greater than this; it need not be one.
    :param marks: what makes a folder count, see :func:`is_repository`.
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
    """One page of the names of repositories, and whether there are more.

    :param after: only names greater than this; it need not be one.
    :param marks: what makes a folder count, see :func:`is_repository`.
    """
    # One more than asked for tells whether there are more.
    walking = _CatalogWalk(driver, after, limit + 1, markers)
    await walking.below("", None)
    return walking.found[:limit], len(walking.found) > limit


@translate_storage_errors
async def list_repositories(
    driver: IStorageDriver, after: str, limit: int
) -> tuple[list[str], bool]:
    """One page for those who look, as :func:`page`, by as few requests as a bucket allows.

    Over a bucket that groups keys by a delimiter of two characters, a page of n names of d levels
    takes at most n + d listings, one for each name and one for all of them, 24 at a time. More are
    necessary where folders hold no more than uploads that were begun (one for each), behind
    every thousandth such folder (one for each of the names that the last one of the page begins
    with), and where somebody made folders that can not be repositories. Elsewhere the tree is
    walked: a listing for each folder that leads to a name.

    A page that is full may say that there are more where only uploads that were begun follow.

    :param limit: names; 0 answers none.
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
    """Make a repository one for Distribution 2.8.3 as well, though it links no blob."""
    try:
        await driver.stat(layout.layers(name))
    except PathNotFound:
        await driver.put(layout.layers_marker(name), b"")


@translate_storage_errors
async def is_repository(
    driver: IStorageDriver, name: str, markers: Sequence[str] = layout.REPOSITORY_MARKERS
) -> bool:
    """Whether the store knows a repository of this name.

    :param marks: the names of folders of which one is enough.
    """
    return await _folder_has_marker(driver, name, markers)


async def _folder_has_marker(driver: IStorageDriver, name: str, markers: Sequence[str]) -> bool:
    folder = layout.repository(name)
    for mark in markers:
        with suppress(PathNotFound):
            if (await driver.stat(f"{folder}/{mark}")).is_folder:
                return True
    return False


class _CatalogWalk:
    """A walk until ``limit`` names are found.

    :ivar found: names greater than ``after``, in order.
    """

    def __init__(
        self, driver: IStorageDriver, after: str, limit: int, markers: Sequence[str]
    ) -> None:
        self.driver = driver
        self.bulk = bulk_lookup(driver)
        self.after = after
        self.limit = limit
        self.markers = markers
        self.found: list[str] = []
        #: folders that the store was asked about and that the walk has not come to: what is in them
        self._prefetched: dict[str, Sequence[str]] = {}
        self._batch_size: int = _FIRST_BATCH_FOLDERS

    async def below(self, prefix: str, subfolders: Sequence[str] | None) -> None:
        """Find the names that begin with ``prefix``.

        :param inside: all folders there, in order, if they are known.
        """
        # Nothing in this folder is both at or before it and greater than ``after``, but what is
        # below the folders whose names it begins with.
        last = self.after[len(prefix) :] if self.after.startswith(prefix) else ""
        waiting = [(path, below) async for path, below in self._children_to_resume(prefix, last)]
        while not self._is_full():
            size = self._at_once()
            names = await self._next(prefix, subfolders, last, size)
            paths = _paths(prefix, names)
            for position, path in enumerate(paths):
                while waiting and f"{waiting[-1][0]}/" < path:
                    await self._visit_children(*waiting.pop())
                if self._is_full():
                    return
                if path not in self._prefetched:
                    await self._prefetch(paths[position:])
                below = self._prefetched.pop(path)
                if await self._has_marker(path, below):
                    self.found.append(path)
                waiting += _child_to_visit(path, below)
            if len(names) < size:
                break
            last = names[-1]
        while waiting and not self._is_full():
            await self._visit_children(*waiting.pop())

    def _is_full(self) -> bool:
        return len(self.found) >= self.limit

    def _at_once(self) -> int:
        """How many folders to ask about: as many as the page can need, if all are repositories."""
        return min(max(self.limit - len(self.found), self._batch_size), _MAX_BATCH_FOLDERS)

    async def _visit_children(self, path: str, subfolders: Sequence[str] | None) -> None:
        if not self._is_full():
            await self.below(f"{path}/", subfolders)

    async def _children_to_resume(
        self, prefix: str, last: str
    ) -> AsyncIterator[tuple[str, Sequence[str] | None]]:
        """Yield the folders at or before ``last`` below which there may be names after it."""
        own = last.partition("/")[0]
        # "a" and "a-b" for "a-b-c": a/x and a-b/x sort after it.
        begins = [own[:end] for end in range(1, len(own)) if own[end] < "/"]
        paths = _paths(prefix, [*begins, own][:MAX_NAME_LENGTH])
        for position, path in enumerate(paths):
            if path not in self._prefetched:
                await self._prefetch(paths[position:])
            for entrance in _child_to_visit(path, self._prefetched.pop(path)):
                yield entrance

    async def _next(
        self, prefix: str, subfolders: Sequence[str] | None, last: str, size: int
    ) -> Sequence[str]:
        """The next names of folders in a folder."""
        if subfolders is not None:
            start = bisect_right(subfolders, last)
            return subfolders[start : start + size]
        folder = layout.repository(prefix[:-1]) if prefix else layout.REPOSITORIES
        try:
            return await self.bulk.list_folders(folder, last, size)
        except PathNotFound:
            return ()

    async def _has_marker(self, path: str, subfolders: Sequence[str]) -> bool:
        if any(mark in subfolders for mark in self.markers):
            return True
        return _is_truncated(subfolders) and await _folder_has_marker(
            self.driver, path, self.markers
        )

    async def _prefetch(self, upcoming: Sequence[str]) -> None:
        """Ask about folders, and level by level about what is below them.

        :param upcoming: those that the walk comes to next, the first of them now.
        """
        size = self._at_once()
        self._batch_size = min(2 * self._batch_size, _MAX_BATCH_FOLDERS)
        unknown = (path for path in upcoming if path not in self._prefetched)
        asked = list(islice(chain(unknown, self._not_prefetched()), size))
        while asked:
            folders = [layout.repository(path) for path in asked]
            found = await self.bulk.list_folders_many(folders, _MAX_SUBFOLDERS)
            self._prefetched.update(zip(asked, found, strict=True))
            if len(self._prefetched) > _MAX_PREFETCHED:
                return
            deeper = chain.from_iterable(map(_below, asked, found))
            asked = list(islice(deeper, size))

    def _not_prefetched(self) -> Iterator[str]:
        """Yield what is below the folders to come and was not asked about."""
        for path, subfolders in self._prefetched.items():
            for below in _below(path, subfolders):
                if below not in self._prefetched:
                    yield below


def _paths(prefix: str, names: Sequence[str]) -> list[str]:
    """The names in a folder that can be those of repositories, whole."""
    longest = MAX_NAME_LENGTH - len(prefix)
    return [prefix + name for name in names if len(name) <= longest and is_component(name)]


def _below(path: str, subfolders: Sequence[str]) -> list[str]:
    """What is below a folder, if all that is in it is known."""
    folders = () if _is_truncated(subfolders) else _possible_components(subfolders)
    return _paths(f"{path}/", folders) if folders else []


def _possible_components(subfolders: Sequence[str]) -> list[str]:
    """The folders that could belong to a name: not those that a repository consists of."""
    return [name for name in subfolders if not name.startswith("_")]


def _is_truncated(subfolders: Sequence[str]) -> bool:
    return len(subfolders) == _MAX_SUBFOLDERS


def _child_to_visit(path: str, subfolders: Sequence[str]) -> list[tuple[str, Sequence[str] | None]]:
    """A folder and what is in it, if anything that could be a repository is."""
    if _is_truncated(subfolders):
        return [(path, None)]
    folders = _possible_components(subfolders)
    return [(path, folders)] if folders else []


_PAGE_ENTRIES = 1000


@translate_storage_errors
async def prune_empty_repository(driver: IStorageDriver, name: str) -> bool:
    """Let a repository leave the catalog if it holds nothing; return whether it has left.

    A file of which nobody knows what it is counts as something.
    """
    mark = layout.layers_marker(name)
    bulk, pruner = bulk_lookup(driver), folders(driver)
    if await _has_files(driver, layout.layers(name), except_path=mark):
        return False
    if await _has_files(driver, layout.manifests(name)):
        return False
    # Only what was there when it was looked at: a push may bring more.
    while entries := await driver.walk(layout.all_referrers(name), "", _PAGE_ENTRIES):
        await bulk.delete_many([entry.path for entry in entries])
        if len(entries) < _PAGE_ENTRIES:
            break
    await bulk.delete_many([mark])
    for folder in layout.layers(name), layout.manifests(name), layout.all_referrers(name):
        await pruner.prune(await list_subfolders(bulk, folder))
    parts = name.split("/")
    above = ["/".join(parts[:end]) for end in range(len(parts), 0, -1)]
    await pruner.prune([layout.uploads(name), *map(layout.repository, above)])
    if not await _has_files(driver, layout.manifests(name)):
        return True
    await mark_repository(driver, name)
    return False


async def list_subfolders(bulk: IBulkLookup, path: str) -> list[str]:
    """A folder and all that are in it, the deepest first; for what is nearly empty."""
    found = []
    last = ""
    while True:
        try:
            names = await bulk.list_folders(path, last, _PAGE_ENTRIES)
        except PathNotFound:
            break
        for name in names:
            found += await list_subfolders(bulk, f"{path}/{name}")
        if len(names) < _PAGE_ENTRIES:
            break
        last = names[-1]
    return [*found, path]


async def _has_files(driver: IStorageDriver, folder: str, except_path: str = "") -> bool:
    """Whether there is any file in a folder, besides one."""
    return any(entry.path != except_path for entry in await driver.walk(folder, "", 2))
