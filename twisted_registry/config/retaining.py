"""``storage.maintenance.retention``: which tags go by themselves, and which never do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted_registry import globs
from twisted_registry.config import values
from twisted_registry.config.access import patterns
from twisted_registry.config.forms import duration, boolean, integer
from twisted_registry.config.kinds import ListOf, Scalar
from twisted_registry.config.sections import Section, SectionBase, key, schema

if TYPE_CHECKING:
    from twisted_registry.config.document import Node
    from twisted_registry.config.faults import Report


def _tag_pattern(node: Node) -> str:
    said = values.text(node)
    globs.Glob.parse_tag(said.removeprefix("!"))
    return said


def _tags(doc: str, **more: Any) -> Any:
    kind = ListOf("a list of patterns", Scalar(globs.TAG_GLOB_SYNTAX, _tag_pattern))
    return key(kind, doc, extension=True, **more)


@schema
class Immutable(SectionBase):
    """``storage.maintenance.retention.immutable[]``."""

    repositories: tuple[str, ...] = patterns("Where: as in ``access``.")
    tags: tuple[str, ...] = _tags(
        "Which tags: names and patterns, as ``v*``; one with ``!`` in front takes away what the"
        " others choose.", default=(), required=True,
    )  # fmt: skip


@schema
class Rule(SectionBase):
    """``storage.maintenance.retention.rules[]``."""

    repositories: tuple[str, ...] = patterns("Where: as in ``access``.")
    tags: tuple[str, ...] = _tags("Which tags.", default=("*",))
    newest: int = key(
        integer(0), "Keep so many of each repository, those that were pushed last.", default=0,
        extension=True,
    )  # fmt: skip
    pushedwithin: float = key(
        duration(), "Keep what was pushed in so long a time.", default=0.0, extension=True
    )
    pulledwithin: float = key(
        duration(), "Keep what was pulled in so long a time, or before that was recorded.",
        default=0.0, extension=True,
    )  # fmt: skip
    always: tuple[str, ...] = _tags("Keep these tags.", default=())


@schema
class Retention(SectionBase):
    """``storage.maintenance.retention``."""

    enabled: bool = key(
        boolean(), "Remove tags that no rule keeps, at intervals.", default=False, extension=True
    )
    interval: float = key(
        duration(positive=True), "How often to look.", default=24 * 3600.0, extension=True
    )
    dryrun: bool = key(boolean(), "Only log what would go.", default=False, extension=True)
    rules: tuple[Rule, ...] = key(
        ListOf("a list of rules", Section("a section", Rule, strict=True)),
        "What is kept. The first rule that chooses a tag decides; a tag that none chooses stays.",
        default=(), extension=True,
    )  # fmt: skip

    immutable: tuple[Immutable, ...] = key(
        ListOf("a list of rules", Section("a section", Immutable, strict=True)),
        "Tags that, once they are there, are neither moved nor deleted: 403 ``DENIED``.",
        default=(), extension=True,
    )  # fmt: skip


def check_retention(retention: Retention, report: Report) -> None:
    """Report rules that would remove everything."""
    for number, rule in enumerate(retention.rules):
        place = f"storage.maintenance.retention.rules[{number}]"
        if not (rule.newest or rule.pushedwithin or rule.pulledwithin or rule.always):
            report.fault(place, "keeps nothing", "newest, pushedwithin, pulledwithin or always")
    if retention.enabled and not retention.rules:
        report.fault("storage.maintenance.retention.enabled", "got true", "rules beside it")
