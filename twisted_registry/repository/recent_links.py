"""Links to blobs that were read a moment ago, for pulls from stores that cannot be peeked at.

Before each pull of a blob, the repository's link to it is read, which is a request to a remote
store. :class:`RecentLinks` makes that request once for all pulls within
:data:`RECENT_LINK_S` seconds. It serves pulls only: what clients ask before a push, mounts and
deletes read the link. The access controller and the collector's gate are asked each time.

A removal by this process, or by one that shares the count of removals, is seen at once. A removal
by any other process is seen when the time is over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import define, field
from twisted.python.components import proxyForInterface

from twisted_registry.repository.cache import CacheUse, LRUCache
from twisted_registry.repository.trash import IDeleter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.oci.digest import Digest
    from twisted_registry.repository.trash import TrashReason

#: Seconds for which a link that was read counts as there.
RECENT_LINK_S = 30.0
#: The most links that are remembered.
MAX_RECENT_LINKS = 50_000


@define(eq=False, repr=False)
class RecentLinks:
    """The paths of links that were valid when they were read, within the last seconds.

    :ivar clock: a clock that nobody sets.
    :ivar limit: the most links, those that were used last.
    :ivar use: how often it was asked.
    """

    clock: IReactorTime
    limit: int = MAX_RECENT_LINKS
    use: CacheUse = field(init=False, factory=CacheUse)
    _read_at_s: LRUCache[str, float] = field(init=False)
    _own_removals: int = field(init=False, default=0)
    _count_removal: Callable[[], object] = field(init=False)
    _removals: Callable[[], int] = field(init=False)
    #: the number of removals before the first read that is remembered
    _known_removals: int = field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        """Begin without links, and with a count of removals by this process."""
        self._read_at_s = LRUCache(self.limit)
        self._count_removal = self._count_own_removal
        self._removals = lambda: self._own_removals

    def share_removals(self, count: Callable[[], object], total: Callable[[], int]) -> None:
        """Use a count of removals that other processes share.

        :param count: counts one removal.
        :param total: returns a number that differs after a removal by any process.
        """
        self._count_removal, self._removals = count, total

    def forget(self) -> None:
        """Forget all links, in all processes that share the count: one was removed."""
        self._count_removal()

    async def is_valid(self, path: str, read: Callable[[], Awaitable[bool]]) -> bool:
        """Return whether a link is valid, or was within the last :data:`RECENT_LINK_S` seconds.

        :param read: reads the link, and returns whether it is valid.
        """
        now, removals = self.clock.seconds(), self._removals()
        if removals != self._known_removals:
            self._read_at_s, self._known_removals = LRUCache(self.limit), removals
        read_at_s = self._read_at_s.get(path)
        if read_at_s is not None and now - read_at_s < RECENT_LINK_S:
            self.use.hits += 1
            return True
        self.use.misses += 1
        is_valid = await read()
        # A link that was removed meanwhile may have been read before.
        if is_valid and self._removals() == removals == self._known_removals:
            self._read_at_s.put(path, now)
        return is_valid

    def _count_own_removal(self) -> None:
        self._own_removals += 1


_DeleterProxy: Any = proxyForInterface(IDeleter, "deleter")


class ForgettingDeleter(_DeleterProxy):  # type: ignore[misc]
    """Removes content, and forgets remembered links when a link to a blob was removed."""

    def __init__(self, deleter: IDeleter, recent_links: RecentLinks) -> None:
        """Wrap ``deleter``."""
        super().__init__(deleter)
        self.recent_links = recent_links

    async def delete_layer(self, name: str, digest: Digest, reason: TrashReason) -> bool:
        """Remove the link, and forget. After an error it may have been removed as well."""
        try:
            deleted: bool = await self.deleter.delete_layer(name, digest, reason)
        finally:
            self.recent_links.forget()
        return deleted
