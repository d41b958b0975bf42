"""Stores what was pulled, every few minutes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.digest import Digest
    from twisted_registry.repository.pulltimes import PullTimes

log = Logger()

#: Seconds between two files: what a crash may cost.
FLUSH_INTERVAL_S = 300.0


class PullRecorder(Service):
    """Empties a set of pulls into the store, while the service runs and once when it stops."""

    def __init__(
        self, pending_pulls: set[tuple[str, Digest | str]], times: PullTimes, clock: IReactorTime
    ) -> None:
        """Take the set that pulls are added to, and where they go."""
        self.setName("recorder")
        self._pulls = pending_pulls
        self._times = times
        self._loop = LoopingCall(self._start_flush)
        self._loop.clock = clock
        self._loop_ended: Deferred[LoopingCall] | None = None

    def startService(self) -> None:
        """Record at intervals, and say at once that this is done from now on."""
        super().startService()
        self._loop_ended = self._loop.start(FLUSH_INTERVAL_S)

    def stopService(self) -> Deferred[None]:
        """Record what is left."""
        super().stopService()
        return Deferred.fromCoroutine(self._flush_and_stop())

    async def _flush_and_stop(self) -> None:
        if self._loop_ended is not None:
            self._loop.stop()
            await self._loop_ended
        await self._flush()

    def _start_flush(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._flush())

    async def _flush(self) -> None:
        taken = set(self._pulls)
        self._pulls.clear()
        try:
            await self._times.mark_recording()
            await self._times.record_pulls(taken)
        except Exception:  # noqa: BLE001 - whatever it was, it is tried again
            self._pulls.update(taken)
            log.failure("what was pulled could not be recorded; it will be tried again")
