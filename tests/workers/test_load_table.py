from __future__ import annotations

import os

import pytest

from twisted_registry.workers.port import LoadTable


@pytest.fixture
def tables():
    """The table, as each of three processes sees it."""
    first = LoadTable.make(3)
    made = [first, *(LoadTable(os.dup(first.fileno()), 3, number) for number in (1, 2))]
    yield made
    for each in made:
        each.close()


def test_who_is_not_there_has_no_fewer(tables):
    first, second, _ = tables
    first.enter()
    first.publish(5)
    assert not first.others_have_fewer()
    second.publish(0)  # before it is there
    assert not first.others_have_fewer()
    second.enter()
    assert first.others_have_fewer()
    assert not second.others_have_fewer()


def test_equal_is_no_fewer(tables):
    first, second, third = tables
    for each in tables:
        each.enter()
        each.publish(2)
    assert not any(each.others_have_fewer() for each in tables)
    third.publish(1)
    assert first.others_have_fewer()
    assert second.others_have_fewer()
    assert not third.others_have_fewer()


def test_who_leaves_is_not_waited_for(tables):
    first, second, _ = tables
    for each in (first, second):
        each.enter()
    first.publish(1)
    assert first.others_have_fewer()
    second.leave()
    second.publish(0)  # its connections end while it drains
    assert not first.others_have_fewer()


def test_who_died_is_not_waited_for(tables):
    first, second, _ = tables
    for each in (first, second):
        each.enter()
    first.publish(1)
    first.gone(1)
    assert not first.others_have_fewer()
