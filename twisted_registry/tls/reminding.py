"""Telling the log, each day, of a certificate that nobody has renewed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.application.service import Service
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from twisted_registry.tls.subject import describe_certificate

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.tls.material import CertificateBundle

log = Logger()

#: Seconds between two looks.
WARNING_INTERVAL_S: Final = 24 * 3600.0


class ExpiryWarning(Service):
    """Says whose certificate is shown, at the start; then only if something is wrong with it."""

    def __init__(self, clock: IReactorTime, shown: Callable[[], CertificateBundle]) -> None:
        """Take what answers what is shown."""
        self._clock = clock
        self._current_bundle = shown
        self._loop = LoopingCall(self.log_expiry, quiet=True)
        self._loop.clock = clock

    def startService(self) -> None:
        """Tell, and look from now on."""
        super().startService()
        self.log_expiry()
        self._loop.start(WARNING_INTERVAL_S, now=False)

    def stopService(self) -> None:
        """Look no more."""
        super().stopService()
        self._loop.stop()

    def log_expiry(self, *, quiet: bool = False) -> None:
        """Tell of what is shown.

        :param quiet: say nothing if it is valid, and goes on to be.
        """
        text, valid = describe_certificate(self._current_bundle().certificate, self._clock.seconds())
        if not valid:
            log.warn("{certificate}", certificate=text)
        elif not quiet:
            log.info("{certificate}", certificate=text)
