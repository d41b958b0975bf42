"""The queue of events: an SQLite file in which they wait until they were sent.

Each row is one event for one endpoint. It is deleted when the endpoint has accepted it, and marked
when the endpoint has refused it for good. What is committed survives the end of the process,
however it ends; a power cut may lose the last moments, since commits are not synced.

Several processes add to one file. The one that holds the lock beside it sends.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from attrs import define, field, frozen

from twisted_registry.storage.files import inherit_owner, make_private_directories

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from twisted_registry.notifications.envelope import Record

#: The path of a queue in memory.
IN_MEMORY: Final = ":memory:"
_SCHEMA_VERSION = 1
#: The database, its write-ahead log, and the index of that.
_FILE_SUFFIXES = ("", "-wal", "-shm")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS event (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    endpoint TEXT NOT NULL,
    refusal TEXT,
    record TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS of_endpoint ON event (endpoint, refusal);
CREATE INDEX IF NOT EXISTS waiting ON event (endpoint, number) WHERE refusal IS NULL;
"""
_SELECT_NEXT = """
SELECT number, endpoint, record, refusal FROM event
WHERE endpoint = ? AND refusal IS NULL ORDER BY number LIMIT ?
"""
_SELECT_PAGE = """
SELECT number, endpoint, record, refusal FROM event
WHERE number > ? AND (refusal IS NOT NULL OR NOT ?) ORDER BY number LIMIT ?
"""
_DELETE_OLDEST = """
DELETE FROM event WHERE number IN (
    SELECT number FROM event WHERE endpoint = ? ORDER BY number LIMIT ?
)
"""
_COUNT = "SELECT endpoint, sum(refusal IS NULL), sum(refusal IS NOT NULL) FROM event GROUP BY 1"
#: How long another process may hold the file, in seconds.
_LOCK_TIMEOUT_S = 5.0
#: The number of events is compared with the maximum when this part of it was added.
_CHECKS_PER_MAXIMUM = 100
#: Errors that mean that the file is not what was written.
_DAMAGE_CODES = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_PRIMARY_CODE_MASK = 0xFF


@frozen
class QueuedEvent:
    """One event for one endpoint.

    :ivar number: its place in the queue.
    :ivar refusal: why the endpoint has refused it for good; None while it waits.
    """

    number: int
    endpoint: str
    record: Record
    refusal: str | None = None


@frozen
class EventCount:
    """The events of an endpoint.

    :ivar waiting: those that will be sent.
    :ivar refused: those that were refused for good.
    """

    waiting: int = 0
    refused: int = 0


class QueueDamaged(Exception):
    """The file is damaged, or of another version; it was moved aside."""


@define(eq=False)
class EventQueue:
    """The queue. All methods block, so they are called on one thread.

    The file is opened by the first call, and again after a failed one. All methods raise
    ``sqlite3.Error`` or ``OSError`` if it cannot be used, and :class:`QueueDamaged`.

    :ivar path: path of the file, or :data:`IN_MEMORY`.
    :ivar max_events: rows for each endpoint; beyond it the oldest are dropped.
    :ivar must_exist: whether a missing file is an error instead of an empty queue.
    """

    path: str
    max_events: int
    must_exist: bool = False
    _database: sqlite3.Connection | None = field(init=False, default=None)
    _identity: tuple[int, int] | None = field(init=False, default=None)
    _lock: int | None = field(init=False, default=None)
    _unchecked: Counter[str] = field(init=False, factory=Counter)

    def add(self, events: Iterable[tuple[str, Record]]) -> Mapping[str, int]:
        """Store events durably, all or none.

        :param events: pairs of endpoint and record, in order.
        :returns: how many old events were dropped for them, by endpoint.
        """
        rows = [(endpoint, json.dumps(record)) for endpoint, record in events]
        with self._transaction() as database:
            database.executemany("INSERT INTO event (endpoint, record) VALUES (?, ?)", rows)
            return self._drop_oldest(database, Counter(endpoint for endpoint, _ in rows))

    def next_events(self, endpoint: str, limit: int) -> Sequence[QueuedEvent]:
        """Return the oldest events that wait for an endpoint."""
        with self._transaction() as database:
            return [_make_event(row) for row in database.execute(_SELECT_NEXT, (endpoint, limit))]

    def remove(self, number: int) -> None:
        """Remove an event, because it was accepted."""
        with self._transaction() as database:
            database.execute("DELETE FROM event WHERE number = ?", (number,))

    def refuse(self, number: int, reason: str) -> None:
        """Set an event apart, because its endpoint has refused it for good."""
        with self._transaction() as database:
            database.execute("UPDATE event SET refusal = ? WHERE number = ?", (reason, number))

    def counts(self) -> Mapping[str, EventCount]:
        """Return the numbers of events by endpoint."""
        with self._transaction() as database:
            return {name: EventCount(*numbers) for name, *numbers in database.execute(_COUNT)}

    def list_events(self, *, refused_only: bool, after: int, limit: int) -> Sequence[QueuedEvent]:
        """Return a page of all events, the oldest first.

        :param after: the number of the last event of the page before; 0 for the first page.
        """
        with self._transaction() as database:
            rows = database.execute(_SELECT_PAGE, (after, refused_only, limit))
            return [_make_event(row) for row in rows]

    def replay(self, numbers: Sequence[int] | None) -> int:
        """Let refused events wait again, and return how many these are.

        :param numbers: None for all.
        """
        return self._change("UPDATE event SET refusal = NULL", numbers)

    def discard(self, numbers: Sequence[int] | None) -> int:
        """Delete refused events, and return how many these were.

        :param numbers: None for all.
        """
        return self._change("DELETE FROM event", numbers)

    def remove_other_endpoints(self, names: Sequence[str]) -> Mapping[str, int]:
        """Delete the events of endpoints that are not in ``names``; return how many, by name."""
        with self._transaction() as database:
            found = {name: sum(numbers) for name, *numbers in database.execute(_COUNT)}
            gone = {name: count for name, count in found.items() if name not in names}
            database.executemany("DELETE FROM event WHERE endpoint = ?", [(name,) for name in gone])
            return gone

    def try_lock(self) -> bool:
        """Return whether this process is the one that sends; it stays so until it ends."""
        if self.path == IN_MEMORY:
            return True
        if self._lock is None:
            make_private_directories(Path(self.path).parent)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            descriptor = os.open(f"{self.path}.lock", flags, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return False
            self._lock = descriptor
        return True

    def close(self) -> None:
        """Close the file, and free the lock."""
        self._close_database()
        descriptor, self._lock = self._lock, None
        if descriptor is not None:
            os.close(descriptor)

    def _change(self, statement: str, numbers: Sequence[int] | None) -> int:
        with self._transaction() as database:
            if numbers is None:
                return database.execute(f"{statement} WHERE refusal IS NOT NULL").rowcount
            one = f"{statement} WHERE refusal IS NOT NULL AND number = ?"
            return sum(database.execute(one, (number,)).rowcount for number in numbers)

    def _drop_oldest(
        self, database: sqlite3.Connection, added: Mapping[str, int]
    ) -> Mapping[str, int]:
        dropped = {}
        for endpoint, count in added.items():
            self._unchecked[endpoint] += count
            # Counting rows takes time: not for each event of a long queue.
            if self._unchecked[endpoint] * _CHECKS_PER_MAXIMUM < self.max_events:
                continue
            self._unchecked[endpoint] = 0
            query = "SELECT count(*) FROM event WHERE endpoint = ?"
            (found,) = database.execute(query, (endpoint,)).fetchone()
            if found > self.max_events:
                dropped[endpoint] = found - self.max_events
                database.execute(_DELETE_OLDEST, (endpoint, found - self.max_events))
        return dropped

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit at the end of the block; after an error roll back, and close the file."""
        if self._database is not None and self._identity != self._file_identity():
            self._close_database()  # the file was deleted or replaced
        if self._database is None:
            self._database = self._open()
            self._identity = self._file_identity()
        try:
            with self._database:
                yield self._database
        except sqlite3.Error as error:
            self._handle_error(error)
            raise

    def _file_identity(self) -> tuple[int, int] | None:
        if self.path == IN_MEMORY:
            return None
        try:
            found = Path(self.path).stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _handle_error(self, error: sqlite3.Error) -> None:
        """Close the file, and move it aside if it is damaged."""
        if self.path == IN_MEMORY:
            return
        self._close_database()
        code = getattr(error, "sqlite_errorcode", 0) & _PRIMARY_CODE_MASK
        if code in _DAMAGE_CODES:
            self._move_aside(str(error))

    def _close_database(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            with suppress(sqlite3.Error):
                database.close()

    def _open(self) -> sqlite3.Connection:
        if self.path != IN_MEMORY:
            self._prepare_file()
        database = sqlite3.connect(self.path, timeout=_LOCK_TIMEOUT_S, check_same_thread=False)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if not version:  # a file that has it is only read, which a full disk allows
                database.executescript(_SCHEMA)
                database.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
        except BaseException as error:
            database.close()
            if isinstance(error, sqlite3.Error):
                self._handle_error(error)
            raise
        if version not in {0, _SCHEMA_VERSION}:
            database.close()
            self._move_aside(f"its version is {version}")
        return database

    def _prepare_file(self) -> None:
        """Make the file and its directory, for the serving user only.

        :raises FileNotFoundError: if it is missing, and must exist.
        """
        path = Path(self.path)
        # An existing file is not opened: closing it would free the locks of SQLite in this process.
        if self.must_exist:
            path.stat()
            return
        make_private_directories(path.parent)
        with suppress(FileExistsError):
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            descriptor = os.open(path, flags, 0o600)
            inherit_owner(descriptor, str(path.parent))
            os.close(descriptor)

    def _move_aside(self, reason: str) -> NoReturn:
        if self.must_exist:
            raise QueueDamaged(f"{self.path} cannot be read: {reason}")
        for suffix in _FILE_SUFFIXES:
            with suppress(FileNotFoundError):
                Path(f"{self.path}{suffix}").rename(f"{self.path}.damaged{suffix}")
        raise QueueDamaged(f"{self.path} was renamed to {self.path}.damaged: {reason}")


def _make_event(row: tuple[int, str, str, str | None]) -> QueuedEvent:
    number, endpoint, record, refusal = row
    return QueuedEvent(number, endpoint, json.loads(record), refusal)
