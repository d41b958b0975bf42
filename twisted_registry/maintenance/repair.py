"""Puts right what was found, while others serve the store.

Some of it can only be judged and taken away while nobody stores the same content: that goes on a
list like the collector's, which every serving process obeys (:mod:`~.protocol`). So a push that
brings a damaged blob anew waits until the damaged one is gone, and is not taken away with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from attrs import define, evolve, field
from twisted.logger import Logger

from twisted_registry.maintenance.sentence import LIST_TTL_S, NotAcknowledged, DeleteListProtocol
from twisted_registry.repository.condemned import DeleteList, Phase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.repository.checking.damage import Finding
    from twisted_registry.repository.removal import Sweeper

log = Logger()

#: Findings that wait for a list of theirs.
_MAX_WAITING = 500


@define(eq=False)
class Repairer:
    """Repairs of one run.

    :ivar enabled: whether anything is repaired at all.
    """

    sweeper: Sweeper
    clock: IReactorTime
    enabled: bool = True
    _waiting: list[Finding] = field(init=False, factory=list)

    async def submit(self, finding: Finding) -> Sequence[Finding]:
        """Repair what was found, now or with others; return those that are settled by now."""
        if not self.enabled or finding.repair is None:
            return [finding]
        if finding.blocked_digest is None:
            return [await finding.repair_and_report()]
        self._waiting.append(finding)
        return await self.repair_waiting() if len(self._waiting) >= _MAX_WAITING else ()

    async def repair_waiting(self) -> Sequence[Finding]:
        """Repair all that waits, and return it."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return waiting
        blobs = frozenset(finding.blocked_digest for finding in waiting if finding.blocked_digest is not None)
        proposed = DeleteList(str(uuid4()), Phase.PROPOSED, LIST_TTL_S, blobs)
        protocol = DeleteListProtocol(self.sweeper, self.clock)
        try:
            await protocol.propose(proposed)
            await protocol.condemn(evolve(proposed, phase=Phase.CONDEMNED))
            return [
                await finding.repair_and_report() if protocol.in_time() else finding for finding in waiting
            ]
        except NotAcknowledged as error:
            log.error(
                "{count} things are not repaired in this run: {reason}",
                count=len(waiting),
                reason=str(error),
            )
            return waiting
        finally:
            await self.sweeper.withdraw(proposed.id)
