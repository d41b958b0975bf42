"""A list of what is to be removed, from its proposal to its end: the collector's side of the gate.

Whoever takes anything out of a store that others serve goes this way, see
:mod:`twisted_registry.repository.gate`: propose a list; wait until every process has acknowledged
it; condemn what is still to go; look again; remove; withdraw the list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define
from twisted.internet.task import deferLater
from twisted.logger import Logger

from twisted_registry.repository.liveness import has_exited

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.repository.condemned import DeleteList, DeleteListView
    from twisted_registry.repository.removal import Sweeper

log = Logger()

#: Seconds after which processes take a list for void, or more. Nothing goes in the second half.
LIST_TTL_S = 60.0
#: Seconds for which acknowledgements are waited for, and between two looks at them.
_ACKNOWLEDGE_TIMEOUT_S = 60.0
_POLL_INTERVAL_S = 0.25
#: Seconds within which an object store answers, or has forgotten what it was asked.
SETTLE_S = 15.0


class NotAcknowledged(Exception):
    """A serving process does not answer, or the list is gone: nothing may be removed."""


@define(eq=False)
class DeleteListProtocol:
    """Publishes lists, one at a time.

    :ivar clock: is never compared with another machine's.
    :ivar settling: seconds for which what a collector asked of the store may still take effect
        after its end; no less than what a request may lie around.
    """

    sweeper: Sweeper
    clock: IReactorTime
    settle_s: float = SETTLE_S
    _ttl_s: float = LIST_TTL_S
    _proposed_at_s: float = 0.0

    async def propose(self, proposed: DeleteList) -> None:
        """Publish a list when that of another collector is gone, and wait for all processes.

        :raises NotAcknowledged: if one does not acknowledge it in time.
        """
        while True:
            self._proposed_at_s, self._ttl_s = self.clock.seconds(), proposed.ttl_s
            if await self.sweeper.propose(proposed):
                break
            await self._wait_for_other_list(await self.sweeper.published_list())
        await self._wait_for_acknowledgements(proposed.id)

    async def condemn(self, condemned: DeleteList) -> None:
        """Replace the proposed list by what is to go of it.

        :raises NotAcknowledged: if another collector has taken it away.
        """
        if not await self.sweeper.condemn(condemned):
            raise NotAcknowledged("another collector has taken the list away")

    def in_time(self) -> bool:
        """Whether something may still be removed: long before anybody takes the list for void."""
        return self.clock.seconds() - self._proposed_at_s < self._ttl_s / 2

    async def _wait_for_other_list(self, other: DeleteListView | None) -> None:
        """Wait until another collector's list is gone, or void because its collector died."""
        began = self.clock.seconds()
        if other is not None:
            log.info("another collector is at work, or was; waiting")
        while other is not None:
            ttl_s = min(self.settle_s, other.ttl_s) if has_exited(other.owner) else other.ttl_s
            if self.clock.seconds() - began >= ttl_s:
                await self.sweeper.withdraw(other.id)
            await self._pause()
            found = await self.sweeper.published_list()
            if found is None or found.id != other.id:
                return

    async def _wait_for_acknowledgements(self, list_id: str) -> None:
        until = self.clock.seconds() + _ACKNOWLEDGE_TIMEOUT_S
        while True:
            missing = [
                process.id
                for process in await self.sweeper.live_processes()
                if process.acknowledged != list_id
            ]
            if not missing:
                return
            if self.clock.seconds() >= until:
                raise NotAcknowledged(
                    f"{len(missing)} serving processes did not acknowledge the list in time"
                )
            await self._pause()

    async def _pause(self) -> None:
        await deferLater(self.clock, _POLL_INTERVAL_S, lambda: None)
