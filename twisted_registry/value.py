"""Values: compared and shown by their fields.

attrs writes these methods anew as source text for each class, and compiles them, which takes more
than half of what making the class costs (0.3 of 0.5 ms). So the values that a start imports, and
whose comparison nobody waits for, have them from here: ``@frozen(eq=False, repr=False)`` over
:class:`Value`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from attrs import fields

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attrs import Attribute, AttrsInstance


class Value:
    """The base of a class of attrs that leaves comparison and representation to it."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        """Whether both are of one class, and all fields that count are equal."""
        if other.__class__ is not self.__class__:
            return NotImplemented
        return all(
            getattr(self, each.name) == getattr(other, each.name)
            for each in _fields(self)
            if each.eq
        )

    def __hash__(self) -> int:
        """The same for what is equal."""
        return hash(tuple(getattr(self, each.name) for each in _fields(self) if each.eq))

    def __repr__(self) -> str:
        """The class and its fields, but for those that are not to be shown."""
        shown = (
            f"{each.name}={_said(each, getattr(self, each.name))}"
            for each in _fields(self)
            if each.repr
        )
        return f"{type(self).__qualname__}({', '.join(shown)})"


def _said(each: Attribute[object], value: object) -> str:
    return each.repr(value) if callable(each.repr) else repr(value)


def _fields(value: Value) -> Sequence[Attribute[object]]:
    found: Sequence[Attribute[object]] = fields(cast("type[AttrsInstance]", type(value)))
    return found
