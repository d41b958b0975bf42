"""Sections: how the classes of the schema are declared, and how a mapping becomes an instance.

A field made by :func:`key` or :func:`section` is a :class:`Key`: the kind that reads the value, its
documentation, and whether it is secret. The reader, the environment variables, the masked output
and the reference all use it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast, dataclass_transform

from attrs import define, field
from attrs.exceptions import FrozenInstanceError

from twisted_registry.config.document import Node, mask_url
from twisted_registry.config.kinds import Kind, ReadContext, mask, read_node
from twisted_registry.config.suggestion import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")


@define(eq=False, repr=False)
class Key:
    """One key of a section.

    :ivar kind: reads and checks the value.
    :ivar doc: the text of the reference.
    :ivar default: the value if the key is absent; that of the kind if not given.
    :ivar name: the name in the file; that of the field if not given.
    :ivar secret: the value is masked in all output.
    :ivar required: the key must be set, unless the section is disabled.
    :ivar extension: Distribution does not have the key, nor those below it, and ignores it.
    :ivar attribute: the name of the field of the class.
    """

    kind: Kind
    doc: str
    default: Any = field(kw_only=True)
    name: str = field(default="", kw_only=True)
    secret: bool = field(default=False, kw_only=True)
    required: bool = field(default=False, kw_only=True)
    extension: bool = field(default=False, kw_only=True)
    attribute: str = field(default="", init=False)

    @default.default
    def _default_of_kind(self) -> Any:
        return self.kind.default

    def __set_name__(self, _owner: type, attribute: str) -> None:
        """Store the name of the field."""
        self.attribute = attribute
        self.name = self.name or attribute


def key(kind: Kind, doc: str, **options: Any) -> Any:
    """Declare a field of a schema class; the arguments are those of :class:`Key`."""
    return Key(kind, doc, **options)


@dataclass_transform(kw_only_default=True, frozen_default=True)
class SectionBase:
    """Base of the schema classes: frozen, compared by value, and shown without secrets.

    It does what ``attrs.frozen`` would do with fields declared by :func:`key`, which are
    descriptions of keys and not defaults.
    """

    def __init__(self, **given: Any) -> None:
        """Set the fields by name; the others get their defaults.

        :raise TypeError: if there is no such field.
        """
        values = vars(self)
        for spec in schema_keys(type(self)).values():
            values[spec.attribute] = given.pop(spec.attribute, spec.default)
        if given:
            raise TypeError(f"{type(self).__name__} has no {', '.join(given)}")

    def __setattr__(self, name: str, value: object) -> None:
        raise FrozenInstanceError

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other) if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        # Values may be dictionaries, which have no hash.
        return hash(type(self))

    def __repr__(self) -> str:
        fields = (
            f"{spec.attribute}={getattr(self, spec.attribute)!r}"
            for spec in schema_keys(type(self)).values()
            if not spec.secret
        )
        return mask_url(f"{type(self).__name__}({', '.join(fields)})")


def section(cls: type[T], doc: str, *, extension: bool = False, **options: Any) -> T:
    """Declare a field that is always set: with the defaults of *cls* if the key is absent.

    :param extension: as of :class:`Key`.
    :param options: those of :class:`Section`.
    """
    kind: Any = Section(cls, default=cls(), **options)
    return cast("T", Key(kind, doc, extension=extension))


def schema_keys(cls: type) -> Mapping[str, Key]:
    """Return the keys that a schema class declares, by their name in the file, in order."""
    return {spec.name: spec for spec in vars(cls).values() if isinstance(spec, Key)}


@define(eq=False, repr=False)
class Section(Kind):
    """A mapping whose keys a schema class declares; the value is an instance of the class.

    :ivar cls: the schema class.
    :ivar allows_bare_name: a single word is a section with that one key (``storage: inmemory``).
    :ivar strict: an unknown key is a fault, because ignoring it would be dangerous.
    """

    cls: type
    expected: str = "a section"
    allows_bare_name: bool = field(default=False, kw_only=True)
    strict: bool = field(default=False, kw_only=True)

    def read_node(self, node: Node, context: ReadContext) -> Any:
        """Read the keys, and report unknown and missing ones."""
        if self.allows_bare_name:
            expand_bare_name(node)
        if node.value is None:
            node = Node({}, node.text, node.origin)
        if not isinstance(node.value, dict):
            raise ValueError  # noqa: TRY004 - one error type for all values
        known = schema_keys(self.cls)
        found = {}
        for name, child in node.value.items():
            if name not in known:
                self._report_unknown(name, child, context)
                continue
            spec = known[name]
            value = read_node(spec.kind, child, context.child(name, secret=spec.secret))
            if value is not None:
                found[spec.attribute] = value
        for name, spec in known.items():
            is_set = name in node.value and node.value[name].value is not None
            if spec.required and not is_set and not _is_disabled(node.value):
                path = context.child(name).path
                context.report.add_fault(path, None, "this key is required", node.origin)
        return self.cls(**found)

    def _report_unknown(self, name: str, node: Node, context: ReadContext) -> None:
        known = schema_keys(self.cls)
        path = context.child(name).path
        if self.strict:
            expected = f"unknown key, expected one of {', '.join(known)}{did_you_mean(name, known)}"
            context.report.add_fault(path, None, expected, node.origin)
        else:
            context.report.warn_unknown_key(path, name, known, node.origin)

    def dump(self, value: Any) -> Any:
        """Return the keys that have a value as plain data, with secrets masked."""
        data = {}
        for name, spec in schema_keys(self.cls).items():
            item = getattr(value, spec.attribute)
            plain = None if item is None else spec.kind.dump(item)
            keeps_empty = (
                isinstance(spec.kind, Section) and spec.kind.allows_empty and item is not None
            )
            if keeps_empty or plain not in (None, "", [], {}):
                data[name] = mask(plain) if spec.secret else plain
        return data


def _is_disabled(children: Mapping[str, Node]) -> bool:
    """Whether a section is switched off by its own keys; it may then be incomplete."""
    enabled, disabled = children.get("enabled"), children.get("disabled")
    return (enabled is not None and enabled.value is False) or (
        disabled is not None and disabled.value is True
    )


def expand_bare_name(node: Node) -> None:
    """Turn a single word, in any case, into a section with that one key; in place."""
    if not isinstance(node.value, dict | list) and node.value is not None:
        node.value = {node.text.lower(): Node(None, "", node.origin)}
