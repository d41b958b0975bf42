"""Keeps the collector's gate of this process informed, and others informed of this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from twisted_registry.storage.interfaces import StorageError

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.repository.gate import CollectorGate

log = Logger()


class GateHeartbeat(Service):
    """Lets a gate look at the store every few seconds, while the service runs."""

    def __init__(
        self, gate: CollectorGate, clock: IReactorTime, interval: float, busy_interval: float | None = None
    ) -> None:
        """Take the gate.

        :param interval: seconds from one look to the next.
        :param busy: the same while there is a list, since pushes may wait for its end.
        """
        self.setName("attendance")
        self._gate = gate
        self._interval = interval
        self._busy_interval = busy_interval or interval
        self._clock = clock
        self._polled_at_s = clock.seconds()
        self._loop = LoopingCall(self._poll_if_due)
        self._loop.clock = clock
        self._failing = False
        self._polling: Deferred[None] | None = None

    def startService(self) -> None:
        """Look, and go on looking."""
        super().startService()
        self._polled_at_s = self._clock.seconds() - self._interval
        self._loop.start(self._busy_interval)

    def stopService(self) -> Deferred[None]:
        """Look no more, and take the record of this process away."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()
        return Deferred.fromCoroutine(self._unregister())

    def _poll_if_due(self) -> Deferred[None] | None:
        now = self._clock.seconds()
        # Half a turn early, since the clock of a loop is never quite on time.
        if now - self._polled_at_s < self._interval - self._busy_interval / 2 and not self._gate.has_list:
            return None
        self._polled_at_s = now
        return self._start_poll()

    def _start_poll(self) -> Deferred[None]:
        self._polling = looking = Deferred.fromCoroutine(self._poll_gate())
        return looking

    async def _poll_gate(self) -> None:
        try:
            await self._gate.poll()
        except CancelledError:
            # The service stops.
            return
        except StorageError as error:
            if not self._failing:
                log.error(
                    "the collector's list could not be looked at; it will be tried again: {error}",
                    error=error,
                )
            self._failing = True
        except Exception:  # noqa: BLE001 - whatever it was, it is tried again
            if not self._failing:
                log.failure("the collector's list could not be looked at; it will be tried again")
            self._failing = True
        else:
            self._failing = False
        self._polling = None

    async def _unregister(self) -> None:
        if self._polling is not None:
            self._polling.cancel()
        try:
            await self._gate.unregister()
        except StorageError as error:
            log.error("the record of this process could not be removed: {error}", error=error)
        except Exception:  # noqa: BLE001 - it will be found to be old
            log.failure("the record of this process could not be removed")
