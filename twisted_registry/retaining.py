"""``storage.maintenance.retention`` joined to constructors: a part of service.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_registry.repository.tagchoice import TagChoice

if TYPE_CHECKING:
    from twisted_registry.config.schema import Configuration


def immutable_tags(configuration: Configuration) -> tuple[TagChoice, ...]:
    """The tags that stay as they are."""
    return tuple(
        TagChoice.parse(rule.repositories, rule.tags)
        for rule in configuration.storage.maintenance.retention.immutable
    )
