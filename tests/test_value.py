"""Values compare and show themselves as attrs would have it."""

from __future__ import annotations

from attrs import evolve, field, frozen

from twisted_registry.value import Value


@frozen(eq=False, repr=False)
class Place(Value):
    name: str
    secret: str = field(default="", repr=False)
    note: str = field(default="", eq=False)


@frozen
class Written:
    name: str
    secret: str = field(default="", repr=False)
    note: str = field(default="", eq=False)


@frozen(eq=False, repr=False)
class Other(Place):
    pass


def test_what_has_equal_fields_is_equal_and_hashes_alike():
    assert Place("a", "b") == Place("a", "b", note="not compared")
    assert hash(Place("a", "b")) == hash(Place("a", "b", note="not compared"))
    assert Place("a", "b") != Place("a", "c")
    assert Place("a", "b") != evolve(Place("a", "b"), name="b")


def test_another_class_is_something_else():
    assert Place("a") != Other("a")
    assert Place("a") != "a"


def test_what_must_not_be_shown_is_not():
    shown = repr(Place("a", "hidden", "said"))
    assert shown == repr(Written("a", "hidden", "said")).replace("Written", "Place")
    assert "hidden" not in shown


def test_a_value_has_no_dictionary():
    assert not hasattr(Place("a"), "__dict__")
