"""Fill level of the disk, measured every few seconds (``storage.maintenance.watermark``)."""

from __future__ import annotations

import os
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
    """ROOM: enough space; HIGH: nearly full; FULL: pushes are refused."""

    ROOM = 0
    HIGH = 1
    FULL = 2


class Watermark(Service):
    """Measures how full the store is while the service runs, and reports changes of the level.

    :ivar level: the level at the last measurement.
    :ivar used: the fraction of the store that was used then, from 0 to 1; None if unknown.
    """

    def __init__(
        self,
        measure: Callable[[], Deferred[float]],
        on_change: Callable[[FillLevel], object],
        clock: IReactorTime,
        interval_s: float,
        thresholds: tuple[float, float],
        close: Callable[[], Deferred[None]],
    ) -> None:
        """Prepare the service.

        :param measure: fires with the fraction of the store that is used, from 0 to 1.
        :param on_change: called with the new level.
        :param interval_s: seconds between two measurements.
        :param thresholds: the fractions from which on the level is HIGH and FULL; 0 means never.
        :param close: frees the resources of ``measure``; called when the service stops.
        """
        self.setName("watermark")
        self.level = FillLevel.ROOM
        self.used: float | None = None
        self._measure = measure
        self._on_change = on_change
        self._interval_s = interval_s
        self._high, self._full = thresholds
        self._close = close
        self._loop = LoopingCall(self._update_level)
        self._loop.clock = clock
        self._measuring: Deferred[float] | None = None
        self._is_failing = False

    def startService(self) -> None:
        """Measure now, and then periodically."""
        super().startService()
        self._loop.start(self._interval_s)

    def stopService(self) -> Deferred[None]:
        """Stop measuring, and cancel the measurement under way."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()
        if self._measuring is not None:
            self._measuring.cancel()
        return self._close()

    def status(self) -> dict[str, Any]:
        """Return ``used``, ``level`` and the thresholds ``warn`` and ``refuse``, ready for JSON."""
        thresholds = {"warn": self._high, "refuse": self._full}
        return {"used": self.used, "level": self.level.name.lower(), **thresholds}

    async def _update_level(self) -> None:
        try:
            self._measuring = self._measure()
            used = await self._measuring
        except CancelledError:
            return
        except Exception:  # noqa: BLE001 - an unreadable disk is not a full disk
            if not self._is_failing:
                log.failure("disk usage could not be measured, will retry")
            self._is_failing, self.used = True, None
            return
        finally:
            self._measuring = None
        self._is_failing, self.used = False, used
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
    percent = f"{100 * used:.1f}"
    if level is FillLevel.FULL:
        log.error("store is full, pushes are refused used_percent={percent}", percent=percent)
    elif level is FillLevel.HIGH:
        log.warn("store is nearly full used_percent={percent}", percent=percent)
    else:
        log.info("store has space again used_percent={percent}", percent=percent)


def used_fraction(path: str, statvfs: Callable[[str], os.statvfs_result] = os.statvfs) -> float:
    """Return the fraction of a filesystem that is used, from 0 to 1, of its blocks or its inodes.

    The larger of the two. Blocks that are reserved for root count as used, as in ``df``. It blocks.

    :param path: any path on the filesystem.
    :raises OSError: if it cannot be measured.
    """
    found = statvfs(path)
    used = found.f_blocks - found.f_bfree
    fractions = [used / max(1, used + found.f_bavail)]
    if found.f_files:
        inodes = found.f_files - found.f_ffree
        fractions.append(inodes / max(1, inodes + found.f_favail))
    return max(fractions)
