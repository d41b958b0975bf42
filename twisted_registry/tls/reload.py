"""Services for the certificate in use: reloading it, and warning before it expires."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.application.internet import TimerService
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from twisted_registry.tls.certificates import describe_certificate
from twisted_registry.tls.interfaces import CertificateError

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IReactorTime
    from twisted.python.failure import Failure

    from twisted_registry.tls.interfaces import CertificateBundle, ICertificateSource

log = Logger()

#: Seconds between two checks for changed files.
RELOAD_INTERVAL_S: Final = 5.0
#: Seconds between two checks of the expiry.
WARNING_INTERVAL_S: Final = 24 * 3600.0


class CertificateReloader(TimerService):
    """Loads the certificate again when its files have changed; existing connections continue.

    The files are checked every few seconds, and loaded when they have changed and then stayed the
    same for one interval: certificate and key are two files that are replaced one after the other.
    A failure is logged once, and the certificate in use stays.
    """

    def __init__(
        self,
        clock: IReactorTime,
        source: ICertificateSource,
        load: Callable[[], Deferred[CertificateBundle]],
        use: Callable[[CertificateBundle], object],
    ) -> None:
        """Watch a source from now on; create this before the first bundle is loaded.

        :param load: loads and checks the bundle of the source on a thread.
        :param use: called with each new bundle.
        """
        super().__init__(RELOAD_INTERVAL_S, self._check_files)
        self.clock = clock
        self._source = source
        self._load = load
        self._use = use
        self._seen_versions = self._tried_versions = source.file_versions()
        self._lock = DeferredLock()

    def reload(self) -> Deferred[None]:
        """Load the files now, changed or not; fire when that is done."""
        return self._lock.run(self._reload)

    def _check_files(self) -> Deferred[None] | None:
        file_versions = self._source.file_versions()
        settled, self._seen_versions = file_versions == self._seen_versions, file_versions
        if settled and file_versions != self._tried_versions:
            return self.reload()
        return None

    def _reload(self) -> Deferred[None]:
        self._tried_versions = self._source.file_versions()
        return self._load().addCallbacks(self._use, self._load_failed)  # type: ignore[arg-type]

    def _load_failed(self, failure: Failure) -> None:
        error: Any = failure.value
        if isinstance(error, CertificateError):
            log.error("http.tls.{error}; the certificate in use stays", error=error)
        else:
            log.failure("cannot load the certificate again; the one in use stays", failure)


class ExpiryWarning(Service):
    """Logs the certificate in use at the start, and later each day if it expires soon."""

    def __init__(
        self, clock: IReactorTime, current_bundle: Callable[[], CertificateBundle]
    ) -> None:
        """Watch the bundle in use.

        :param current_bundle: returns the bundle in use.
        """
        self._clock = clock
        self._current_bundle = current_bundle
        self._loop = LoopingCall(self.log_expiry, quiet=True)
        self._loop.clock = clock

    def startService(self) -> None:
        """Log the certificate, and start the daily checks."""
        super().startService()
        self.log_expiry()
        self._loop.start(WARNING_INTERVAL_S, now=False)

    def stopService(self) -> None:
        """Stop the daily checks."""
        super().stopService()
        self._loop.stop()

    def log_expiry(self, *, quiet: bool = False) -> None:
        """Log the certificate in use and when it expires.

        :param quiet: log nothing if the certificate is valid and does not expire soon.
        """
        text, is_valid = describe_certificate(
            self._current_bundle().certificate, self._clock.seconds()
        )
        if not is_valid:
            log.warn("{certificate}", certificate=text)
        elif not quiet:
            log.info("{certificate}", certificate=text)
