"""Which changes of a configuration a running registry applies, and which need a restart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from attrs import define, field, frozen

from twisted_registry.config.notifications import Notifications
from twisted_registry.config.sections import SectionBase, schema_keys

if TYPE_CHECKING:
    from twisted_registry.config.access import AccessRules
    from twisted_registry.config.schema import Configuration

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
        "notifications.endpoints",
        "policy",
        "storage.delete.enabled",
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
    """

    configuration: Configuration
    applied: tuple[str, ...]
    pending: tuple[str, ...]


def find_changes(current: Configuration, new: Configuration) -> Changes:
    """Compare the configuration in use with a new one; both are valid."""
    merge = _Merge()
    configuration = cast("Configuration", merge.merge_section(current, new, ""))
    return Changes(configuration, tuple(merge.applied), tuple(merge.pending))


@define(eq=False)
class _Merge:
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
            if path == "access":
                values[spec.attribute] = self._merge_access(old_value, new_value)
            elif isinstance(current, Notifications) and not current.enabled_endpoints:
                # The queue and its thread are made at the start, for enabled endpoints only.
                self.pending.append(path)
            elif path in RELOADABLE:
                self.applied.append(path)
                values[spec.attribute] = new_value
            elif isinstance(old_value, SectionBase) and type(old_value) is type(new_value):
                values[spec.attribute] = self.merge_section(old_value, new_value, f"{path}.")
            else:
                self.pending.append(path)
        return type(current)(**values)

    def _merge_access(
        self, current: AccessRules | None, new: AccessRules | None
    ) -> AccessRules | None:
        """Return the new rules with the current quotas, whose use is counted from the start."""
        old_quotas = () if current is None else current.quotas
        if old_quotas == (() if new is None else new.quotas):
            self.applied.append("access")
            return new
        self.pending.append("access.quotas")
        if current is None or new is None or current.has_only_quotas or new.has_only_quotas:
            # A section without quotas would deny everything, or nothing.
            return current
        merged = type(new)(**{**vars(new), "quotas": old_quotas})
        if merged != current:
            self.applied.append("access")
        return merged
