"""``storage.maintenance.retention``: which tags go by themselves, and which never do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted_registry import globs
from twisted_registry.config import values
from twisted_registry.config.access import patterns
from twisted_registry.config.forms import duration, flag, whole
from twisted_registry.config.kinds import Listing, Scalar
from twisted_registry.config.sections import Section, Values, key, schema

if TYPE_CHECKING:
    from twisted_registry.config.document import Node
    from twisted_registry.config.faults import Report


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
class Rule(Values):
    """``storage.maintenance.retention.rules[]``."""

    repositories: tuple[str, ...] = patterns("Where: as in ``access``.")
    tags: tuple[str, ...] = _tags("Which tags.", default=("*",))
    newest: int = key(
        whole(0), "Keep so many of each repository, those that were pushed last.", default=0,
        ours=True,
    )  # fmt: skip
    pushedwithin: float = key(
        duration(), "Keep what was pushed in so long a time.", default=0.0, ours=True
    )
    pulledwithin: float = key(
        duration(), "Keep what was pulled in so long a time, or before that was recorded.",
        default=0.0, ours=True,
    )  # fmt: skip
    always: tuple[str, ...] = _tags("Keep these tags.", default=())


@schema
class Retention(Values):
    """``storage.maintenance.retention``."""

    enabled: bool = key(
        flag(), "Remove tags that no rule keeps, at intervals.", default=False, ours=True
    )
    interval: float = key(
        duration(positive=True), "How often to look.", default=24 * 3600.0, ours=True
    )
    dryrun: bool = key(flag(), "Only log what would go.", default=False, ours=True)
    rules: tuple[Rule, ...] = key(
        Listing("a list of rules", Section("a section", Rule, closed=True)),
        "What is kept. The first rule that chooses a tag decides; a tag that none chooses stays.",
        default=(), ours=True,
    )  # fmt: skip

    immutable: tuple[Immutable, ...] = key(
        Listing("a list of rules", Section("a section", Immutable, closed=True)),
        "Tags that, once they are there, are neither moved nor deleted: 403 ``DENIED``.",
        default=(), ours=True,
    )  # fmt: skip


def check_retention(retention: Retention, report: Report) -> None:
    """Report rules that would remove everything."""
    for number, rule in enumerate(retention.rules):
        place = f"storage.maintenance.retention.rules[{number}]"
        if not (rule.newest or rule.pushedwithin or rule.pulledwithin or rule.always):
            report.fault(place, "keeps nothing", "newest, pushedwithin, pulledwithin or always")
    if retention.enabled and not retention.rules:
        report.fault("storage.maintenance.retention.enabled", "got true", "rules beside it")
