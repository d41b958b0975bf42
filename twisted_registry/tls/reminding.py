"""Telling the log, each day, of a certificate that nobody has renewed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.application.service import Service
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from twisted_registry.tls.subject import described

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.tls.material import Material

log = Logger()

#: Seconds between two looks.
DAY: Final = 24 * 3600.0


class Reminder(Service):
    """Says whose certificate is shown, at the start; then only if something is wrong with it."""

    def __init__(self, clock: IReactorTime, shown: Callable[[], Material]) -> None:
        """Take what answers what is shown."""
        self._clock = clock
        self._shown = shown
        self._loop = LoopingCall(self.tell, quiet=True)
        self._loop.clock = clock

    def startService(self) -> None:
        """Tell, and look from now on."""
        super().startService()
        self.tell()
        self._loop.start(DAY, now=False)

    def stopService(self) -> None:
        """Look no more."""
        super().stopService()
        self._loop.stop()

    def tell(self, *, quiet: bool = False) -> None:
        """Tell of what is shown.

        :param quiet: say nothing if it is valid, and goes on to be.
        """
        text, valid = described(self._shown().certificate, self._clock.seconds())
        if not valid:
            log.warn("{certificate}", certificate=text)
        elif not quiet:
            log.info("{certificate}", certificate=text)
