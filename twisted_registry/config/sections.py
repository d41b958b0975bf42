"""Sections: what a field of a schema class declares, and how a mapping becomes an instance.

A field made by :func:`key` or :func:`section` is a :class:`Key`: the kind that reads the
value, the sentence for the reference, and whether it is secret. The reader, the environment,
the masked print and the reference all go by it.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast, dataclass_transform

from attrs.exceptions import FrozenInstanceError

from twisted_registry.config.document import Node, mask_url
from twisted_registry.config.kinds import Kind, KindMismatchError, ReadContext, mask, read

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

T = TypeVar("T")


class Key:
    """What a field of the schema declares beside its type.

    :ivar kind: reads and checks the value.
    :ivar doc: the sentence of the reference.
    :ivar default: what holds when the key is absent.
    :ivar name: as the file spells it.
    :ivar secret: never shown.
    :ivar required: a section must have it, unless it is switched off.
    :ivar ours: Distribution does not know it (and ignores it).
    :ivar section: the class whose defaults hold when the key is absent.
    :ivar attribute: the field of the class.
    """

    def __init__(
        self,
        kind: Kind,
        doc: str,
        *,
        default: Any = None,
        name: str = "",
        secret: bool = False,
        required: bool = False,
        extension: bool = False,
        section: type | None = None,
    ) -> None:
        self.kind = kind
        self.doc = doc
        self.default = default
        self.name = name
        self.secret = secret
        self.required = required
        self.extension = extension
        self.section = section
        self.attribute = ""

    def __set_name__(self, _owner: type, attribute: str) -> None:
        """Learn from Python what the field is called."""
        self.attribute = attribute
        self.name = self.name or attribute


def key(
    kind: Kind,
    doc: str,
    *,
    default: Any = None,
    name: str = "",
    secret: bool = False,
    required: bool = False,
    extension: bool = False,
) -> Any:
    """A field of a schema class; the arguments are those of :class:`Key`."""
    return Key(
        kind, doc, default=default, name=name, secret=secret, required=required, extension=extension
    )


class SectionBase:
    """The base of the schema's classes: frozen, compared and shown by their keys but secrets.

    Written once here, because attrs compiles these methods anew for every class, and with
    some fifty of them that alone would take 15 to 20 ms of every start.
    """

    def __init__(self, **given: Any) -> None:
        """Take the fields by name; those that are not given have their defaults."""
        values = vars(self)
        for spec in self._keys():
            if spec.attribute in given:
                values[spec.attribute] = given.pop(spec.attribute)
            else:
                values[spec.attribute] = spec.section() if spec.section else spec.default
        if given:
            raise TypeError(f"{type(self).__name__} has no {', '.join(given)}")

    def __setattr__(self, name: str, value: object) -> None:
        raise FrozenInstanceError

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other) if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        # Tables are dictionaries, which have no hash; nobody keeps many configurations.
        return hash(type(self))

    def __repr__(self) -> str:
        shown = (
            f"{spec.attribute}={getattr(self, spec.attribute)!r}"
            for spec in self._keys()
            if not spec.secret
        )
        return mask_url(f"{type(self).__name__}({', '.join(shown)})")

    def _keys(self) -> Iterable[Key]:
        of: Any = type(self)
        return schema_keys(of).values()


@dataclass_transform(kw_only_default=True, frozen_default=True)
def schema(cls: type[T]) -> type[T]:
    """Tell type checkers that *cls*, which must inherit :class:`SectionBase`, takes its fields."""
    return cls


def section(
    of: type[T],
    doc: str,
    *,
    allows_bare_name: bool = False,
    strict: bool = False,
    extension: bool = False,
) -> T:
    """A field that is always there, with the defaults of *of* when the file is silent."""
    kind = Section("a section", of, allows_bare_name=allows_bare_name, strict=strict)
    return cast("T", Key(kind, doc, section=of, extension=extension))


@cache
def schema_keys(of: type) -> Mapping[str, Key]:
    """The keys that a class of the schema declares, by name and in order."""
    return {spec.name: spec for spec in vars(of).values() if isinstance(spec, Key)}


class Section(Kind):
    """A mapping whose keys a class of the schema declares; the value is an instance.

    :ivar of: the class of the schema.
    :ivar bare: a name alone stands for a section with that one key (``storage: inmemory``).
    :ivar closed: an unknown key is a fault, where ignoring it would be dangerous.
    :ivar empty: present without a value is a section, too (``inmemory:``).
    """

    takes_null: ClassVar[bool] = True

    def __init__(
        self,
        expected: str,
        of: type,
        *,
        allows_bare_name: bool = False,
        strict: bool = False,
        allows_empty: bool = False,
    ) -> None:
        super().__init__(expected)
        self.of = of
        self.allows_bare_name = allows_bare_name
        self.strict = strict
        self.allows_empty = allows_empty

    def read(self, node: Node, place: ReadContext) -> Any:
        """As promised by :class:`Kind`."""
        if self.allows_bare_name:
            expand_bare_name(node)
        if node.value is None:
            if not self.allows_empty:
                return None
            node = Node({}, node.text, node.origin)
        if not isinstance(node.value, dict):
            raise KindMismatchError
        known = schema_keys(self.of)
        found = {}
        for name, child in node.value.items():
            if name not in known:
                self._unknown(name, child, place)
                continue
            spec = known[name]
            value = read(spec.kind, child, place.key(name, secret=spec.secret))
            if value is not None:
                found[spec.attribute] = value
        for name, spec in known.items():
            given = name in node.value and node.value[name].value is not None
            if spec.required and not given and not _is_disabled(node.value):
                below = place.key(name)
                place.report.fault(below.path, None, "the key is required", node.origin)
        return self.of(**found)

    def _unknown(self, name: str, node: Node, place: ReadContext) -> None:
        known = schema_keys(self.of)
        below = place.key(name).path
        if self.strict:
            place.report.fault(below, None, f"unknown; known are {', '.join(known)}", node.origin)
        else:
            place.report.unknown(below, name, known, node.origin)

    def dump(self, value: Any) -> Any:
        """As promised by :class:`Kind`; secrets masked, what is not set left out."""
        said = {}
        for name, spec in schema_keys(self.of).items():
            item = getattr(value, spec.attribute)
            plain = None if item is None else spec.kind.dump(item)
            present = isinstance(spec.kind, Section) and spec.kind.allows_empty and item is not None
            if present or plain not in (None, "", [], {}):
                said[name] = mask(plain) if spec.secret else plain
        return said


def _is_disabled(children: Mapping[str, Node]) -> bool:
    """Whether a section says of itself that it is off; it may then be incomplete."""
    enabled, disabled = children.get("enabled"), children.get("disabled")
    return (enabled is not None and enabled.value is False) or (
        disabled is not None and disabled.value is True
    )


def expand_bare_name(node: Node) -> None:
    """Turn a bare name, in any case, into a section with that one key; in place."""
    if not isinstance(node.value, dict | list) and node.value is not None:
        node.value = {node.text.lower(): Node(None, "", node.origin)}
