from __future__ import annotations

import os

import pytest

from twisted_registry.workers.port import ProcessTable


@pytest.fixture
def tables():
    """The table, as each of three processes sees it."""
    first = ProcessTable.create(3)
    made = [first, *(ProcessTable(os.dup(first.fileno()), 3, number) for number in (1, 2))]
    yield made
    for each in made:
        each.close()


def test_a_process_that_is_not_registered_never_has_fewer(tables):
    first, second, _ = tables
    first.register()
    first.publish(5)
    assert not first.others_have_fewer()
    second.publish(0)  # before it registers: ignored
    assert not first.others_have_fewer()
    second.register()
    assert first.others_have_fewer()
    assert not second.others_have_fewer()


def test_an_equal_number_is_not_fewer(tables):
    first, second, third = tables
    for each in tables:
        each.register()
        each.publish(2)
    assert not any(each.others_have_fewer() for each in tables)
    third.publish(1)
    assert first.others_have_fewer()
    assert second.others_have_fewer()
    assert not third.others_have_fewer()


def test_a_process_that_unregisters_never_has_fewer(tables):
    first, second, _ = tables
    for each in (first, second):
        each.register()
    first.publish(1)
    assert first.others_have_fewer()
    second.unregister()
    second.publish(0)  # its connections end while it drains
    assert not first.others_have_fewer()


def test_a_process_that_is_marked_gone_never_has_fewer(tables):
    first, second, _ = tables
    for each in (first, second):
        each.register()
    first.publish(1)
    first.mark_gone(1)
    assert not first.others_have_fewer()


def test_each_process_sees_the_removals_of_all(tables):
    seen = {each.removals() for each in tables}
    assert len(seen) == 1
    for remover in tables:
        remover.count_removal()
        numbers = {each.removals() for each in tables}
        assert len(numbers) == 1
        assert not numbers & seen
        seen |= numbers


def test_each_process_sees_the_health_that_the_first_has_set(tables):
    assert [each.health() for each in tables] == [0, 0, 0]
    tables[0].set_health(2)
    assert [each.health() for each in tables] == [2, 2, 2]
    for each in tables:
        each.register()
        each.publish(7)
        each.count_removal()
    assert [each.health() for each in tables] == [2, 2, 2]


def test_each_process_gives_its_own_answers(tables):
    first, second, third = tables
    second.answer(7)
    third.count_removal()
    third.set_health(1)
    assert [first.last_answer(number) for number in range(3)] == [0, 7, 0]
