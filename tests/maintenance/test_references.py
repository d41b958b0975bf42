"""The table of references, on disk."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from inline import Inline
from twisted.trial.unittest import SynchronousTestCase

from twisted_registry.digest import Digest
from twisted_registry.maintenance.references import ReferencesLost, ReferenceTable
from twisted_registry.manifest import References

result_of = SynchronousTestCase().successResultOf
A, B, C, D, E = (Digest.of(name) for name in (b"a", b"b", b"c", b"d", b"e"))
LONG = Digest.of(b"long", "sha512")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "below" / "references.sqlite"


@pytest.fixture
def table(path):
    table = ReferenceTable(str(path), Inline())
    yield table
    result_of(table.close())


def learn(table, **references):
    named = {"a": A, "b": B, "c": C, "d": D, "e": E}
    result_of(
        table.learn(
            [(named[name], References(frozenset(targets))) for name, targets in references.items()]
        )
    )


def test_what_is_kept_is_alive_with_all_that_it_refers_to(table):
    learn(table, a=[B, LONG], b=[C])
    result_of(table.begin())
    everything = [A, B, C, D, LONG]
    assert sorted(result_of(table.dead(everything))) == sorted(everything)
    result_of(table.keep([A]))
    assert result_of(table.dead([A, B, C, D, LONG])) == [D]
    assert result_of(table.count()) == 4
    result_of(table.begin())
    assert result_of(table.count()) == 0


def test_circles_end(table):
    learn(table, a=[B], b=[A])
    result_of(table.keep([A]))
    assert result_of(table.dead([A, B])) == []


def test_what_was_learnt_is_known_after_a_restart(table, path):
    assert sorted(result_of(table.unknown([A, B]))) == sorted([A, B])
    learn(table, a=[B])
    assert result_of(table.unknown([A, B])) == [B]
    again = ReferenceTable(str(path), Inline())
    assert result_of(again.unknown([A, B])) == [B]
    result_of(again.keep([A]))
    assert result_of(again.dead([B])) == []
    assert result_of(table.dead([B])) == [B], "what is alive is a matter of one run"
    result_of(again.close())
    result_of(again.close())


def test_what_holds_a_revision(table):
    result_of(
        table.learn(
            [
                (A, References(frozenset([B]))),
                (C, References(frozenset(), subject=A)),
                (D, References(frozenset(), subject=C)),
                (E, References(frozenset(), subject=LONG)),
            ]
        )
    )
    revisions = [A, B, C, D, E]
    assert result_of(table.loose(revisions, [A])) == [E]
    assert sorted(result_of(table.loose(revisions, []))) == sorted(revisions)
    assert sorted(result_of(table.loose(revisions, [B]))) == sorted([A, C, D, E])
    # A referrer that another repository holds holds nothing here.
    assert result_of(table.loose([A, D], [A])) == [D]


@pytest.mark.parametrize("content", [b"no database at all" * 100, b""])
def test_a_damaged_file_is_made_anew(table, path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    learn(table, a=[B])
    assert result_of(table.unknown([A])) == []


def test_a_file_of_another_version_is_made_anew(table, path):
    path.parent.mkdir()
    other = sqlite3.connect(path)
    other.executescript("CREATE TABLE manifest (other TEXT); PRAGMA user_version = 99")
    other.close()
    learn(table, a=[B])
    assert result_of(table.unknown([A])) == []


def lost(deferred):
    SynchronousTestCase().failureResultOf(deferred).trap(ReferencesLost)


@pytest.mark.parametrize("ending", ["", "-wal", "-shm"])
def test_a_file_that_is_removed_while_it_is_used(table, path, ending):
    """Whatever might not be right is not answered, until the next run begins."""
    learn(table, a=[B])
    result_of(table.begin())
    result_of(table.keep([A]))
    (path.parent / f"{path.name}{ending}").unlink()
    lost(table.dead([A, B, C]))
    lost(table.dead([A, B, C]))
    result_of(table.begin())
    if ending == "":
        assert result_of(table.unknown([A])) == [A]
    learn(table, a=[B])
    result_of(table.keep([A]))
    assert result_of(table.dead([A, B, C])) == [C]


def test_a_file_that_is_removed_and_made_anew_by_others(table, path):
    learn(table, a=[B])
    path.unlink()
    for ending in ("-wal", "-shm"):
        (path.parent / f"{path.name}{ending}").unlink()
    other = ReferenceTable(str(path), Inline())
    learn(other, b=[C])
    lost(table.dead([A]))
    result_of(table.begin())
    assert result_of(table.unknown([A, B])) == [A]
    learn(table, a=[B])
    assert result_of(other.unknown([A, B])) == []
    result_of(other.close())


def test_a_file_that_is_damaged_while_it_is_used(table, path):
    learn(table, a=[B])
    result_of(table.begin())
    result_of(table.keep([A]))
    again = ReferenceTable(str(path), Inline())
    result_of(again.unknown([A]))
    with path.open("r+b") as file:
        file.write(b"no database at all" * 1000)
    for ending in ("-wal", "-shm"):
        with (path.parent / f"{path.name}{ending}").open("r+b") as file:
            file.write(b"\xff" * 1000)
    learnt = [(Digest.of(b"%d" % number), References(frozenset([A]))) for number in range(2000)]
    lost(again.learn(learnt))
    result_of(again.begin())
    assert result_of(again.unknown([A])) == [A]
    # The other finds out that it is no longer there.
    lost(table.dead([A, B]))
    result_of(again.close())


def test_a_file_that_somebody_else_keeps_locked_stays(table, path):
    learn(table, a=[B])
    other = sqlite3.connect(path)
    other.execute("BEGIN EXCLUSIVE")
    table._database.execute("PRAGMA busy_timeout = 1")
    lost(table.learn([(C, References(frozenset()))]))
    other.rollback()
    other.close()
    result_of(table.begin())
    assert result_of(table.unknown([A])) == []


def test_a_part_of_what_was_to_be_learnt_is_never_kept(table, path):
    class Broken:
        subject = None

        @property
        def digests(self):
            raise RuntimeError("in the middle")

    failed = SynchronousTestCase().failureResultOf(
        table.learn([(A, References(frozenset([B]))), (C, Broken())])
    )
    failed.trap(RuntimeError)
    assert sorted(result_of(table.unknown([A, C]))) == sorted([A, C])


def test_no_question_goes_through_the_whole_table(table):
    """Each repository asks, so that the work would grow with the square of the store."""
    learn(table, a=[B, C], b=[C])
    statements = set()
    table._db.set_trace_callback(statements.add)
    for asking in (
        table.unknown([A, D]),
        table.keep([A]),
        table.dead([A, D]),
        table.loose([A, B], [A]),
        table.between([A, B]),
        table.subjects([A, B]),
        table.traced([A, B]),
    ):
        result_of(asking)
    table._db.set_trace_callback(None)
    asked = [text for text in statements if text.lstrip().startswith(("SELECT", "WITH", "INSERT"))]
    assert len(asked) > 7
    plans = {text: table._db.execute(f"EXPLAIN QUERY PLAN {text}").fetchall() for text in asked}
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
def test_a_value_that_was_changed_in_a_sound_table(table, path, statement):
    result_of(table.learn([(A, References(frozenset([B, C]), subject=E))]))
    result_of(table.begin())
    assert result_of(table.unknown([A, D])) == [D]
    with closing(sqlite3.connect(path)) as other, other:
        assert other.execute(statement.format(a=A, b=B, d=D, long=LONG)).rowcount > 0
    result_of(table.begin())
    assert result_of(table.unknown([A])) == [A]
    result_of(table.learn([(A, References(frozenset([B, C]), subject=E))]))
    result_of(table.begin())
    result_of(table.keep([A]))
    assert result_of(table.dead([B, C, D])) == [D]


def test_bytes_that_were_changed_in_the_file(table, path):
    """Each place of a name: in the table, or in the index by which it is looked for."""
    learn(table, a=[B])
    result_of(table.close())
    whole = path.read_bytes()
    places = [at for at in range(len(whole)) if whole.startswith(str(B).encode(), at)]
    assert len(places) == 2
    for at in places:
        path.write_bytes(whole[: at + 70] + b"~" + whole[at + 71 :])
        again = ReferenceTable(str(path), Inline())
        result_of(again.begin())
        assert result_of(again.unknown([A])) == [A]
        result_of(again.close())
