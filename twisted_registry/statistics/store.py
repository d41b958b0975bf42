"""The statistics of a store: what each repository uses, alone and together with others.

They are gathered by one walk through the store, which only reads. The sizes of blobs, and which
repositories use them, are kept in the temporary tables of a
:class:`~twisted_registry.gc.reference_db.ReferenceDatabase`, outside of memory.

What changes during the walk may be counted or not. A blob that was stored after the walk through
the blobs is missing.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

from twisted_registry.gc.mark import load_references
from twisted_registry.gc.reference_db import retry_if_lost
from twisted_registry.repository import catalog, layout
from twisted_registry.repository.inventory import iterate_files

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence

    from twisted_registry.gc.reference_db import ReferenceDatabase
    from twisted_registry.maintenance.pull_times import PullTimes
    from twisted_registry.oci.digest import Digest
    from twisted_registry.oci.patterns import GlobSet
    from twisted_registry.repository.inventory import Inventory, StoredBlob

_DAY_S = 24 * 3600.0
#: The periods of growth, in days.
GROWTH_DAYS = (1, 7, 30)
#: Repositories that are read at once from the database.
_PAGE_REPOSITORIES = 500

# Of a blob, ``holder`` is the number of the only repository that uses it, 0 if there are several,
# and NULL if there is none.
_SCHEMA = """
DROP TABLE IF EXISTS temp.blob;
DROP TABLE IF EXISTS temp.pulled;
DROP TABLE IF EXISTS temp.repository;
DROP TABLE IF EXISTS temp.used;
CREATE TEMP TABLE blob (id INTEGER PRIMARY KEY, size INTEGER, modified REAL, holder INTEGER);
CREATE TEMP TABLE pulled (name TEXT PRIMARY KEY, seconds REAL) WITHOUT ROWID;
CREATE TEMP TABLE used (holder INTEGER PRIMARY KEY, size INTEGER);
CREATE TEMP TABLE repository (
    id INTEGER PRIMARY KEY, name TEXT, tags INTEGER, manifests INTEGER, is_complete INTEGER,
    last_push REAL, last_pull REAL, logical INTEGER, only INTEGER,
    bytes_0 INTEGER, bytes_1 INTEGER, bytes_2 INTEGER,
    manifests_0 INTEGER, manifests_1 INTEGER, manifests_2 INTEGER
);
"""
_INSERT_REPOSITORY = """
INSERT INTO repository (id, name, tags, manifests, is_complete, last_push, last_pull, logical,
    bytes_0, bytes_1, bytes_2, manifests_0, manifests_1, manifests_2)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
#: Bytes, and those of each period. CROSS JOIN begins with the table on the left.
_SUM_SIZES = """
SELECT count(*), coalesce(sum(size), 0), coalesce(sum(size * (modified >= ?)), 0),
    coalesce(sum(size * (modified >= ?)), 0), coalesce(sum(size * (modified >= ?)), 0)
FROM {source}
"""
_SUM_ALIVE = _SUM_SIZES.format(source="alive CROSS JOIN blob USING (id)")
_MARK_HOLDER = """
UPDATE blob SET holder = CASE WHEN holder IS NULL THEN ? ELSE 0 END
WHERE id IN (SELECT id FROM alive)
"""
_SET_UNIQUE = """
INSERT INTO used SELECT holder, sum(size) FROM blob WHERE holder > 0 GROUP BY holder;
UPDATE repository
SET only = coalesce((SELECT size FROM used WHERE used.holder = repository.id), 0);
"""
_SELECT_REPOSITORIES = "SELECT * FROM repository ORDER BY {order}, name LIMIT ? OFFSET ?"


class SortKey(Enum):
    """What repositories can be sorted by. All but the name sort the largest, or latest, first."""

    NAME = "name"
    LOGICAL = "logical"
    UNIQUE = "unique"
    SHARED = "shared"
    TAGS = "tags"
    MANIFESTS = "manifests"
    PUSHED = "pushed"
    PULLED = "pulled"
    GROWTH = "growth"


_ORDERS = {
    SortKey.NAME: "name",
    SortKey.LOGICAL: "logical DESC",
    SortKey.UNIQUE: "only DESC",
    SortKey.SHARED: "logical - only DESC",
    SortKey.TAGS: "tags DESC",
    SortKey.MANIFESTS: "manifests DESC",
    SortKey.PUSHED: "last_push DESC",
    SortKey.PULLED: "last_pull DESC",
    SortKey.GROWTH: "bytes_2 DESC",
}


@frozen
class Growth:
    """What was added in a period, and is still there.

    :ivar days: the length of the period, which ends now.
    :ivar bytes: of the blobs and manifests that were stored in it.
    :ivar manifests: number of manifests that were pushed in it last; None for a whole store.
    """

    days: int
    bytes: int
    manifests: int | None = None


@frozen
class RepositoryStatistics:
    """One repository.

    :ivar logical_bytes: of its manifests and all that they refer to, each blob once.
    :ivar unique_bytes: the part of these that no other repository uses.
    :ivar last_push: of a tag or manifest that is still there, in seconds since the epoch.
    :ivar last_pull: in seconds since the epoch, or None if none was recorded.
    :ivar is_complete: whether all of its manifests could be read. Otherwise it uses more bytes.
    """

    name: str
    logical_bytes: int
    unique_bytes: int
    tags: int
    manifests: int
    last_push: float | None
    last_pull: float | None
    growth: tuple[Growth, ...]
    is_complete: bool

    @property
    def shared_bytes(self) -> int:
        """The part of its bytes that other repositories use as well."""
        return self.logical_bytes - self.unique_bytes


@define
class FileTotal:
    """A number of files, and their bytes."""

    count: int = 0
    bytes: int = 0

    def add(self, sizes: Iterable[int]) -> None:
        """Add files."""
        for size in sizes:
            self.count += 1
            self.bytes += size


@define
class StoreTotals:
    """A whole store.

    :ivar blobs: blobs and manifests.
    :ivar unreferenced: those of them that no manifest refers to; a collection deletes them when
        they are old enough.
    :ivar uploads: unfinished uploads.
    :ivar trash: what the trash contains, the history of tags included.
    :ivar quarantine: damaged files that were moved there.
    :ivar pulls_recorded_since: when recording of pulls began, in seconds since the epoch; None if
        pulls are not recorded.
    """

    repositories: int = 0
    tags: int = 0
    manifests: int = 0
    blobs: FileTotal = field(factory=FileTotal)
    unreferenced: FileTotal = field(factory=FileTotal)
    uploads: FileTotal = field(factory=FileTotal)
    trash: FileTotal = field(factory=FileTotal)
    quarantine: FileTotal = field(factory=FileTotal)
    growth: tuple[Growth, ...] = ()
    pulls_recorded_since: float | None = None

    @property
    def bytes(self) -> int:
        """The bytes of all of these files; links and other small files are left out."""
        areas = (self.blobs, self.uploads, self.trash, self.quarantine)
        return sum(area.bytes for area in areas)


class StatisticsObserver:
    """Receives the progress of the walk; this one ignores it."""

    def blobs_counted(self, blobs: FileTotal) -> None:
        """So many blobs were listed."""

    def repository_started(self, name: str) -> None:
        """A repository is being read."""


@define
class _Manifests:
    """What the folder of the manifests and tags of a repository contains."""

    tags: int = 0
    manifests: int = 0
    last_push: float | None = None
    recent: list[int] = field(factory=lambda: [0] * len(GROWTH_DAYS))
    is_complete: bool = True


@define(eq=False)
class StoreStatistics:
    """Gathers the statistics of one store; the caller closes it.

    :ivar database: made for this use, with :data:`~twisted_registry.gc.reference_db.TEMPORARY`.
    :ivar seconds: returns the time in seconds since the epoch.
    :ivar names: the repositories to list; None for all. Totals are always of the whole store.
    """

    inventory: Inventory
    database: ReferenceDatabase
    pull_times: PullTimes
    seconds: Callable[[], float]
    names: GlobSet | None = None
    observer: StatisticsObserver = field(factory=StatisticsObserver)
    _periods: tuple[float, ...] = field(init=False, default=())

    async def run(self) -> StoreTotals:
        """Read the store.

        :raises RegistryError: if it cannot be read.
        """
        return await retry_if_lost(self._run)

    async def list_repositories(
        self, sort: SortKey = SortKey.LOGICAL, top: int | None = None
    ) -> AsyncIterator[Sequence[RepositoryStatistics]]:
        """Yield the repositories of the last run, in pages.

        :param top: how many, at most; None for all.
        """
        query, start = _SELECT_REPOSITORIES.format(order=_ORDERS[sort]), 0
        while top is None or start < top:
            limit = _PAGE_REPOSITORIES if top is None else min(_PAGE_REPOSITORIES, top - start)
            rows = await self._query(query, (limit, start))
            if rows:
                yield [_from_row(row) for row in rows]
            if len(rows) < limit:
                return
            start += limit

    def close(self) -> Awaitable[None]:
        """Delete the database."""
        return self.database.close()

    async def _run(self) -> StoreTotals:
        totals, now = StoreTotals(), self.seconds()
        self._periods = tuple(now - days * _DAY_S for days in GROWTH_DAYS)
        await self.database.begin_run()
        await self.database.run_sql(lambda database: database.executescript(_SCHEMA))
        async for page in self.inventory.blobs():
            await self.database.run_sql(_inserter(page))
            totals.blobs.add(blob.size for blob in page)
            self.observer.blobs_counted(totals.blobs)
        totals.pulls_recorded_since = await self.pull_times.recording_since()
        if totals.pulls_recorded_since is not None:
            async for times in self.pull_times.unmerged_times():
                await self.database.run_sql(_pull_inserter(times))
        driver = self.inventory.driver
        async for name in catalog.walk_repositories(driver, markers=layout.CONTENT_MARKERS):
            await self._read_repository(name, totals)
        await self.database.run_sql(lambda database: database.executescript(_SET_UNIQUE))
        for total, folder in (
            (totals.trash, layout.TRASH),
            (totals.quarantine, layout.QUARANTINE),
        ):
            async for entries in iterate_files(driver, folder):
                total.add(entry.size or 0 for entry in entries)
        totals.growth = await self._sum_growth("blob")
        unreferenced = _SUM_SIZES.format(source="blob WHERE holder IS NULL")
        ((count, size, *_),) = await self._query(unreferenced, self._periods)
        totals.unreferenced = FileTotal(count, size)
        return totals

    async def _sum_growth(self, source: str) -> tuple[Growth, ...]:
        query = _SUM_SIZES.format(source=source)
        ((_, _, *sizes),) = await self._query(query, self._periods)
        return tuple(Growth(days, size) for days, size in zip(GROWTH_DAYS, sizes, strict=True))

    async def _query(self, query: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        return await self.database.run_sql(
            lambda database: database.execute(query, values).fetchall()
        )

    async def _read_repository(self, name: str, totals: StoreTotals) -> None:
        self.observer.repository_started(name)
        await self.database.clear_alive()
        found = await self._read_manifests(name)
        totals.uploads.add([size async for _, size in self.inventory.uploads(name)])
        if not found.manifests and not await catalog.is_repository(self.inventory.driver, name):
            # It has uploads only.
            return
        totals.repositories += 1
        totals.tags += found.tags
        totals.manifests += found.manifests
        last_pull = None
        if totals.pulls_recorded_since is not None:
            last_pull = await self._last_pull(name)
        number, is_listed = totals.repositories, self.names is None or name in self.names

        def add(database: sqlite3.Connection) -> None:
            _, size, *sizes = database.execute(_SUM_ALIVE, self._periods).fetchone()
            database.execute(_MARK_HOLDER, (number,))
            if is_listed:
                row = (number, name, found.tags, found.manifests, found.is_complete)
                values = (*row, found.last_push, last_pull, size, *sizes, *found.recent)
                database.execute(_INSERT_REPOSITORY, values)

        await self.database.run_sql(add)

    async def _read_manifests(self, name: str) -> _Manifests:
        """Read tags and manifests, and mark what they refer to as reachable."""
        found = _Manifests()
        folder = layout.manifests_folder(name)
        async for entries in iterate_files(self.inventory.driver, folder):
            digests: list[Digest] = []
            for entry in entries:
                digest = layout.revision_of_link(name, entry.path)
                is_tag = digest is None and layout.is_tag_link(name, entry.path)
                if not entry.size or (digest is None and not is_tag):
                    # A crash of a registry that does not sync leaves empty links.
                    continue
                modified = entry.modified_s
                if modified is not None:
                    found.last_push = max(modified, found.last_push or 0.0)
                found.tags += is_tag
                if digest is not None:
                    digests.append(digest)
                    found.manifests += 1
                    for number, since in enumerate(self._periods):
                        found.recent[number] += modified is not None and modified >= since
            readable, _ = await load_references(self.inventory, self.database, digests)
            found.is_complete = found.is_complete and readable
            await self.database.mark_alive(digests)
        return found

    async def _last_pull(self, name: str) -> float | None:
        query = "SELECT seconds FROM pulled WHERE name = ?"
        times = [seconds for (seconds,) in await self._query(query, (name,))]
        return max([*times, *(await self.pull_times.read_times(name)).values()], default=None)


def _inserter(blobs: Sequence[StoredBlob]) -> Callable[[sqlite3.Connection], None]:
    def insert(database: sqlite3.Connection) -> None:
        names = [(str(blob.digest),) for blob in blobs]
        database.executemany("INSERT OR IGNORE INTO digest (name) VALUES (?)", names)
        database.executemany(
            "INSERT OR IGNORE INTO blob SELECT id, ?, ?, NULL FROM digest WHERE name = ?",
            [(blob.size, blob.modified, str(blob.digest)) for blob in blobs],
        )

    return insert


def _pull_inserter(
    times: Mapping[str, Mapping[str, float]],
) -> Callable[[sqlite3.Connection], object]:
    latest = [(name, max(pulls.values())) for name, pulls in times.items()]
    return lambda database: database.executemany(
        "INSERT INTO pulled VALUES (?, ?)"
        " ON CONFLICT (name) DO UPDATE SET seconds = max(seconds, excluded.seconds)",
        latest,
    )


def _from_row(row: Sequence[Any]) -> RepositoryStatistics:
    _, name, tags, manifests, is_complete, last_push, last_pull, logical, only, *recent = row
    sizes, counts = recent[: len(GROWTH_DAYS)], recent[len(GROWTH_DAYS) :]
    growth = map(Growth, GROWTH_DAYS, sizes, counts)
    return RepositoryStatistics(
        name, logical, only, tags, manifests, last_push, last_pull, tuple(growth), bool(is_complete)
    )
