"""How full the store is, looked at every few seconds (``storage.maintenance.watermark``)."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IReactorTime

log = Logger()


class FillLevel(IntEnum):
    """How high it stands: room enough, nearly full, too full for pushes."""

    ROOM = 0
    HIGH = 1
    FULL = 2


class Watermark(Service):
    """Compares, while the service runs, and tells when the level changes.

    :ivar level: as it was found last.
    :ivar used: the part of the store that was used then, from 0 to 1; None if that can not be told.
    """

    def __init__(
        self,
        measure: Callable[[], Deferred[float]],
        on_change: Callable[[FillLevel], object],
        clock: IReactorTime,
        interval: float,
        thresholds: tuple[float, float],
        close: Callable[[], Deferred[None]],
    ) -> None:
        """Take what to look at, and whom to tell.

        :param look: fires with the part of the store that is used, from 0 to 1.
        :param interval: seconds from one look to the next.
        :param marks: from which part on it is nearly full, and too full for pushes; 0 is never.
        :param close: frees what looking takes, when the service has stopped.
        """
        self.setName("watermark")
        self.level = FillLevel.ROOM
        self.used: float | None = None
        self._measure = measure
        self._on_change = on_change
        self._interval = interval
        self._high, self._full = thresholds
        self._close = close
        self._loop = LoopingCall(self._start_measurement)
        self._loop.clock = clock
        self._measuring: Deferred[float] | None = None
        self._failing = False

    def startService(self) -> None:
        """Look, and go on looking."""
        super().startService()
        self._loop.start(self._interval)

    def stopService(self) -> Deferred[None]:
        """Look no more."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()
        if self._measuring is not None:
            self._measuring.cancel()
        return self._close()

    def status(self) -> dict[str, Any]:
        """How it stands, ready for JSON: ``used``, ``level``, and the marks (0: never)."""
        thresholds = {"warn": self._high, "refuse": self._full}
        return {"used": self.used, "level": self.level.name.lower(), **thresholds}

    def _start_measurement(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._update_level())

    async def _update_level(self) -> None:
        try:
            self._measuring = self._measure()
            used = await self._measuring
        except CancelledError:
            return
        except Exception:  # noqa: BLE001 - a disk that can not be asked is no full disk
            if not self._failing:
                log.failure("how full the store is can not be told; it will be tried again")
            self._failing, self.used = True, None
            return
        finally:
            self._measuring = None
        self._failing, self.used = False, used
        level = self._level_of(used)
        if level != self.level:
            self.level = level
            _log_level(level, used)
            self._on_change(level)

    def _level_of(self, used: float) -> FillLevel:
        if self._full and used >= self._full:
            return FillLevel.FULL
        return FillLevel.HIGH if self._high and used >= self._high else FillLevel.ROOM


def _log_level(level: FillLevel, used: float) -> None:
    part = f"{100 * used:.1f}"
    if level is FillLevel.FULL:
        log.error("the store is {part} % full: pushes are refused, pulls go on", part=part)
    elif level is FillLevel.HIGH:
        log.warn("the store is {part} % full", part=part)
    else:
        log.info("the store has room again: {part} % are used", part=part)
