"""The stop of a process: its signals, and the times after which it waits for nothing more.

The first SIGTERM or SIGINT stops the reactor, and with it the service: requests in progress end, up
to ``http.draintimeout``. A second one cuts them. In both cases the process leaves after some time
even if something hangs, such as a thread that waits for a network share.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from twisted.logger import Logger

if TYPE_CHECKING:
    from collections.abc import Callable

log = Logger()

#: Signals that change a process that serves, and do not stop it.
RELOAD_SIGNALS: Final = (signal.SIGHUP, signal.SIGUSR1)
STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
#: Seconds after ``http.draintimeout`` until the process leaves. It is longer than the time after
#: which the first process kills its workers.
CLOSE_S: Final = 15.0
#: Seconds after a second signal until the process leaves.
_ABORT_S: Final = 3.0
#: A signal within so many seconds of the first one is the same request to stop: a terminal and the
#: program that has started the registry may both send it.
_REPEAT_S: Final = 0.5


class ProcessStop:
    """Handles the signals during a stop, and limits its time.

    :ivar exit_status: of the process: 0, or 128 and the number of the second signal.
    """

    def __init__(
        self, reactor: Any, drain_seconds: float, abort_requests: Callable[[], object]
    ) -> None:
        """Wait for the shutdown of the reactor.

        :param drain_seconds: how long the service waits for requests.
        :param abort_requests: cuts the requests in progress.
        """
        self.exit_status = 0
        self._reactor = reactor
        self._drain_seconds = drain_seconds
        self._abort_requests = abort_requests
        self._began: float | None = None
        self._received = count()
        reactor.callWhenRunning(self._handle_signals)
        reactor.addSystemEventTrigger("before", "shutdown", self._begin)

    def _handle_signals(self) -> None:
        # The handlers of Twisted stop the reactor; to do so twice is an error.
        for number in STOP_SIGNALS:
            signal.signal(number, partial(self._on_signal, signal.getsignal(number)))

    def _begin(self) -> None:
        if self._began is None:
            self._began = time.monotonic()
        limit_stop(self._drain_seconds)

    def _on_signal(self, stop: Any, number: int, frame: object) -> None:
        now = time.monotonic()
        # Another signal may interrupt this function at any point, but not within next().
        if next(self._received) == 0 and self._began is None:
            self._began = now
            stop(number, frame)
        elif self._began is None or now - self._began < _REPEAT_S:
            self._reactor.callFromThread(_log_stopping)
        elif not self.exit_status:
            self.exit_status = 128 + number
            self._reactor.callFromThread(self._abort)
            _leave_after(_ABORT_S, self.exit_status)

    def _abort(self) -> None:
        log.warn("stopping at once, because of a second signal: requests in progress are cut")
        self._abort_requests()


def limit_stop(drain_seconds: float) -> None:
    """Leave with status 1 if the stop of this process, which begins now, does not end.

    :param drain_seconds: how long the service waits for requests.
    """
    _leave_after(drain_seconds + CLOSE_S, 1)


def _log_stopping() -> None:
    log.info(
        "already stopping; http.draintimeout limits how long that takes, and another signal cuts"
        " the requests in progress"
    )


def _leave_after(seconds: float, status: int) -> None:
    """End this process, whatever its threads do; a stop that ends earlier ends this as well."""
    timer = threading.Timer(seconds, _leave, (seconds, status))
    timer.daemon = True
    timer.start()


def _leave(seconds: float, status: int) -> None:
    own = {threading.main_thread(), threading.current_thread()}
    busy = sorted(each.name for each in threading.enumerate() if each not in own)
    log.error(
        "the stop has not ended after {seconds:g} s; the process leaves without waiting for its"
        " threads: {threads}",
        seconds=seconds, threads=", ".join(busy) or "none",
    )  # fmt: skip
    os._exit(status)
