"""Which changes of a configuration a running registry applies, and which need a restart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from attrs import define, field, frozen

from twisted_registry.config.notifications import Notifications
from twisted_registry.config.sections import SectionBase, schema_keys

if TYPE_CHECKING:
    from twisted_registry.config.schema import Configuration

#: Can be switched on, and off again, in a registry that was started without it.
READ_ONLY: Final = "storage.maintenance.readonly.enabled"

#: Keys, and whole sections, whose changes are applied.
RELOADABLE: Final = frozenset(
    {
        "access",
        "auth",
        "catalog.maxentries",
        "http.headers",
        "http.limits.blobbytes",
        "http.limits.requestsperuser",
        "http.tls.clientusers",
        "log.fields",
        "log.formatter",
        "log.level",
        "log.reportcaller",
        "notifications.endpoints",
        "policy",
        "storage.delete.enabled",
        READ_ONLY,
        "tags.maxtags",
        "validation",
    }
)


@frozen
class Changes:
    """The difference between two configurations.

    :ivar configuration: what is used from now on: the new values of reloadable keys, the others as
        they were.
    :ivar applied: the keys that have new values in it.
    :ivar pending: the keys whose new values need a restart.
    :ivar has_other_quotas: whether ``access.quotas`` is different.
    """

    configuration: Configuration
    applied: tuple[str, ...]
    pending: tuple[str, ...]
    has_other_quotas: bool


def find_changes(
    current: Configuration, new: Configuration, *, started_read_only: bool = False
) -> Changes:
    """Compare the configuration in use with a new one; both are valid.

    :param started_read_only: whether the registry was started read-only, so that it has no parts
        that store.
    """
    merge = _Merge(started_read_only)
    configuration = cast("Configuration", merge.merge_section(current, new, ""))
    return Changes(
        configuration,
        tuple(merge.applied),
        tuple(merge.pending),
        has_other_quotas=current.quotas != configuration.quotas,
    )


@define(eq=False)
class _Merge:
    started_read_only: bool
    applied: list[str] = field(factory=list)
    pending: list[str] = field(factory=list)

    def merge_section(self, current: SectionBase, new: SectionBase, prefix: str) -> SectionBase:
        """Return a section with the new values of what can be applied."""
        values = dict(vars(current))
        for name, spec in schema_keys(type(current)).items():
            path = f"{prefix}{name}"
            old_value, new_value = values[spec.attribute], getattr(new, spec.attribute)
            if old_value == new_value:
                continue
            if isinstance(current, Notifications) and not current.enabled_endpoints:
                # The queue and its thread are made at the start, for enabled endpoints only.
                self.pending.append(path)
            elif path == READ_ONLY and self.started_read_only:
                self.pending.append(path)
            elif path in RELOADABLE:
                self.applied.append(path)
                values[spec.attribute] = new_value
            elif isinstance(old_value, SectionBase) and type(old_value) is type(new_value):
                values[spec.attribute] = self.merge_section(old_value, new_value, f"{path}.")
            else:
                self.pending.append(path)
        return type(current)(**values)
