"""What manifests refer to, remembered between runs of the collector; and what is alive in one.

What a manifest refers to never changes, so it is read once. SQLite keeps it outside of memory. The
file can be removed at any time, also while it is in use: it is made again from the manifests. What
is alive is remembered by the connection alone, so a file that is found to be damaged ends the run:
to go on with another would be to take everything for dead. When a look through the store begins,
:mod:`~twisted_registry.maintenance.sums` tells whether the file still says what was written.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from twisted_registry.digest import Digest
from twisted_registry.maintenance.marking import CollectionFailed
from twisted_registry.maintenance.sums import check, sum_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from twisted_registry.manifest import References

log = Logger()

T = TypeVar("T")

_VERSION = 2
_ENDINGS = ("", "-wal", "-shm")
_KEPT = """
CREATE TABLE IF NOT EXISTS digest (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS manifest (id INTEGER PRIMARY KEY, subject INTEGER, sum INTEGER);
CREATE TABLE IF NOT EXISTS reference (manifest INTEGER, target INTEGER,
    PRIMARY KEY (manifest, target)) WITHOUT ROWID;
"""
_OF_A_RUN = """
CREATE TEMP TABLE alive (id INTEGER PRIMARY KEY);
CREATE TEMP TABLE kept (id INTEGER PRIMARY KEY);
CREATE TEMP TABLE noted (name TEXT PRIMARY KEY, sum BLOB) WITHOUT ROWID;
CREATE TEMP TABLE asked (id INTEGER PRIMARY KEY);
CREATE TEMP TABLE needing (id INTEGER PRIMARY KEY);
"""
# CROSS JOIN has SQLite begin with what stands on the left: what was asked for, which is
# little. Left to itself it goes through the whole of another table, for each question again.
#: The names of what was asked for, as far as they are, or are not, in another table.
_ASKED = "SELECT name FROM asked CROSS JOIN digest USING (id) WHERE id {which}"
#: Everything that is reached from what was asked for.
_REACH = """
WITH RECURSIVE reach (id) AS (
    SELECT id FROM asked
    UNION
    SELECT target FROM reach CROSS JOIN reference ON reference.manifest = reach.id
)
INSERT OR IGNORE INTO {table} SELECT id FROM reach
"""
#: Revisions whose subject is kept and that are not kept yet.
_REFERRERS = """
SELECT digest.name FROM asked
CROSS JOIN manifest USING (id)
CROSS JOIN digest USING (id)
WHERE manifest.subject IN (SELECT id FROM kept) AND asked.id NOT IN (SELECT id FROM kept)
"""
#: One step from what needs something to what needs that.
_NEEDING = """
INSERT OR IGNORE INTO needing
SELECT manifest FROM reference WHERE target IN (SELECT id FROM needing)
"""
_BETWEEN = """
SELECT holder.name, held.name FROM asked
CROSS JOIN reference ON reference.manifest = asked.id
CROSS JOIN digest AS holder ON holder.id = reference.manifest
CROSS JOIN digest AS held ON held.id = reference.target
WHERE reference.target IN (SELECT id FROM asked)
"""
_SUBJECTS = """
SELECT digest.name, subject.name FROM asked
CROSS JOIN manifest USING (id)
CROSS JOIN digest USING (id)
CROSS JOIN digest AS subject ON subject.id = manifest.subject
"""


class ReferencesLost(CollectionFailed):
    """The file could not be used in the middle of a run; it can at the next ``begin``."""


class Thread(Protocol):
    """A thread of one's own, such as :class:`~twisted_registry.storage.threads.Threads`."""

    def run(self, work: Callable[..., T], *arguments: Any) -> Deferred[T]:
        """Fire with what ``work(*arguments)`` returns; calls are made one at a time."""

    def close(self) -> Deferred[None]:
        """Fire once it has ended."""


@define(eq=False)
class ReferenceTable:
    """A table of references on disk or in memory.

    :ivar path: of the file; ``:memory:`` keeps it in memory.
    :ivar thread: where the calls are made, one at a time.
    """

    path: str
    thread: Thread
    _database: sqlite3.Connection | None = field(init=False, default=None)
    #: which files are open, see :meth:`_found`
    _files: tuple[tuple[int, int] | None, ...] = field(init=False, default=())
    _lost: bool = field(init=False, default=False)

    def unknown(self, manifests: Sequence[Digest]) -> Deferred[list[Digest]]:
        """Fire with those of ``manifests`` of which it is not known what they refer to."""
        return self._call(self._unknown, manifests)

    def learn(self, manifests: Sequence[tuple[Digest, References]]) -> Deferred[None]:
        """Remember what manifests refer to."""
        return self._call(self._learn, manifests)

    def begin(self) -> Deferred[None]:
        """Nothing is alive any more. All others raise :class:`ReferencesLost` at damage.

        A table that is damaged already is made anew.
        """
        return Deferred.fromCoroutine(self._begun())

    def keep(self, digests: Iterable[Digest]) -> Deferred[None]:
        """What is named here is alive, and all that it refers to, over any number of steps."""
        return self._call(self._reach, "alive", digests)

    def note(self, repository: str, sum_: bytes | None) -> Deferred[None]:
        """Remember until ``begin`` what a repository held when all that it holds was kept."""
        return self._call(self._note, repository, sum_)

    def noted(self, repository: str) -> Deferred[bytes | None]:
        """Fire with what was noted last of a repository, or None."""
        return self._call(self._noted, repository)

    def dead(self, digests: Sequence[Digest]) -> Deferred[list[Digest]]:
        """Fire with those of ``digests`` that are not alive."""
        return self._call(self._dead, digests)

    def count(self) -> Deferred[int]:
        """Fire with how many are alive."""
        return self._call(self._count)

    def loose(self, revisions: Sequence[Digest], roots: Iterable[Digest]) -> Deferred[list[Digest]]:
        """Fire with those of a repository's revisions that nothing holds.

        What holds one: a root, what refers to it if that is held, and its subject likewise.
        """
        return self._call(self._loose, revisions, roots)

    def trace(self, digest: Digest) -> Deferred[None]:
        """Look for all that needs a digest, over any number of steps; it is one of them."""
        return self._call(self._trace, digest)

    def traced(self, digests: Sequence[Digest]) -> Deferred[list[Digest]]:
        """Fire with those of ``digests`` that need what was traced last."""
        return self._call(self._traced, digests)

    def between(self, digests: Sequence[Digest]) -> Deferred[list[tuple[Digest, Digest]]]:
        """Fire with what refers to what among ``digests``."""
        return self._call(self._pairs, digests, _BETWEEN)

    def subjects(self, digests: Sequence[Digest]) -> Deferred[list[tuple[Digest, Digest]]]:
        """Fire with those of ``digests`` that have a subject, and with that."""
        return self._call(self._pairs, digests, _SUBJECTS)

    def close(self) -> Deferred[None]:
        """Close the file, and end the thread."""
        return self.thread.run(self._close).addCallback(lambda _: self.thread.close())

    async def _begun(self) -> None:
        await self.thread.run(self._renew)
        with suppress(ReferencesLost):
            await self._call(lambda: check(self._db))
        await self.thread.run(self._renew)
        await self._call(self._begin)

    def _call(self, function: Callable[..., T], *arguments: Any) -> Deferred[T]:
        def work() -> T:
            if self._lost:
                raise ReferencesLost(f"{self.path} was lost in the middle of a run")
            try:
                if self._database is None:
                    self._database = self._open()
                with self._database:
                    answer = function(*arguments)
            except sqlite3.DatabaseError as error:
                self._lose(error)
                raise ReferencesLost(f"{self.path} can not be used: {error}") from error
            if self._files != self._found():
                # Removed, and perhaps made anew by others, with whom it shares what is beside it:
                # only what was read before is sure to be right.
                self._close()
                self._lost = True
                raise ReferencesLost(f"{self.path} was removed in the middle of a run")
            return answer

        return self.thread.run(work)

    # What follows runs on the thread.

    def _renew(self) -> None:
        self._lost = False
        if self._database is not None and self._files != self._found():
            self._close()

    def _found(self) -> tuple[tuple[int, int] | None, ...]:
        """Which files are there now: device and node of the table and of what SQLite needs."""
        return tuple(_node(Path(f"{self.path}{ending}")) for ending in _ENDINGS)

    def _lose(self, error: sqlite3.DatabaseError) -> None:
        self._lost = True
        with suppress(sqlite3.Error):
            self._close()
        if not _is_passing(error):
            self._remove(error)

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.DatabaseError as error:
            if _is_passing(error):
                raise
            self._remove(error)
            return self._connect()

    def _remove(self, error: sqlite3.DatabaseError) -> None:
        log.warn("{path} is damaged and made anew: {reason}", path=self.path, reason=str(error))
        for ending in _ENDINGS:
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
            database.executescript(_KEPT)
            database.execute(f"PRAGMA user_version = {_VERSION}")
            database.executescript(_OF_A_RUN)
            self._files = self._found()
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

    def _begin(self) -> None:
        self._db.execute("DELETE FROM alive")
        self._db.execute("DELETE FROM noted")

    def _note(self, repository: str, sum_: bytes | None) -> None:
        self._db.execute("INSERT OR REPLACE INTO noted VALUES (?, ?)", (repository, sum_))

    def _noted(self, repository: str) -> bytes | None:
        query = "SELECT sum FROM noted WHERE name = ?"
        (found,) = self._db.execute(query, (repository,)).fetchone() or (None,)
        return found

    def _unknown(self, manifests: Sequence[Digest]) -> list[Digest]:
        self._ask(manifests)
        return self._answer(_ASKED.format(which="NOT IN (SELECT id FROM manifest)"))

    def _learn(self, manifests: Sequence[tuple[Digest, References]]) -> None:
        for digest, references in manifests:
            known, subject = self._number(digest), references.subject
            targets = sorted((self._number(target), str(target)) for target in references.digests)
            sum_ = sum_of(
                str(digest),
                None if subject is None else str(subject),
                [name for _, name in targets],
            )
            self._db.execute(
                "INSERT OR REPLACE INTO manifest VALUES (?, ?, ?)",
                (known, None if subject is None else self._number(subject), sum_),
            )
            self._db.executemany(
                "INSERT OR IGNORE INTO reference VALUES (?, ?)",
                [(known, number) for number, _ in targets],
            )

    def _reach(self, table: str, digests: Iterable[Digest]) -> None:
        self._ask(digests)
        self._db.execute(_REACH.format(table=table))

    def _dead(self, digests: Sequence[Digest]) -> list[Digest]:
        self._ask(digests)
        return self._answer(_ASKED.format(which="NOT IN (SELECT id FROM alive)"))

    def _count(self) -> int:
        (count,) = self._db.execute("SELECT count(*) FROM alive").fetchone()
        return int(count)

    def _loose(self, revisions: Sequence[Digest], roots: Iterable[Digest]) -> list[Digest]:
        self._db.execute("DELETE FROM kept")
        found = list(roots)
        while found:
            self._reach("kept", found)
            self._ask(revisions)
            found = self._answer(_REFERRERS)
        self._ask(revisions)
        return self._answer(_ASKED.format(which="NOT IN (SELECT id FROM kept)"))

    def _trace(self, digest: Digest) -> None:
        self._db.execute("DELETE FROM needing")
        self._ask([digest])
        self._db.execute("INSERT INTO needing SELECT id FROM asked")
        # Each step goes through all references: there is no index for a question so rare.
        while self._db.execute(_NEEDING).rowcount > 0:
            pass

    def _traced(self, digests: Sequence[Digest]) -> list[Digest]:
        self._ask(digests)
        return self._answer(_ASKED.format(which="IN (SELECT id FROM needing)"))

    def _pairs(self, digests: Sequence[Digest], query: str) -> list[tuple[Digest, Digest]]:
        self._ask(digests)
        with closing(self._db.execute(query)) as rows:
            return [(Digest.parse(first), Digest.parse(second)) for first, second in rows]

    def _ask(self, digests: Iterable[Digest]) -> None:
        self._db.execute("DELETE FROM asked")
        names = [(str(digest),) for digest in digests]
        self._db.executemany("INSERT OR IGNORE INTO digest (name) VALUES (?)", names)
        self._db.executemany(
            "INSERT OR IGNORE INTO asked SELECT id FROM digest WHERE name = ?", names
        )

    def _answer(self, query: str) -> list[Digest]:
        with closing(self._db.execute(query)) as rows:
            return [Digest.parse(name) for (name,) in rows]

    def _number(self, digest: Digest) -> int:
        name = (str(digest),)
        self._db.execute("INSERT OR IGNORE INTO digest (name) VALUES (?)", name)
        (number,) = self._db.execute("SELECT id FROM digest WHERE name = ?", name).fetchone()
        return int(number)


def _node(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _is_passing(error: sqlite3.DatabaseError) -> bool:
    """Whether the file is whole, and another process or a full disk is in the way."""
    return "locked" in str(error) or "full" in str(error)


def _check_version(database: sqlite3.Connection) -> None:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version not in {0, _VERSION}:
        raise sqlite3.DatabaseError(f"it has version {version}")
