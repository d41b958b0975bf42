"""Ordering a certificate when there is none, and when a third of its time is left.

What fails is tried again later and later, while the certificate that is there is shown. Let's
Encrypt counts five failures for a host in an hour, and then says no to everything: the pauses stay
below that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.application.service import Service
from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from twisted_registry.letsencrypt.client import ACMEError

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted_registry.letsencrypt.cache import ACMECache
    from twisted_registry.letsencrypt.order import Orders

log = Logger()

#: Seconds between two looks whether it is time.
CHECK_INTERVAL_S: Final = 60.0
#: Seconds until a certificate that is good for longer is looked at again: files may be lost.
_RECHECK_S: Final = 3600.0
#: Seconds until an order that failed is tried again; doubled each time, up to the limit.
_MIN_RETRY_S: Final = 600.0
_MAX_RETRY_S: Final = 24 * 3600.0
#: Seconds until it is looked at again what another process orders.
_BUSY_RETRY_S: Final = 300.0
#: Seconds that an order may take.
_ORDER_TIMEOUT_S: Final = 1800.0


class CertificateRenewal(Service):
    """Orders certificates in time."""

    def __init__(
        self,
        clock: Any,
        cache: ACMECache,
        orders: Orders,
        in_thread: Callable[..., Deferred[Any]],
        renewed: Callable[[], object],
    ) -> None:
        """Take what to order with, and where it is kept.

        :param in_thread: calls what blocks, the cache.
        :param renewed: called when there is another certificate.
        """
        self._clock = clock
        self._cache = cache
        self._orders = orders
        self._in_thread = in_thread
        self._renewed = renewed
        self._failures = 0
        self._next_attempt = 0.0
        self._renewing: Deferred[None] | None = None
        self._loop = LoopingCall(self._check)
        self._loop.clock = clock

    def startService(self) -> None:
        """Look now, and from now on."""
        super().startService()
        self._loop.start(CHECK_INTERVAL_S)

    def stopService(self) -> Deferred[None]:
        """Look no more; an order that is under way is given up."""
        super().stopService()
        self._loop.stop()
        busy, ended = self._renewing, Deferred[None]()
        if busy is None:
            ended.callback(None)
        else:
            busy.addBoth(lambda _: ended.callback(None))
            busy.cancel()
        return ended

    def retry_now(self) -> None:
        """Look at the next opportunity, whatever has failed before."""
        self._failures, self._next_attempt = 0, 0.0

    def _check(self) -> None:
        # The loop is not told of the order, which it would wait for: a stop could not cancel it.
        if self._renewing is None and self._clock.seconds() >= self._next_attempt:
            self._renewing = Deferred.fromCoroutine(self._renew())
            self._renewing.addBoth(self._renew_ended)

    def _renew_ended(self, _: object) -> None:
        self._renewing = None

    async def _renew(self) -> None:
        self._next_attempt = self._clock.seconds() + _RECHECK_S
        try:
            with self._cache.order_lock() as order_lock:
                if not order_lock:
                    self._next_attempt = self._clock.seconds() + _BUSY_RETRY_S
                    return
                renew_at = await self._in_thread(self._cache.renew_at)
                if renew_at > self._clock.seconds():
                    self._next_attempt = min(renew_at, self._next_attempt)
                    return
                ordering = Deferred.fromCoroutine(self._orders.order())
                await ordering.addTimeout(_ORDER_TIMEOUT_S, self._clock)
        except ACMEError as error:
            self._schedule_retry(str(error), error.retry_after)
        except OSError as error:
            self._schedule_retry(f"cachefile: {error.filename}: {error.strerror}")
        except defer.TimeoutError:
            self._schedule_retry(f"no certificate within {_ORDER_TIMEOUT_S:.0f} s")
        except CancelledError:
            return  # we stop
        except Exception as error:  # noqa: BLE001 - whatever the server's answers lead to
            log.failure("answers of the ACME server make no sense")
            self._schedule_retry(f"{type(error).__name__}: {error}")
        else:
            self._failures = 0
            self._renewed()

    def _schedule_retry(self, reason: str, wait: float = 0.0) -> None:
        if not self.running:
            return
        wait = max(wait, min(_MIN_RETRY_S * 2**self._failures, _MAX_RETRY_S))
        self._failures += 1
        self._next_attempt = self._clock.seconds() + wait
        log.error(
            "http.tls.letsencrypt: {reason}; tried again in {minutes:.0f} minutes; the certificate"
            " in use stays",
            reason=reason,
            minutes=wait / 60,
        )
