"""Database of the references of manifests, and of reachable content in the current run.

What a manifest refers to never changes, so each manifest is read once and its references are kept
in SQLite between runs, outside of memory. The file can be deleted at any time, even while it is
used: it is rebuilt from the manifests. If the disk is full, the file is deleted and everything is
kept in memory until the next run.

Which digests are reachable is known to the connection only, in temporary tables. So if the file
turns out to be damaged, the run ends with :class:`ReferenceDatabaseLost`: a fresh file would make
everything look unreachable.

A disk that changes a value may leave a valid database behind, with one reference less, and a needed
blob would look unreachable. So each manifest has a checksum over its digest and all that it refers
to, and the file is used for a run only if all checksums and indexes are right. An index that hides
a digest would make it look new.
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
from twisted_registry.storage.files import make_private_directories

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from twisted_registry.oci.manifest import References

log = Logger()

T = TypeVar("T")

_SCHEMA_VERSION = 2
#: The path of a database for one use, in a temporary file that nobody else sees and that SQLite
#: deletes.
TEMPORARY = ""
_WITHOUT_FILE = (TEMPORARY, ":memory:")
#: The database, its write-ahead log, and the index of that.
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
# CROSS JOIN makes SQLite start with the table on the left, which is the short list of the query's
# digests. Its own choice is to scan another table completely, for each query.
#: The digests of the query that are, or are not, in another table.
_SELECT_ASKED = "SELECT name FROM asked CROSS JOIN digest USING (id) WHERE id {which}"
#: All that is reachable from the digests of the query.
_INSERT_REACHABLE = """
WITH RECURSIVE reach (id) AS (
    SELECT id FROM asked
    UNION
    SELECT target FROM reach CROSS JOIN reference ON reference.manifest = reach.id
)
INSERT OR IGNORE INTO {table} SELECT id FROM reach
"""
#: Revisions of the query whose subject is kept and that are not kept themselves yet.
_SELECT_REFERRERS = """
SELECT digest.name FROM asked
CROSS JOIN manifest USING (id)
CROSS JOIN digest USING (id)
WHERE manifest.subject IN (SELECT id FROM kept) AND asked.id NOT IN (SELECT id FROM kept)
"""
#: One step from dependents to their dependents.
_INSERT_DEPENDENTS = """
INSERT OR IGNORE INTO needing
SELECT manifest FROM reference WHERE target IN (SELECT id FROM needing)
"""
#: References between digests of the query.
_SELECT_BETWEEN = """
SELECT holder.name, held.name FROM asked
CROSS JOIN reference ON reference.manifest = asked.id
CROSS JOIN digest AS holder ON holder.id = reference.manifest
CROSS JOIN digest AS held ON held.id = reference.target
WHERE reference.target IN (SELECT id FROM asked)
"""
#: Digests of the query that have a subject, with the subject.
_SELECT_SUBJECTS = """
SELECT digest.name, subject.name FROM asked
CROSS JOIN manifest USING (id)
CROSS JOIN digest USING (id)
CROSS JOIN digest AS subject ON subject.id = manifest.subject
"""


#: Each manifest with its checksum and the values it covers; targets in the order of their IDs.
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


#: Errors of a full disk. SQLite reports it as one of these, depending on the file and the call.
_NO_SPACE_CODES = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}
_PRIMARY_CODE_MASK = 0xFF


class ReferenceDatabaseLost(CollectionFailed):
    """The file became unusable during a run; the next ``begin_run`` replaces it."""


async def retry_if_lost(work: Callable[[], Awaitable[T]]) -> T:
    """Run ``work``, which begins with a mark, and once more if the database is lost meanwhile."""
    try:
        return await work()
    except ReferenceDatabaseLost:
        return await work()


class WorkerThread(Protocol):
    """A dedicated thread, such as :class:`~twisted_registry.storage.threads.Threads` of size 1."""

    def run_blocking(self, work: Callable[..., T], *arguments: Any) -> Deferred[T]:
        """Fire with the result of ``work(*arguments)``; calls run one at a time."""

    def close(self) -> Deferred[None]:
        """End the thread, and fire when it has ended."""


@define(eq=False)
class ReferenceDatabase:
    """The references of one store, and the reachable digests of one run.

    All Deferreds but that of :meth:`begin_run` fail with :class:`ReferenceDatabaseLost` if the file
    is damaged, deleted or locked.

    :ivar path: path of the file, :data:`TEMPORARY`, or ``:memory:``.
    :ivar thread: runs all calls, one at a time.
    :ivar in_memory: whether there was no space for the file, so that everything is in memory.
    """

    path: str
    thread: WorkerThread
    in_memory: bool = field(init=False, default=False)
    _database: sqlite3.Connection | None = field(init=False, default=None)
    #: the files that are open, see :meth:`_file_identities`
    _open_identities: tuple[tuple[int, int] | None, ...] = field(init=False, default=())
    _is_lost: bool = field(init=False, default=False)

    def unknown_manifests(self, manifests: Sequence[Digest]) -> Deferred[list[Digest]]:
        """Fire with those of ``manifests`` whose references are not in the database."""
        return self._call(self._filter, manifests, "NOT IN (SELECT id FROM manifest)")

    def add_manifests(self, manifests: Sequence[tuple[Digest, References]]) -> Deferred[None]:
        """Store what manifests refer to: all of them, or none."""
        return self._call(self._add_manifests, manifests)

    def use_file(self) -> Deferred[None]:
        """Try the file again, if it was left because the disk was full. Run nothing meanwhile."""
        return self.thread.run_blocking(self._return_to_file)

    def begin_run(self) -> Deferred[None]:
        """Verify the file, replace it if it is damaged, and mark nothing as reachable."""
        return Deferred.fromCoroutine(self._begin_verified())

    def mark_alive(self, digests: Iterable[Digest]) -> Deferred[None]:
        """Mark digests as reachable, and all that they refer to, directly or indirectly."""
        return self._call(self._mark_reachable, "alive", digests)

    def clear_alive(self) -> Deferred[None]:
        """Mark nothing as reachable. Unlike :meth:`begin_run` this does not verify the file."""
        return self._call(self._clear_alive)

    def run_sql(self, work: Callable[[sqlite3.Connection], T]) -> Deferred[T]:
        """Fire with the result of ``work(database)``, a transaction on the thread.

        It can read the tables ``digest (id, name)`` and ``alive (id)``, the reachable digests, and
        use temporary tables of its own.
        """
        return self._call(lambda: work(self._db))

    def save_checksum(self, repository: str, checksum: bytes | None) -> Deferred[None]:
        """Store a checksum of a repository's revisions until the next ``begin_run``."""
        return self._call(self._save_checksum, repository, checksum)

    def saved_checksum(self, repository: str) -> Deferred[bytes | None]:
        """Fire with the checksum that was saved last for a repository, or None."""
        return self._call(self._saved_checksum, repository)

    def unreachable(self, digests: Sequence[Digest]) -> Deferred[list[Digest]]:
        """Fire with those of ``digests`` that are not marked as reachable."""
        return self._call(self._filter, digests, "NOT IN (SELECT id FROM alive)")

    def count_alive(self) -> Deferred[int]:
        """Fire with the number of reachable digests."""
        return self._call(self._count_alive)

    def unreferenced(
        self, revisions: Sequence[Digest], roots: Iterable[Digest]
    ) -> Deferred[list[Digest]]:
        """Fire with those of a repository's revisions that nothing holds.

        A revision is held if it is a root, if a held manifest refers to it, or if its subject is
        held.
        """
        return self._call(self._find_unreferenced, revisions, roots)

    def trace_dependents(self, digest: Digest) -> Deferred[None]:
        """Find all that needs a digest, directly or indirectly, including itself."""
        return self._call(self._trace_dependents, digest)

    def filter_dependents(self, digests: Sequence[Digest]) -> Deferred[list[Digest]]:
        """Fire with those of ``digests`` that need the digest that was traced last."""
        return self._call(self._filter, digests, "IN (SELECT id FROM needing)")

    def references_between(
        self, digests: Sequence[Digest]
    ) -> Deferred[list[tuple[Digest, Digest]]]:
        """Fire with the references among ``digests``, as pairs of holder and target."""
        return self._call(self._select_pairs, digests, _SELECT_BETWEEN)

    def subjects(self, digests: Sequence[Digest]) -> Deferred[list[tuple[Digest, Digest]]]:
        """Fire with those of ``digests`` that have a subject, as pairs with the subject."""
        return self._call(self._select_pairs, digests, _SELECT_SUBJECTS)

    def close(self) -> Deferred[None]:
        """Close the file, and end the thread."""
        return self.thread.run_blocking(self._close).addCallback(lambda _: self.thread.close())

    async def _begin_verified(self) -> None:
        await self.thread.run_blocking(self._close_if_replaced)
        with suppress(ReferenceDatabaseLost):
            await self._call(lambda: _verify(self._db))
        await self.thread.run_blocking(self._close_if_replaced)
        await self._call(self._begin_run)

    def _call(self, function: Callable[..., T], *arguments: Any) -> Deferred[T]:
        def work() -> T:
            if self._is_lost:
                raise ReferenceDatabaseLost(f"{self.path} was lost during a run")
            try:
                if self._database is None:
                    self._database = self._open()
                with self._database:
                    result = function(*arguments)
            except sqlite3.DatabaseError as error:
                self._lose(error)
                raise ReferenceDatabaseLost(f"{self.path} cannot be used: {error}") from error
            if self._open_identities != self._file_identities():
                # The file was deleted and perhaps recreated by another process. Both would share
                # the log beside it, so only what was read before is right.
                self._close()
                self._is_lost = True
                raise ReferenceDatabaseLost(f"{self.path} was deleted during a run")
            return result

        return self.thread.run_blocking(work)

    # All methods below run on the thread.

    def _close_if_replaced(self) -> None:
        self._is_lost = False
        if self._database is not None and self._open_identities != self._file_identities():
            self._close()

    def _file_identities(self) -> tuple[tuple[int, int] | None, ...]:
        """Return device and inode of the database and of the files beside it, now."""
        if self.in_memory or self.path in _WITHOUT_FILE:
            return ()
        return tuple(_file_identity(Path(f"{self.path}{ending}")) for ending in _FILE_SUFFIXES)

    def _lose(self, error: sqlite3.DatabaseError) -> None:
        self._is_lost = True
        with suppress(sqlite3.Error):
            self._close()
        if _lacks_space(error):
            self._leave_file(error)
        elif not _is_locked(error):
            self._remove(error)

    def _open(self) -> sqlite3.Connection:
        if self.in_memory:
            return self._connect()
        try:
            return self._connect()
        except OSError as error:
            self._leave_file(error)
        except sqlite3.DatabaseError as error:
            if _is_locked(error):
                raise
            if _lacks_space(error):
                self._leave_file(error)
            else:
                self._remove(error)
        return self._connect()

    def _leave_file(self, error: Exception) -> None:
        log.warn(
            "reference database is kept in memory, its file cannot be written path={path}:"
            " {reason}",
            path=self.path, reason=str(error),
        )  # fmt: skip
        self.in_memory = True
        with suppress(OSError):
            self._unlink_files()

    def _return_to_file(self) -> None:
        if self.in_memory:
            self._close()
            self.in_memory = False

    def _remove(self, error: sqlite3.DatabaseError) -> None:
        log.warn(
            "reference database is damaged and recreated path={path}: {reason}",
            path=self.path, reason=str(error),
        )  # fmt: skip
        self._unlink_files()

    def _unlink_files(self) -> None:
        if self.path not in _WITHOUT_FILE:
            for ending in _FILE_SUFFIXES:
                Path(f"{self.path}{ending}").unlink(missing_ok=True)

    def _connect(self) -> sqlite3.Connection:
        path = ":memory:" if self.in_memory else self.path
        if path not in _WITHOUT_FILE:
            make_private_directories(Path(path).parent)
        database = sqlite3.connect(path, check_same_thread=False)
        try:
            # A power cut may lose the last transactions, but never a part of one. A manifest with
            # half of its references would make the other half look unreachable.
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute(f"PRAGMA temp_store = {'MEMORY' if self.in_memory else 'FILE'}")
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
        self._clear_alive()
        self._db.execute("DELETE FROM noted")

    def _clear_alive(self) -> None:
        self._db.execute("DELETE FROM alive")

    def _save_checksum(self, repository: str, checksum: bytes | None) -> None:
        self._db.execute("INSERT OR REPLACE INTO noted VALUES (?, ?)", (repository, checksum))

    def _saved_checksum(self, repository: str) -> bytes | None:
        query = "SELECT sum FROM noted WHERE name = ?"
        (found,) = self._db.execute(query, (repository,)).fetchone() or (None,)
        return found

    def _filter(self, digests: Sequence[Digest], which: str) -> list[Digest]:
        """Return the digests whose IDs are, or are not, in another table."""
        self._fill_asked(digests)
        return self._query_digests(_SELECT_ASKED.format(which=which))

    def _add_manifests(self, manifests: Sequence[tuple[Digest, References]]) -> None:
        for digest, references in manifests:
            manifest_id, subject = self._row_id(digest), references.subject
            targets = sorted((self._row_id(target), str(target)) for target in references.digests)
            checksum = _reference_checksum(
                str(digest),
                None if subject is None else str(subject),
                [name for _, name in targets],
            )
            self._db.execute(
                "INSERT OR REPLACE INTO manifest VALUES (?, ?, ?)",
                (manifest_id, None if subject is None else self._row_id(subject), checksum),
            )
            self._db.executemany(
                "INSERT OR IGNORE INTO reference VALUES (?, ?)",
                [(manifest_id, target_id) for target_id, _ in targets],
            )

    def _mark_reachable(self, table: str, digests: Iterable[Digest]) -> None:
        self._fill_asked(digests)
        self._db.execute(_INSERT_REACHABLE.format(table=table))

    def _count_alive(self) -> int:
        (count,) = self._db.execute("SELECT count(*) FROM alive").fetchone()
        return int(count)

    def _find_unreferenced(
        self, revisions: Sequence[Digest], roots: Iterable[Digest]
    ) -> list[Digest]:
        self._db.execute("DELETE FROM kept")
        found = list(roots)
        while found:
            self._mark_reachable("kept", found)
            self._fill_asked(revisions)
            found = self._query_digests(_SELECT_REFERRERS)
        return self._filter(revisions, "NOT IN (SELECT id FROM kept)")

    def _trace_dependents(self, digest: Digest) -> None:
        self._db.execute("DELETE FROM needing")
        self._fill_asked([digest])
        self._db.execute("INSERT INTO needing SELECT id FROM asked")
        # Each step scans all references: this query is too rare for an index.
        while self._db.execute(_INSERT_DEPENDENTS).rowcount > 0:
            pass

    def _select_pairs(self, digests: Sequence[Digest], query: str) -> list[tuple[Digest, Digest]]:
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


def _is_locked(error: sqlite3.DatabaseError) -> bool:
    """Return whether the file is sound, and another process has locked it."""
    return "locked" in str(error)


def _lacks_space(error: sqlite3.DatabaseError) -> bool:
    code = getattr(error, "sqlite_errorcode", 0)
    return (code & _PRIMARY_CODE_MASK) in _NO_SPACE_CODES


def _check_version(database: sqlite3.Connection) -> None:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version not in {0, _SCHEMA_VERSION}:
        raise sqlite3.DatabaseError(f"schema version {version} is not supported")


def _reference_checksum(name: str, subject: str | None, targets: Iterable[str]) -> int:
    """Return the checksum that is stored with a manifest.

    :param name: digest of the manifest.
    :param targets: digests of all that it refers to, in the order of their IDs in the database.
    """
    return crc32(f"{name}\n{subject or ''}\n{' '.join(targets)}".encode())


def _verify(database: sqlite3.Connection) -> None:
    """Read the whole database once, a manifest at a time.

    :raises sqlite3.DatabaseError: if a value or index is not what was written.
    """
    (found,) = database.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok":
        raise sqlite3.DatabaseError(str(found))
    for name, subject, targets, has_no_subject, expected in database.execute(_SELECT_MANIFESTS):
        is_complete = name is not None and (subject is None) == bool(has_no_subject)
        if not is_complete or _reference_checksum(name, subject, [targets or ""]) != expected:
            raise sqlite3.DatabaseError(f"the references of {name} have changed")
