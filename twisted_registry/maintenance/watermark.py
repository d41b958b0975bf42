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


class Level(IntEnum):
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
        look: Callable[[], Deferred[float]],
        tell: Callable[[Level], object],
        clock: IReactorTime,
        interval: float,
        marks: tuple[float, float],
        close: Callable[[], Deferred[None]],
    ) -> None:
        """Take what to look at, and whom to tell.

        :param look: fires with the part of the store that is used, from 0 to 1.
        :param interval: seconds from one look to the next.
        :param marks: from which part on it is nearly full, and too full for pushes; 0 is never.
        :param close: frees what looking takes, when the service has stopped.
        """
        self.setName("watermark")
        self.level = Level.ROOM
        self.used: float | None = None
        self._look = look
        self._tell = tell
        self._interval = interval
        self._high, self._full = marks
        self._close = close
        self._loop = LoopingCall(self._compare)
        self._loop.clock = clock
        self._looking: Deferred[float] | None = None
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
        if self._looking is not None:
            self._looking.cancel()
        return self._close()

    def status(self) -> dict[str, Any]:
        """How it stands, ready for JSON: ``used``, ``level``, and the marks (0: never)."""
        marks = {"warn": self._high, "refuse": self._full}
        return {"used": self.used, "level": self.level.name.lower(), **marks}

    def _compare(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._attempt())

    async def _attempt(self) -> None:
        try:
            self._looking = self._look()
            used = await self._looking
        except CancelledError:
            return
        except Exception:  # noqa: BLE001 - a disk that can not be asked is no full disk
            if not self._failing:
                log.failure("how full the store is can not be told; it will be tried again")
            self._failing, self.used = True, None
            return
        finally:
            self._looking = None
        self._failing, self.used = False, used
        level = self._reached(used)
        if level != self.level:
            self.level = level
            _say(level, used)
            self._tell(level)

    def _reached(self, used: float) -> Level:
        if self._full and used >= self._full:
            return Level.FULL
        return Level.HIGH if self._high and used >= self._high else Level.ROOM


def _say(level: Level, used: float) -> None:
    part = f"{100 * used:.1f}"
    if level is Level.FULL:
        log.error("the store is {part} % full: pushes are refused, pulls go on", part=part)
    elif level is Level.HIGH:
        log.warn("the store is {part} % full", part=part)
    else:
        log.info("the store has room again: {part} % are used", part=part)
