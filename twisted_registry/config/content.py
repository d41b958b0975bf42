"""Sections about what may be pushed and how lists are cut: validation, policy, catalog, tags."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_registry.config import values
from twisted_registry.config.forms import choice, boolean, text
from twisted_registry.config.kinds import ListOf, Scalar
from twisted_registry.config.sections import Section, SectionBase, key, schema, section

if TYPE_CHECKING:
    import re

    from twisted_registry.config.document import Node

DEFAULT_PAGE_SIZE = 1000


def _entries(node: Node) -> int:
    entries = values.integer(node)
    return entries if entries > 0 else DEFAULT_PAGE_SIZE


def _tags(node: Node) -> int:
    tags = values.integer(node)
    if tags < 0:
        raise ValueError
    return tags or DEFAULT_PAGE_SIZE


def _patterns() -> ListOf:
    return ListOf(
        "a list of regular expressions",
        Scalar("a regular expression that Go and Python read alike", values.pattern),
    )


@schema
class Catalog(SectionBase):
    """``catalog``."""

    maxentries: int = key(
        Scalar("a whole number", _entries), "The largest page of ``_catalog``; 0 or less is 1000.",
        default=DEFAULT_PAGE_SIZE,
    )  # fmt: skip


@schema
class Tags(SectionBase):
    """``tags``."""

    maxtags: int = key(
        Scalar("a whole number from 0", _tags), "The largest page of a tag list; 0 is 1000.",
        default=DEFAULT_PAGE_SIZE,
    )  # fmt: skip


@schema
class Urls(SectionBase):
    """``validation.manifests.urls``."""

    allow: tuple[re.Pattern[str], ...] = key(
        _patterns(), "URLs of layers must match one of these (found anywhere in the URL).",
        default=(),
    )  # fmt: skip
    deny: tuple[re.Pattern[str], ...] = key(
        _patterns(), "URLs of layers must match none of these.", default=()
    )


@schema
class Platform(SectionBase):
    """``validation.manifests.indexes.platformlist[]``."""

    architecture: str = key(text(), "As in an index, e.g. amd64.", default="")
    os: str = key(text(), "As in an index, e.g. linux.", default="")


@schema
class Indexes(SectionBase):
    """``validation.manifests.indexes``."""

    platforms: str = key(
        choice("all", "none", "list", ignore_case=True),
        "Which manifests of an index must be there when it is pushed.", default="all",
    )  # fmt: skip
    platformlist: tuple[Platform, ...] = key(
        ListOf("a list of platforms", Section("a section", Platform)),
        "The platforms, if ``platforms`` is list.", default=(),
    )  # fmt: skip


@schema
class Manifests(SectionBase):
    """``validation.manifests``."""

    urls: Urls = section(Urls, "URLs in manifests; without this section every URL is accepted.")
    indexes: Indexes = section(Indexes, "Indexes whose manifests are partly elsewhere.")


@schema
class Validation(SectionBase):
    """``validation``."""

    disabled: bool = key(boolean(), "Check none of this.", default=False)
    enabled: bool | None = key(boolean(), "The old opposite of ``disabled``; has no effect.")
    manifests: Manifests = section(Manifests, "Manifests that are pushed.")


@schema
class RepositoryPolicy(SectionBase):
    """``policy.repository``."""

    classes: tuple[str, ...] = key(
        ListOf("a list of classes", choice("image", "plugin")),
        "What may be pushed, told by the media type of a manifest's config; empty is anything.",
        default=(),
    )  # fmt: skip


@schema
class Policy(SectionBase):
    """``policy``."""

    repository: RepositoryPolicy = section(RepositoryPolicy, "Repositories.")
