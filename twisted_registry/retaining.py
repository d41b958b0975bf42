"""``storage.maintenance.retention`` joined to constructors: a part of service.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted_registry.globs import Choice, Glob
from twisted_registry.repository.tagchoice import TagChoice

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted_registry.config.schema import Configuration
    from twisted_registry.digest import Digest
    from twisted_registry.maintenance.recorder import Recorder
    from twisted_registry.maintenance.retention import Retention, Verdict
    from twisted_registry.repository.registry import Registry
    from twisted_registry.storage.interfaces import IStorageDriver


def immutable_tags(configuration: Configuration) -> tuple[TagChoice, ...]:
    """The tags that stay as they are."""
    return tuple(
        TagChoice.parse(rule.repositories, rule.tags)
        for rule in configuration.storage.maintenance.retention.immutable
    )


def recorded_pulls(configuration: Configuration) -> set[tuple[str, Digest | str]] | None:
    """Where pulls are noted until they are recorded; None if no rule asks for them."""
    rules = configuration.storage.maintenance.retention.rules
    return set() if any(rule.pulledwithin for rule in rules) else None


def make_recorder(
    pulls: set[tuple[str, Digest | str]], driver: IStorageDriver, reactor: Any
) -> Recorder:
    """What records them."""
    # Only here, as below: few have such rules.
    from twisted_registry.maintenance.recorder import Recorder  # noqa: PLC0415
    from twisted_registry.repository.pulltimes import PullTimes  # noqa: PLC0415

    return Recorder(pulls, PullTimes(driver), reactor)


def make_retention(
    configuration: Configuration,
    registry: Registry,
    driver: IStorageDriver,
    *,
    dry_run: bool,
    watch: Callable[[Verdict], object] = lambda _: None,
) -> Retention:
    """What goes by the rules.

    :param driver: of the registry's store.
    """
    from twisted_registry.maintenance.retention import Retention, Rule  # noqa: PLC0415
    from twisted_registry.repository.inventory import Inventory  # noqa: PLC0415
    from twisted_registry.repository.pulltimes import PullTimes  # noqa: PLC0415
    from twisted_registry.repository.removal import Removal  # noqa: PLC0415

    rules = [
        Rule(
            TagChoice.parse(rule.repositories, rule.tags),
            rule.newest,
            rule.pushedwithin,
            rule.pulledwithin,
            Choice.parse(rule.always, Glob.parse_tag),
        )
        for rule in configuration.storage.maintenance.retention.rules
    ]
    return Retention(
        registry,
        Inventory(driver),
        Removal(driver),
        PullTimes(driver),
        rules,
        immutable_tags(configuration),
        dry_run,
        watch,
    )
