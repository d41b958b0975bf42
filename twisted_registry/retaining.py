"""``storage.maintenance.retention`` joined to constructors: a part of service.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted_registry.globs import GlobSet, Glob
from twisted_registry.repository.tagchoice import TagSelector

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted_registry.config.schema import Configuration
    from twisted_registry.digest import Digest
    from twisted_registry.maintenance.recorder import PullRecorder
    from twisted_registry.maintenance.retention import TagRetention, Decision
    from twisted_registry.repository.registry import Registry
    from twisted_registry.storage.interfaces import IStorageDriver


def immutable_tags(configuration: Configuration) -> tuple[TagSelector, ...]:
    """The tags that stay as they are."""
    return tuple(
        TagSelector.parse(rule.repositories, rule.tags)
        for rule in configuration.storage.maintenance.retention.immutable
    )


def make_pull_set(configuration: Configuration) -> set[tuple[str, Digest | str]] | None:
    """Where pulls are noted until they are recorded; None if no rule asks for them."""
    rules = configuration.storage.maintenance.retention.rules
    return set() if any(rule.pulledwithin for rule in rules) else None


def make_pull_recorder(
    pulls: set[tuple[str, Digest | str]], driver: IStorageDriver, reactor: Any
) -> PullRecorder:
    """What records them."""
    # Only here, as below: few have such rules.
    from twisted_registry.maintenance.recorder import PullRecorder  # noqa: PLC0415
    from twisted_registry.repository.pulltimes import PullTimes  # noqa: PLC0415

    return PullRecorder(pulls, PullTimes(driver), reactor)


def make_retention(
    configuration: Configuration,
    registry: Registry,
    driver: IStorageDriver,
    *,
    dry_run: bool,
    on_decision: Callable[[Decision], object] = lambda _: None,
) -> TagRetention:
    """What goes by the rules.

    :param driver: of the registry's store.
    """
    from twisted_registry.maintenance.retention import TagRetention, RetentionRule  # noqa: PLC0415
    from twisted_registry.repository.inventory import Inventory  # noqa: PLC0415
    from twisted_registry.repository.pulltimes import PullTimes  # noqa: PLC0415
    from twisted_registry.repository.removal import Sweeper  # noqa: PLC0415

    rules = [
        RetentionRule(
            TagSelector.parse(rule.repositories, rule.tags),
            rule.newest,
            rule.pushedwithin,
            rule.pulledwithin,
            GlobSet.parse(rule.always, Glob.parse_tag),
        )
        for rule in configuration.storage.maintenance.retention.rules
    ]
    return TagRetention(
        registry,
        Inventory(driver),
        Sweeper(driver),
        PullTimes(driver),
        rules,
        immutable_tags(configuration),
        dry_run,
        on_decision,
    )
