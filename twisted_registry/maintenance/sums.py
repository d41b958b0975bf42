"""Whether a table of references still says what was written into it.

A disk may change a value and leave a sound table behind: one reference less, and a blob that is
needed looks dead. So each manifest has a sum over its name and all names that it refers to, and a
table is believed for a run only if all of them are right, and its indexes as well: a name that an
index hides would be taken for new.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Iterable

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
