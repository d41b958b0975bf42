"""Whether a table of references still says what was written into it.

A disk may change a value and leave a sound table behind: one reference less, and a blob that is
needed looks dead. So each manifest has a sum over its name and all names that it refers to, and a
table is believed for a run only if all of them are right, and its indexes as well: a name that an
index hides would be taken for new.

What manifests refer to, remembered between runs of the collector; and what is alive in one.

What a manifest refers to never changes, so it is read once. SQLite keeps it outside of memory. The
file can be removed at any time, also while it is in use: it is made again from the manifests. What
is alive is remembered by the connection alone, so a file that is found to be damaged ends the run:
to go on with another would be to take everything for dead. When a look through the store begins,
:mod:`~twisted_registry.gc.reference_db` tells whether the file still says what was written.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from zlib import crc32

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from twisted_registry.gc.mark import CollectionFailed
from twisted_registry.oci.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from twisted_registry.oci.manifest import References

#: Each manifest with its sum and what that is made of; targets in the order of their numbers.
_SELECT_MANIFESTS = """
SELECT holder.name, subject.name, (
    SELECT group_concat(name, ' ') FROM (
        SELECT digest.name AS name FROM reference
        CROSS JOIN digest ON digest.id = reference.target
        WHERE reference.manifest = manifest.id ORDER BY reference.target
    )
), manifest.subject IS NULL, manifest.sum FROM manifest
LEFT JOIN digest AS holder ON holder.id = manifest.id
LEFT JOIN digest AS subject ON subject.id = manifest.subject
"""


def reference_checksum(name: str, subject: str | None, targets: Iterable[str]) -> int:
    """The sum that is kept with a manifest.

    :param name: of the manifest.
    :param targets: the names of what it refers to, in the order of their numbers in the table.
    """
    return crc32(f"{name}\n{subject or ''}\n{' '.join(targets)}".encode())


def verify_database(database: sqlite3.Connection) -> None:
    """Read the whole table once, a manifest at a time.

    :raises sqlite3.DatabaseError: if something in it is not what was written.
    """
    (found,) = database.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok":
        raise sqlite3.DatabaseError(str(found))
    for name, subject, targets, alone, expected in database.execute(_SELECT_MANIFESTS):
        whole = name is not None and (subject is None) == bool(alone)
        if not whole or reference_checksum(name, subject, [targets or ""]) != expected:
            raise sqlite3.DatabaseError(f"what {name} refers to has changed")


log = Logger()

T = TypeVar("T")

_SCHEMA_VERSION = 2
_FILE_SUFFIXES = ("", "-wal", "-shm")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS digest (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS manifest (id INTEGER PRIMARY KEY, subject INTEGER, sum INTEGER);
CREATE TABLE IF NOT EXISTS reference (manifest INTEGER, target INTEGER,
    PRIMARY KEY (manifest, target)) WITHOUT ROWID;
"""
_TEMP_SCHEMA = """
CREATE TEMP TABLE alive (id INTEGER PRIMARY KEY);
CREATE TEMP TABLE kept (id INTEGER PRIMARY KEY);
CREATE TEMP TABLE noted (name TEXT PRIMARY KEY, sum BLOB) WITHOUT ROWID;
CREATE TEMP TABLE asked (id INTEGER PRIMARY KEY);
CREATE TEMP TABLE needing (id INTEGER PRIMARY KEY);
"""
# CROSS JOIN has SQLite begin with what stands on the left: what was asked for, which is
# little. Left to itself it goes through the whole of another table, for each question again.
#: The names of what was asked for, as far as they are, or are not, in another table.
_SELECT_ASKED = "SELECT name FROM asked CROSS JOIN digest USING (id) WHERE id {which}"
#: Everything that is reached from what was asked for.
_INSERT_REACHABLE = """
WITH RECURSIVE reach (id) AS (
    SELECT id FROM asked
    UNION
    SELECT target FROM reach CROSS JOIN reference ON reference.manifest = reach.id
)
INSERT OR IGNORE INTO {table} SELECT id FROM reach
"""
#: Revisions whose subject is kept and that are not kept yet.
_SELECT_REFERRERS = """
SELECT digest.name FROM asked
CROSS JOIN manifest USING (id)
CROSS JOIN digest USING (id)
WHERE manifest.subject IN (SELECT id FROM kept) AND asked.id NOT IN (SELECT id FROM kept)
"""
#: One step from what needs something to what needs that.
_INSERT_DEPENDENTS = """
INSERT OR IGNORE INTO needing
SELECT manifest FROM reference WHERE target IN (SELECT id FROM needing)
"""
_SELECT_BETWEEN = """
SELECT holder.name, held.name FROM asked
CROSS JOIN reference ON reference.manifest = asked.id
CROSS JOIN digest AS holder ON holder.id = reference.manifest
CROSS JOIN digest AS held ON held.id = reference.target
WHERE reference.target IN (SELECT id FROM asked)
"""
_SELECT_SUBJECTS = """
SELECT digest.name, subject.name FROM asked
CROSS JOIN manifest USING (id)
CROSS JOIN digest USING (id)
CROSS JOIN digest AS subject ON subject.id = manifest.subject
"""


class ReferenceDatabaseLost(CollectionFailed):
    """The file could not be used in the middle of a run; it can at the next ``begin_run``."""


class WorkerThread(Protocol):
    """A thread of one's own, such as :class:`~twisted_registry.storage.threads.Threads`."""

    def run_blocking(self, work: Callable[..., T], *arguments: Any) -> Deferred[T]:
        """Fire with what ``work(*arguments)`` returns; calls are made one at a time."""

    def close(self) -> Deferred[None]:
        """Fire once it has ended."""


@define(eq=False)
class ReferenceDatabase:
    """A table of references on disk or in memory.

    :ivar path: of the file; ``:memory:`` keeps it in memory.
    :ivar thread: where the calls are made, one at a time.
    """

    path: str
    thread: WorkerThread
    _database: sqlite3.Connection | None = field(init=False, default=None)
    #: which files are open, see :meth:`_file_identities`
    _open_identities: tuple[tuple[int, int] | None, ...] = field(init=False, default=())
    _lost: bool = field(init=False, default=False)

    def unknown_manifests(self, manifests: Sequence[Digest]) -> Deferred[list[Digest]]:
        """Fire with those of ``manifests`` of which it is not known what they refer to."""
        return self._call(self._unknown_manifests, manifests)

    def add_manifests(self, manifests: Sequence[tuple[Digest, References]]) -> Deferred[None]:
        """Remember what manifests refer to."""
        return self._call(self._add_manifests, manifests)

    def begin_run(self) -> Deferred[None]:
        """Nothing is alive any more. All others raise :class:`ReferenceDatabaseLost` at damage.

        A table that is damaged already is made anew.
        """
        return Deferred.fromCoroutine(self._begin_verified())

    def mark_alive(self, digests: Iterable[Digest]) -> Deferred[None]:
        """What is named here is alive, and all that it refers to, over any number of steps."""
        return self._call(self._mark_reachable, "alive", digests)

    def save_checksum(self, repository: str, checksum: bytes | None) -> Deferred[None]:
        """Remember until ``begin_run`` what a repository held when all that it holds was kept."""
        return self._call(self._save_checksum, repository, checksum)

    def saved_checksum(self, repository: str) -> Deferred[bytes | None]:
        """Fire with what was noted last of a repository, or None."""
        return self._call(self._saved_checksum, repository)

    def unreachable(self, digests: Sequence[Digest]) -> Deferred[list[Digest]]:
        """Fire with those of ``digests`` that are not alive."""
        return self._call(self._unreachable, digests)

    def count_alive(self) -> Deferred[int]:
        """Fire with how many are alive."""
        return self._call(self._count_alive)

    def unreferenced(
        self, revisions: Sequence[Digest], roots: Iterable[Digest]
    ) -> Deferred[list[Digest]]:
        """Fire with those of a repository's revisions that nothing holds.

        What holds one: a root, what refers to it if that is held, and its subject likewise.
        """
        return self._call(self._find_unreferenced, revisions, roots)

    def trace_dependents(self, digest: Digest) -> Deferred[None]:
        """Look for all that needs a digest, over any number of steps; it is one of them."""
        return self._call(self._trace_dependents, digest)

    def filter_dependents(self, digests: Sequence[Digest]) -> Deferred[list[Digest]]:
        """Fire with those of ``digests`` that need what was traced last."""
        return self._call(self._filter_dependents, digests)

    def references_between(
        self, digests: Sequence[Digest]
    ) -> Deferred[list[tuple[Digest, Digest]]]:
        """Fire with what refers to what among ``digests``."""
        return self._call(self._pairs, digests, _SELECT_BETWEEN)

    def subjects(self, digests: Sequence[Digest]) -> Deferred[list[tuple[Digest, Digest]]]:
        """Fire with those of ``digests`` that have a subject, and with that."""
        return self._call(self._pairs, digests, _SELECT_SUBJECTS)

    def close(self) -> Deferred[None]:
        """Close the file, and end the thread."""
        return self.thread.run_blocking(self._close).addCallback(lambda _: self.thread.close())

    async def _begin_verified(self) -> None:
        await self.thread.run_blocking(self._close_if_replaced)
        with suppress(ReferenceDatabaseLost):
            await self._call(lambda: verify_database(self._db))
        await self.thread.run_blocking(self._close_if_replaced)
        await self._call(self._begin_run)

    def _call(self, function: Callable[..., T], *arguments: Any) -> Deferred[T]:
        def work() -> T:
            if self._lost:
                raise ReferenceDatabaseLost(f"{self.path} was lost in the middle of a run")
            try:
                if self._database is None:
                    self._database = self._open()
                with self._database:
                    answer = function(*arguments)
            except sqlite3.DatabaseError as error:
                self._lose(error)
                raise ReferenceDatabaseLost(f"{self.path} can not be used: {error}") from error
            if self._open_identities != self._file_identities():
                # Removed, and perhaps made anew by others, with whom it shares what is beside it:
                # only what was read before is sure to be right.
                self._close()
                self._lost = True
                raise ReferenceDatabaseLost(f"{self.path} was removed in the middle of a run")
            return answer

        return self.thread.run_blocking(work)

    # What follows runs on the thread.

    def _close_if_replaced(self) -> None:
        self._lost = False
        if self._database is not None and self._open_identities != self._file_identities():
            self._close()

    def _file_identities(self) -> tuple[tuple[int, int] | None, ...]:
        """Which files are there now: device and node of the table and of what SQLite needs."""
        return tuple(_file_identity(Path(f"{self.path}{ending}")) for ending in _FILE_SUFFIXES)

    def _lose(self, error: sqlite3.DatabaseError) -> None:
        self._lost = True
        with suppress(sqlite3.Error):
            self._close()
        if not _is_transient(error):
            self._remove(error)

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.DatabaseError as error:
            if _is_transient(error):
                raise
            self._remove(error)
            return self._connect()

    def _remove(self, error: sqlite3.DatabaseError) -> None:
        log.warn("{path} is damaged and made anew: {reason}", path=self.path, reason=str(error))
        for ending in _FILE_SUFFIXES:
            Path(f"{self.path}{ending}").unlink(missing_ok=True)

    def _connect(self) -> sqlite3.Connection:
        if self.path != ":memory:":
            Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(self.path, check_same_thread=False)
        try:
            # A power cut may cost what was learnt last, but never a part of it: a manifest that
            # is known with half of its references would be the end of the other half.
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute("PRAGMA temp_store = FILE")
            _check_version(database)
            database.executescript(_SCHEMA)
            database.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
            database.executescript(_TEMP_SCHEMA)
            self._open_identities = self._file_identities()
        except BaseException:
            database.close()
            raise
        return database

    @property
    def _db(self) -> sqlite3.Connection:
        assert self._database is not None
        return self._database

    def _close(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            database.close()

    def _begin_run(self) -> None:
        self._db.execute("DELETE FROM alive")
        self._db.execute("DELETE FROM noted")

    def _save_checksum(self, repository: str, checksum: bytes | None) -> None:
        self._db.execute("INSERT OR REPLACE INTO noted VALUES (?, ?)", (repository, checksum))

    def _saved_checksum(self, repository: str) -> bytes | None:
        query = "SELECT sum FROM noted WHERE name = ?"
        (found,) = self._db.execute(query, (repository,)).fetchone() or (None,)
        return found

    def _unknown_manifests(self, manifests: Sequence[Digest]) -> list[Digest]:
        self._fill_asked(manifests)
        return self._query_digests(_SELECT_ASKED.format(which="NOT IN (SELECT id FROM manifest)"))

    def _add_manifests(self, manifests: Sequence[tuple[Digest, References]]) -> None:
        for digest, references in manifests:
            known, subject = self._row_id(digest), references.subject
            targets = sorted((self._row_id(target), str(target)) for target in references.digests)
            checksum = reference_checksum(
                str(digest),
                None if subject is None else str(subject),
                [name for _, name in targets],
            )
            self._db.execute(
                "INSERT OR REPLACE INTO manifest VALUES (?, ?, ?)",
                (known, None if subject is None else self._row_id(subject), checksum),
            )
            self._db.executemany(
                "INSERT OR IGNORE INTO reference VALUES (?, ?)",
                [(known, number) for number, _ in targets],
            )

    def _mark_reachable(self, table: str, digests: Iterable[Digest]) -> None:
        self._fill_asked(digests)
        self._db.execute(_INSERT_REACHABLE.format(table=table))

    def _unreachable(self, digests: Sequence[Digest]) -> list[Digest]:
        self._fill_asked(digests)
        return self._query_digests(_SELECT_ASKED.format(which="NOT IN (SELECT id FROM alive)"))

    def _count_alive(self) -> int:
        (count_alive,) = self._db.execute("SELECT count(*) FROM alive").fetchone()
        return int(count_alive)

    def _find_unreferenced(
        self, revisions: Sequence[Digest], roots: Iterable[Digest]
    ) -> list[Digest]:
        self._db.execute("DELETE FROM kept")
        found = list(roots)
        while found:
            self._mark_reachable("kept", found)
            self._fill_asked(revisions)
            found = self._query_digests(_SELECT_REFERRERS)
        self._fill_asked(revisions)
        return self._query_digests(_SELECT_ASKED.format(which="NOT IN (SELECT id FROM kept)"))

    def _trace_dependents(self, digest: Digest) -> None:
        self._db.execute("DELETE FROM needing")
        self._fill_asked([digest])
        self._db.execute("INSERT INTO needing SELECT id FROM asked")
        # Each step goes through all references: there is no index for a question so rare.
        while self._db.execute(_INSERT_DEPENDENTS).rowcount > 0:
            pass

    def _filter_dependents(self, digests: Sequence[Digest]) -> list[Digest]:
        self._fill_asked(digests)
        return self._query_digests(_SELECT_ASKED.format(which="IN (SELECT id FROM needing)"))

    def _pairs(self, digests: Sequence[Digest], query: str) -> list[tuple[Digest, Digest]]:
        self._fill_asked(digests)
        with closing(self._db.execute(query)) as rows:
            return [(Digest.parse(first), Digest.parse(second)) for first, second in rows]

    def _fill_asked(self, digests: Iterable[Digest]) -> None:
        self._db.execute("DELETE FROM asked")
        names = [(str(digest),) for digest in digests]
        self._db.executemany("INSERT OR IGNORE INTO digest (name) VALUES (?)", names)
        self._db.executemany(
            "INSERT OR IGNORE INTO asked SELECT id FROM digest WHERE name = ?", names
        )

    def _query_digests(self, query: str) -> list[Digest]:
        with closing(self._db.execute(query)) as rows:
            return [Digest.parse(name) for (name,) in rows]

    def _row_id(self, digest: Digest) -> int:
        name = (str(digest),)
        self._db.execute("INSERT OR IGNORE INTO digest (name) VALUES (?)", name)
        (number,) = self._db.execute("SELECT id FROM digest WHERE name = ?", name).fetchone()
        return int(number)


def _file_identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _is_transient(error: sqlite3.DatabaseError) -> bool:
    """Whether the file is whole, and another process or a full disk is in the way."""
    return "locked" in str(error) or "full" in str(error)


def _check_version(database: sqlite3.Connection) -> None:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version not in {0, _SCHEMA_VERSION}:
        raise sqlite3.DatabaseError(f"it has version {version}")
