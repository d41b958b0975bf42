"""The database of references, on disk."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.support.inline_thread import InlineThread
from twisted_registry.gc.reference_db import ReferenceDatabase, ReferenceDatabaseLost
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.manifest import References

result_of = SynchronousTestCase().successResultOf
A, B, C, D, E = (Digest.of(name) for name in (b"a", b"b", b"c", b"d", b"e"))
LONG = Digest.of(b"long", "sha512")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "below" / "references.sqlite"


@pytest.fixture
def connections(monkeypatch):
    """Collect the connections that are opened."""
    opened, connect = [], sqlite3.connect

    def collecting_connect(*args, **kwargs):
        opened.append(connect(*args, **kwargs))
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", collecting_connect)
    return opened


@pytest.fixture
def database(path):
    database = ReferenceDatabase(str(path), InlineThread())
    yield database
    result_of(database.close())


def add_manifests(database, **references):
    named = {"a": A, "b": B, "c": C, "d": D, "e": E}
    result_of(
        database.add_manifests(
            [(named[name], References(frozenset(targets))) for name, targets in references.items()]
        )
    )


def test_marked_digest_is_reachable_with_all_that_it_refers_to(database):
    add_manifests(database, a=[B, LONG], b=[C])
    result_of(database.begin_run())
    everything = [A, B, C, D, LONG]
    assert sorted(result_of(database.unreachable(everything))) == sorted(everything)
    result_of(database.mark_alive([A]))
    assert result_of(database.unreachable([A, B, C, D, LONG])) == [D]
    assert result_of(database.count_alive()) == 4
    result_of(database.begin_run())
    assert result_of(database.count_alive()) == 0


def test_circular_references_are_followed_once(database):
    add_manifests(database, a=[B], b=[A])
    result_of(database.mark_alive([A]))
    assert result_of(database.unreachable([A, B])) == []


def test_references_are_kept_between_runs_and_reachability_is_not(database, path):
    assert sorted(result_of(database.unknown_manifests([A, B]))) == sorted([A, B])
    add_manifests(database, a=[B])
    assert result_of(database.unknown_manifests([A, B])) == [B]
    again = ReferenceDatabase(str(path), InlineThread())
    assert result_of(again.unknown_manifests([A, B])) == [B]
    result_of(again.mark_alive([A]))
    assert result_of(again.unreachable([B])) == []
    assert result_of(database.unreachable([B])) == [B], "reachability belongs to one run"
    result_of(again.close())
    result_of(again.close())


def test_roots_references_and_subjects_hold_revisions(database):
    result_of(
        database.add_manifests(
            [
                (A, References(frozenset([B]))),
                (C, References(frozenset(), subject=A)),
                (D, References(frozenset(), subject=C)),
                (E, References(frozenset(), subject=LONG)),
            ]
        )
    )
    revisions = [A, B, C, D, E]
    assert result_of(database.unreferenced(revisions, [A])) == [E]
    assert sorted(result_of(database.unreferenced(revisions, []))) == sorted(revisions)
    assert sorted(result_of(database.unreferenced(revisions, [B]))) == sorted([A, C, D, E])
    # A referrer in another repository holds nothing in this one.
    assert result_of(database.unreferenced([A, D], [A])) == [D]


@pytest.mark.parametrize("content", [b"no database at all" * 100, b""])
def test_damaged_file_is_recreated(database, path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    add_manifests(database, a=[B])
    assert result_of(database.unknown_manifests([A])) == []


def test_file_of_another_schema_version_is_recreated(database, path):
    path.parent.mkdir()
    other = sqlite3.connect(path)
    other.executescript("CREATE TABLE manifest (other TEXT); PRAGMA user_version = 99")
    other.close()
    add_manifests(database, a=[B])
    assert result_of(database.unknown_manifests([A])) == []


def lost(deferred):
    SynchronousTestCase().failureResultOf(deferred).trap(ReferenceDatabaseLost)


@pytest.mark.parametrize("ending", ["", "-wal", "-shm"])
def test_file_deleted_during_a_run_ends_the_run(database, path, ending):
    """Possibly wrong results are not returned until the next run begins."""
    add_manifests(database, a=[B])
    result_of(database.begin_run())
    result_of(database.mark_alive([A]))
    (path.parent / f"{path.name}{ending}").unlink()
    lost(database.unreachable([A, B, C]))
    lost(database.unreachable([A, B, C]))
    result_of(database.begin_run())
    if ending == "":
        assert result_of(database.unknown_manifests([A])) == [A]
    add_manifests(database, a=[B])
    result_of(database.mark_alive([A]))
    assert result_of(database.unreachable([A, B, C])) == [C]


def test_file_recreated_by_another_process_ends_the_run(database, path):
    add_manifests(database, a=[B])
    path.unlink()
    for ending in ("-wal", "-shm"):
        (path.parent / f"{path.name}{ending}").unlink()
    other = ReferenceDatabase(str(path), InlineThread())
    add_manifests(other, b=[C])
    lost(database.unreachable([A]))
    result_of(database.begin_run())
    assert result_of(database.unknown_manifests([A, B])) == [A]
    add_manifests(database, a=[B])
    assert result_of(other.unknown_manifests([A, B])) == []
    result_of(other.close())


def test_file_damaged_during_a_run_ends_the_run(database, path):
    add_manifests(database, a=[B])
    result_of(database.begin_run())
    result_of(database.mark_alive([A]))
    again = ReferenceDatabase(str(path), InlineThread())
    result_of(again.unknown_manifests([A]))
    with path.open("r+b") as file:
        file.write(b"no database at all" * 1000)
    for ending in ("-wal", "-shm"):
        with (path.parent / f"{path.name}{ending}").open("r+b") as file:
            file.write(b"\xff" * 1000)
    learnt = [(Digest.of(b"%d" % number), References(frozenset([A]))) for number in range(2000)]
    lost(again.add_manifests(learnt))
    result_of(again.begin_run())
    assert result_of(again.unknown_manifests([A])) == [A]
    # The other connection detects that its file was replaced.
    lost(database.unreachable([A, B]))
    result_of(again.close())


def test_locked_file_ends_the_run_and_is_not_replaced(database, path, connections):
    add_manifests(database, a=[B])
    other = sqlite3.connect(path)
    other.execute("BEGIN EXCLUSIVE")
    connections[0].execute("PRAGMA busy_timeout = 1")
    lost(database.add_manifests([(C, References(frozenset()))]))
    other.rollback()
    other.close()
    result_of(database.begin_run())
    assert result_of(database.unknown_manifests([A])) == []


def test_full_disk_ends_the_run_and_the_next_one_is_in_memory(database, path, connections):
    add_manifests(database, a=[B])
    connections[0].execute("PRAGMA max_page_count = 10")
    learnt = [(Digest.of(b"%d" % number), References(frozenset([A]))) for number in range(2000)]
    lost(database.add_manifests(learnt))
    # It is gone, because it takes space.
    assert list(path.parent.iterdir()) == []
    result_of(database.begin_run())
    assert database.in_memory
    assert result_of(database.unknown_manifests([A])) == [A]
    result_of(database.add_manifests(learnt))
    add_manifests(database, a=[B])
    result_of(database.begin_run())
    result_of(database.mark_alive([learnt[0][0]]))
    assert result_of(database.unreachable([A, B, C])) == [C]
    assert not path.exists()
    result_of(database.use_file())
    add_manifests(database, a=[C])
    assert path.exists()
    assert result_of(database.unknown_manifests([A, learnt[0][0]])) == [learnt[0][0]]


def test_database_without_a_folder_is_in_memory(tmp_path):
    """A full disk has no space for the folder. Here a file is in its place."""
    (tmp_path / "file").touch()
    database = ReferenceDatabase(str(tmp_path / "file" / "references.sqlite"), InlineThread())
    add_manifests(database, a=[B])
    result_of(database.begin_run())
    assert result_of(database.unknown_manifests([A, B])) == [B]
    result_of(database.close())


def test_failed_addition_stores_nothing(database, path):
    class Broken:
        subject = None

        @property
        def digests(self):
            raise RuntimeError("in the middle")

    failed = SynchronousTestCase().failureResultOf(
        database.add_manifests([(A, References(frozenset([B]))), (C, Broken())])
    )
    failed.trap(RuntimeError)
    assert sorted(result_of(database.unknown_manifests([A, C]))) == sorted([A, C])


def test_no_query_scans_a_whole_table(database, connections):
    """There are queries for each repository, so the work would grow with the store squared."""
    add_manifests(database, a=[B, C], b=[C])
    statements = set()
    (connection,) = connections
    connection.set_trace_callback(statements.add)
    for asking in (
        database.unknown_manifests([A, D]),
        database.mark_alive([A]),
        database.unreachable([A, D]),
        database.unreferenced([A, B], [A]),
        database.references_between([A, B]),
        database.subjects([A, B]),
        database.filter_dependents([A, B]),
    ):
        result_of(asking)
    connection.set_trace_callback(None)
    asked = [text for text in statements if text.lstrip().startswith(("SELECT", "WITH", "INSERT"))]
    assert len(asked) > 7
    plans = {text: connection.execute(f"EXPLAIN QUERY PLAN {text}").fetchall() for text in asked}
    kept = {"SCAN digest", "SCAN manifest", "SCAN reference"}
    for text, plan in plans.items():
        assert not [step for *_, step in plan if step in kept], text


FLIPS = {
    "target": "UPDATE reference SET target = (SELECT id FROM digest WHERE name = '{d}')"
    " WHERE target = (SELECT id FROM digest WHERE name = '{b}')",
    "a reference less": "DELETE FROM reference WHERE target = (SELECT id FROM digest WHERE"
    " name = '{b}')",
    "name of a target": "UPDATE digest SET name = '{long}' WHERE name = '{b}'",
    "name of a holder": "UPDATE digest SET name = '{long}' WHERE name = '{a}'",
    "subject": "UPDATE manifest SET subject = subject + 1",
    "no subject": "UPDATE manifest SET subject = NULL",
    "sum": "UPDATE manifest SET sum = sum + 1",
    "holder": "UPDATE reference SET manifest = manifest + 1000",
}


@pytest.mark.parametrize("statement", FLIPS.values(), ids=FLIPS.keys())
def test_changed_value_in_a_valid_database_is_detected(database, path, statement):
    result_of(database.add_manifests([(A, References(frozenset([B, C]), subject=E))]))
    result_of(database.begin_run())
    assert result_of(database.unknown_manifests([A, D])) == [D]
    with closing(sqlite3.connect(path)) as other, other:
        assert other.execute(statement.format(a=A, b=B, d=D, long=LONG)).rowcount > 0
    result_of(database.begin_run())
    assert result_of(database.unknown_manifests([A])) == [A]
    result_of(database.add_manifests([(A, References(frozenset([B, C]), subject=E))]))
    result_of(database.begin_run())
    result_of(database.mark_alive([A]))
    assert result_of(database.unreachable([B, C, D])) == [D]


def test_changed_bytes_in_the_file_are_detected(database, path):
    """A digest is stored in the table and in the index."""
    add_manifests(database, a=[B])
    result_of(database.close())
    whole = path.read_bytes()
    places = [at for at in range(len(whole)) if whole.startswith(str(B).encode(), at)]
    assert len(places) == 2
    for at in places:
        path.write_bytes(whole[: at + 70] + b"~" + whole[at + 71 :])
        again = ReferenceDatabase(str(path), InlineThread())
        result_of(again.begin_run())
        assert result_of(again.unknown_manifests([A])) == [A]
        result_of(again.close())
