"""``storage.maintenance.retention``: which tags go by themselves, and which never do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted_registry import globs
from twisted_registry.config import values
from twisted_registry.config.access import patterns
from twisted_registry.config.kinds import Listing, Scalar
from twisted_registry.config.sections import Section, Values, key, schema

if TYPE_CHECKING:
    from twisted_registry.config.document import Node


def _tag_pattern(node: Node) -> str:
    said = values.text(node)
    globs.Glob.parse_tag(said.removeprefix("!"))
    return said


def _tags(doc: str, **more: Any) -> Any:
    kind = Listing("a list of patterns", Scalar(globs.EXPECTED_TAG, _tag_pattern))
    return key(kind, doc, ours=True, **more)


@schema
class Immutable(Values):
    """``storage.maintenance.retention.immutable[]``."""

    repositories: tuple[str, ...] = patterns("Where: as in ``access``.")
    tags: tuple[str, ...] = _tags(
        "Which tags: names and patterns, as ``v*``; one with ``!`` in front takes away what the"
        " others choose.", default=(), required=True,
    )  # fmt: skip


@schema
class Retention(Values):
    """``storage.maintenance.retention``."""

    immutable: tuple[Immutable, ...] = key(
        Listing("a list of rules", Section("a section", Immutable, closed=True)),
        "Tags that, once they are there, are neither moved nor deleted: 403 ``DENIED``.",
        default=(), ours=True,
    )  # fmt: skip
