"""Reading certificates again while connections go on.

Files are looked at every few seconds, and read when they have changed and then stayed the same for
one look: certificate and key are two files, and who renews them writes one after the other. What
can not be used is told to the log once, and changes nothing.

Telling the log, each day, of a certificate that nobody has renewed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from twisted_registry.tls.context import CertificateError
from twisted_registry.tls.sources import describe_certificate

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IReactorTime
    from twisted.python.failure import Failure

    from twisted_registry.tls.context import CertificateBundle, ICertificateSource

log = Logger()

#: Seconds between two looks.
RELOAD_INTERVAL_S = 5.0


class CertificateReloader(Service):
    """Looks at files, or whatever certificates come from, and reads them again."""

    def __init__(
        self,
        clock: IReactorTime,
        source: ICertificateSource,
        read: Callable[[], Deferred[CertificateBundle]],
        use: Callable[[CertificateBundle], object],
    ) -> None:
        """Take the source, as it was when what is in use was read.

        :param read: reads and checks them, on a thread; a Deferred of what they hold.
        :param use: called with it, if it can be used.
        """
        self._source = source
        self._read = read
        self._use = use
        self._seen_versions = self._tried_versions = source.file_versions()
        self._lock = DeferredLock()
        self._loop = LoopingCall(self._check_files)
        self._loop.clock = clock

    def startService(self) -> None:
        """Begin to look."""
        super().startService()
        self._loop.start(RELOAD_INTERVAL_S, now=False)

    def stopService(self) -> None:
        """Look no more."""
        super().stopService()
        self._loop.stop()

    def reload(self) -> Deferred[None]:
        """Read the files now, changed or not; fire when it is done."""
        return self._lock.run(self._reload)

    def _check_files(self) -> Deferred[None] | None:
        file_versions = self._source.file_versions()
        settled, self._seen_versions = file_versions == self._seen_versions, file_versions
        if settled and file_versions != self._tried_versions:
            return self.reload()
        return None

    def _reload(self) -> Deferred[None]:
        self._tried_versions = self._source.file_versions()
        return self._read().addCallbacks(self._use, self._failed)  # type: ignore[arg-type]

    def _failed(self, failure: Failure) -> None:
        error: Any = failure.value
        if isinstance(error, CertificateError):
            log.error("http.tls.{error}; the certificate in use stays", error=error)
        else:
            log.failure("the certificate can not be read again", failure)


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
        text, valid = describe_certificate(
            self._current_bundle().certificate, self._clock.seconds()
        )
        if not valid:
            log.warn("{certificate}", certificate=text)
        elif not quiet:
            log.info("{certificate}", certificate=text)
