"""Messages to systemd about the state of this process: the protocol of sd_notify(3).

A message is one datagram of ``NAME=VALUE`` lines to the socket that NOTIFY_SOCKET names: a path, or
``@`` and a name in the abstract namespace.
"""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

log = Logger()

#: Seconds for which a message waits while the queue of the socket is full.
_SEND_TIMEOUT_S = 1.0


class SystemdNotifier(Service):
    """Reports the start, reloads and the stop, and that the event loop runs (the watchdog)."""

    def __init__(
        self,
        environ: Mapping[str, str],
        reactor: Any,
        stop_seconds: float,
        describe: Callable[[], str],
        are_workers_alive: Callable[[], bool],
    ) -> None:
        """Read the variables; to be called in the process that systemd has started.

        :param environ: has NOTIFY_SOCKET. The watchdog runs if WATCHDOG_USEC is set as well, and
            WATCHDOG_PID is not another process.
        :param stop_seconds: how long a stop takes at most.
        :param describe: returns a line for ``systemctl status``.
        :param are_workers_alive: the watchdog reports nothing while this returns False.
        """
        self.setName("systemd")
        self._reactor = reactor
        self._stop_seconds = stop_seconds
        self._describe = describe
        self._are_workers_alive = are_workers_alive
        self._socket_name = environ["NOTIFY_SOCKET"]
        self._started_pid = os.getpid()
        microseconds = environ.get("WATCHDOG_USEC", "")
        is_for_this = environ.get("WATCHDOG_PID", str(self._started_pid)) == str(self._started_pid)
        self._watchdog_s = (
            int(microseconds) / 1e6 if microseconds.isdecimal() and is_for_this else 0.0
        )
        self._loop = LoopingCall(self._report_alive)
        self._loop.clock = reactor

    def startService(self) -> None:
        """Report the start as soon as the reactor runs, and start the watchdog."""
        super().startService()
        self._reactor.callWhenRunning(self._reactor.callLater, 0, self._started)

    def stopService(self) -> None:
        """Report that the stop begins, and how long it may take."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()
        self._send(
            "STOPPING=1",
            f"EXTEND_TIMEOUT_USEC={round(self._stop_seconds * 1e6)}",
            "STATUS=Stopping: requests in progress may end",
        )

    def reload_begins(self) -> None:
        """Report that the configuration is read again."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def reload_ended(self, problem: str = "") -> None:
        """Report the end of a reload.

        :param problem: why it has changed nothing; empty if it was successful.
        """
        status = f"The last reload has failed: {problem}" if problem else self._describe()
        self._send("READY=1", f"STATUS={status}")

    def _started(self) -> None:
        if not self.running:
            return
        # twistd continues in another process if it runs in the background.
        own = os.getpid()
        daemon = [f"MAINPID={own}"] if own != self._started_pid else []
        self._send("READY=1", *daemon, f"STATUS={self._describe()}")
        if self._watchdog_s:
            self._loop.start(self._watchdog_s / 2)

    def _report_alive(self) -> None:
        if self._are_workers_alive():
            self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        name = self._socket_name
        address = f"\0{name[1:]}" if name.startswith("@") else name
        message = "\n".join(line.replace("\n", " ") for line in lines)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(_SEND_TIMEOUT_S)
                sender.sendto(message.encode(), address)
        except OSError as error:
            log.warn(
                "systemd cannot be notified: NOTIFY_SOCKET={name}: {reason}",
                name=name, reason=error.strerror or str(error),
            )  # fmt: skip
