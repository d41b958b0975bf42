"""Giving up on a peer that shows no sign of life."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime


@define(eq=False)
class IdleTimeout:
    """A timer that each sign of life sets back.

    :ivar give_up: called when it runs out, once.
    :ivar seconds: how long it waits, or waited at last.
    :ivar ended: whether it ran out.
    """

    _clock: IReactorTime
    _on_timeout: Callable[[], object]
    seconds: float = field(init=False, default=0.0)
    expired: bool = field(init=False, default=False)
    _call: IDelayedCall | None = field(init=False, default=None)

    def restart(self, seconds: float) -> None:
        """Begin to wait, or begin anew."""
        self.seconds = seconds
        if self._call is not None:
            self._call.reset(seconds)
        elif not self.expired:
            self._call = self._clock.callLater(seconds, self._end)

    def cancel(self) -> None:
        """Wait for nothing."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _end(self) -> None:
        self._call = None
        self.expired = True
        self._on_timeout()
