"""Counts of events for each repository, of a bounded number of repositories.

Names of repositories come from clients. So only events count, which follow what has succeeded, and
only the first repositories have series of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attrs import define, field
from zope.interface import implementer

from twisted_registry.repository.interfaces import IRegistryListener

if TYPE_CHECKING:
    from twisted_registry.metrics.counts import Counts, SeriesKey
    from twisted_registry.repository.interfaces import Event

#: Stands for all further repositories. No repository has such a name.
OTHER_REPOSITORIES: Final = "_other"
_EVENTS: Final = "registry_repository_events"
_BYTES: Final = "registry_repository_bytes"


@define(eq=False)
class RepositoryNames:
    """The repositories that have series of their own: the first that had an event.

    :ivar limit: how many.
    """

    limit: int
    _names: set[str] = field(init=False, factory=set)

    def label(self, name: str) -> str:
        """Return the label of a repository: its name, or :data:`OTHER_REPOSITORIES`."""
        if name in self._names:
            return name
        if name == OTHER_REPOSITORIES or len(self._names) >= self.limit:
            return OTHER_REPOSITORIES
        self._names.add(name)
        return name

    def relabel(self, counts: Counts) -> None:
        """Replace the labels that another process has chosen."""
        keys = [key for key in counts.values if key[0] in {_EVENTS, _BYTES}]
        moved: list[tuple[SeriesKey, float]] = [(key, counts.values.pop(key)) for key in keys]
        for (family, name, *others), value in moved:
            counts.increment((family, self.label(name), *others), value)


@implementer(IRegistryListener)
@define(eq=False)
class RepositoryCounter:
    """Counts the events of repositories.

    :ivar counts: of this process.
    :ivar names: the repositories with series of their own.
    """

    counts: Counts
    names: RepositoryNames

    def handle_event(self, event: Event) -> None:
        """Count an event, and the size of the content."""
        label = self.names.label(event.repository)
        self.counts.increment((_EVENTS, label, event.action, event.kind), 1)
        if event.size:
            self.counts.increment((_BYTES, label, event.action), event.size)
