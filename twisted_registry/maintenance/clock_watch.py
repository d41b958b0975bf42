"""Notice at once when the clock of the machine is set, and let pending calls happen in time.

Twisted plans calls by the clock that may be set. After it was set back by an hour, nothing that is
pending happens for an hour: heartbeats, timeouts, tasks. So a thread watches the clock, since a
pending call could not, and moves the calls.
"""

from __future__ import annotations

from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service

if TYPE_CHECKING:
    from twisted_registry.repository.clock import ClockJumps

#: Seconds between two looks at the clock.
WATCH_INTERVAL_S = 1.0
#: Seconds by which the clock has to be set back. Calls that are late by less do no harm.
_MIN_JUMP_S = 5.0


class ClockWatch(Service):
    """Watches the clock while the service runs."""

    def __init__(
        self, reactor: Any, jumps: ClockJumps, interval_s: float = WATCH_INTERVAL_S
    ) -> None:
        """Prepare the service.

        :param reactor: whose calls are moved.
        :param jumps: has the two clocks; it looks when the clock was set.
        :param interval_s: seconds between two looks.
        """
        self.setName("clock")
        self._reactor = reactor
        self._jumps = jumps
        self._interval_s = interval_s
        self._stopped = Event()
        self._thread: Thread | None = None

    def startService(self) -> None:
        """Start the thread."""
        super().startService()
        self._stopped.clear()
        self._thread = Thread(
            target=self._watch, args=(self._jumps.offset_s(),), name="clock", daemon=True
        )
        self._thread.start()

    def stopService(self) -> None:
        """End the thread."""
        super().stopService()
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _watch(self, offset_s: float) -> None:
        # The wait is not affected by the clock.
        while not self._stopped.wait(self._interval_s):
            before_s, offset_s = offset_s, self._jumps.offset_s()
            jump_s = offset_s - before_s
            if abs(jump_s) >= _MIN_JUMP_S:
                self._reactor.callFromThread(self._handle_jump, jump_s)

    def _handle_jump(self, jump_s: float) -> None:
        self._jumps.look()
        if jump_s > 0:
            # What was pending has happened, too early.
            return
        now = self._reactor.seconds()
        for call in self._reactor.getDelayedCalls():
            # Others were planned after the clock was set, and are right.
            if call.active() and call.getTime() - now >= -jump_s - 2 * self._interval_s:
                call.delay(jump_s)
