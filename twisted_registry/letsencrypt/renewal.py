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

from twisted_registry.letsencrypt.client import AcmeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted_registry.letsencrypt.cache import Cache
    from twisted_registry.letsencrypt.order import Orders

log = Logger()

#: Seconds between two looks whether it is time.
LOOK: Final = 60.0
#: Seconds until a certificate that is good for longer is looked at again: files may be lost.
_SETTLED: Final = 3600.0
#: Seconds until an order that failed is tried again; doubled each time, up to the limit.
_SOON: Final = 600.0
_LATE: Final = 24 * 3600.0
#: Seconds until it is looked at again what another process orders.
_OTHER: Final = 300.0
#: Seconds that an order may take.
_PATIENCE: Final = 1800.0


class Renewal(Service):
    """Orders certificates in time."""

    def __init__(
        self,
        clock: Any,
        cache: Cache,
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
        self._next = 0.0
        self._busy: Deferred[None] | None = None
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock

    def startService(self) -> None:
        """Look now, and from now on."""
        super().startService()
        self._loop.start(LOOK)

    def stopService(self) -> Deferred[None]:
        """Look no more; an order that is under way is given up."""
        super().stopService()
        self._loop.stop()
        busy, ended = self._busy, Deferred[None]()
        if busy is None:
            ended.callback(None)
        else:
            busy.addBoth(lambda _: ended.callback(None))
            busy.cancel()
        return ended

    def soon(self) -> None:
        """Look at the next opportunity, whatever has failed before."""
        self._failures, self._next = 0, 0.0

    def _look(self) -> None:
        # The loop is not told of the order, which it would wait for: a stop could not cancel it.
        if self._busy is None and self._clock.seconds() >= self._next:
            self._busy = Deferred.fromCoroutine(self._renew())
            self._busy.addBoth(self._done)

    def _done(self, _: object) -> None:
        self._busy = None

    async def _renew(self) -> None:
        self._next = self._clock.seconds() + _SETTLED
        try:
            with self._cache.alone() as alone:
                if not alone:
                    self._next = self._clock.seconds() + _OTHER
                    return
                due = await self._in_thread(self._cache.due)
                if due > self._clock.seconds():
                    self._next = min(due, self._next)
                    return
                ordering = Deferred.fromCoroutine(self._orders.order())
                await ordering.addTimeout(_PATIENCE, self._clock)
        except AcmeError as error:
            self._again(str(error), error.retry_after)
        except OSError as error:
            self._again(f"cachefile: {error.filename}: {error.strerror}")
        except defer.TimeoutError:
            self._again(f"no certificate within {_PATIENCE:.0f} s")
        except CancelledError:
            return  # we stop
        except Exception as error:  # noqa: BLE001 - whatever the server's answers lead to
            log.failure("answers of the ACME server make no sense")
            self._again(f"{type(error).__name__}: {error}")
        else:
            self._failures = 0
            self._renewed()

    def _again(self, reason: str, wait: float = 0.0) -> None:
        if not self.running:
            return
        wait = max(wait, min(_SOON * 2**self._failures, _LATE))
        self._failures += 1
        self._next = self._clock.seconds() + wait
        log.error(
            "http.tls.letsencrypt: {reason}; tried again in {minutes:.0f} minutes; the certificate"
            " in use stays",
            reason=reason,
            minutes=wait / 60,
        )
