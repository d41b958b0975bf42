"""The service that keeps the reserve of a store complete (``storage.filesystem.reserve``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from twisted_registry.storage.interfaces import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.storage.interfaces import IReserve

log = Logger()

#: Seconds between two attempts to make what is missing of the reserve.
REFILL_INTERVAL_S = 5.0


class ReserveKeeper(Service):
    """Refills the reserve while the service runs, and reports whether it is complete.

    :ivar is_complete: whether it was at the last look; a reserve that cannot be made for another
        reason than a full disk counts as complete.
    """

    def __init__(
        self, reserve: IReserve, on_change: Callable[[bool], object], clock: IReactorTime
    ) -> None:
        """Prepare the service.

        :param on_change: called with :attr:`is_complete` when it changes; it begins as true.
        """
        self.setName("reserve")
        self.is_complete = True
        self._reserve = reserve
        self._on_change = on_change
        self._loop = LoopingCall(self._refill)
        self._loop.clock = clock
        self._refilling: Deferred[bool] | None = None
        self._is_failing = False

    def startService(self) -> None:
        """Make the reserve now, and look after it periodically."""
        super().startService()
        self._loop.start(REFILL_INTERVAL_S)

    def stopService(self) -> Deferred[None]:
        """Stop, and cancel the refill under way."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()
        if self._refilling is not None:
            self._refilling.cancel()
        return succeed(None)

    async def _refill(self) -> None:
        is_complete = True
        try:
            self._refilling = self._reserve.refill()
            is_complete = await self._refilling
        except CancelledError:
            return
        except StorageError as error:
            if not self._is_failing:
                log.error(
                    "the reserve of the store cannot be made, will retry: {error}", error=error
                )
            self._is_failing = True
        except Exception:  # noqa: BLE001 - a store without a reserve is served all the same
            if not self._is_failing:
                log.failure("the reserve of the store cannot be made, will retry")
            self._is_failing = True
        else:
            self._is_failing = False
        finally:
            self._refilling = None
        if is_complete != self.is_complete:
            self.is_complete = is_complete
            if is_complete:
                log.info("store has space again, its reserve is complete")
            else:
                log.error("store is full, pushes are refused until its reserve is complete again")
            self._on_change(is_complete)
