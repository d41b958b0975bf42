"""Puts right what was found, while others serve the store.

Some of it can only be judged and taken away while nobody stores the same content: that goes on a
list like the collector's, which every serving process obeys (:mod:`~.sentence`). So a push that
brings a damaged blob anew waits until the damaged one is gone, and is not taken away with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from attrs import define, evolve, field
from twisted.logger import Logger

from twisted_registry.maintenance.sentence import TERM, NotAcknowledged, Sentence
from twisted_registry.repository.condemned import Condemned, Phase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.repository.checking.damage import Finding
    from twisted_registry.repository.removal import Removal

log = Logger()

#: Findings that wait for a list of theirs.
_AT_ONCE = 500


@define(eq=False)
class Repair:
    """Repairs of one run.

    :ivar enabled: whether anything is repaired at all.
    """

    removal: Removal
    clock: IReactorTime
    enabled: bool = True
    _waiting: list[Finding] = field(init=False, factory=list)

    async def take(self, finding: Finding) -> Sequence[Finding]:
        """Repair what was found, now or with others; return those that are settled by now."""
        if not self.enabled or finding.repair is None:
            return [finding]
        if finding.silence is None:
            return [await finding.mended()]
        self._waiting.append(finding)
        return await self.settle() if len(self._waiting) >= _AT_ONCE else ()

    async def settle(self) -> Sequence[Finding]:
        """Repair all that waits, and return it."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return waiting
        blobs = frozenset(finding.silence for finding in waiting if finding.silence is not None)
        proposed = Condemned(str(uuid4()), Phase.PROPOSED, TERM, blobs)
        sentence = Sentence(self.removal, self.clock)
        try:
            await sentence.propose(proposed)
            await sentence.condemn(evolve(proposed, phase=Phase.CONDEMNED))
            return [
                await finding.mended() if sentence.in_time() else finding for finding in waiting
            ]
        except NotAcknowledged as error:
            log.error(
                "{count} things are not repaired in this run: {reason}",
                count=len(waiting),
                reason=str(error),
            )
            return waiting
        finally:
            await self.removal.withdraw(proposed.id)
