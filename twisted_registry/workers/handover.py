"""Messages from the first process to a worker, through a pipe.

A message is a pickle, preceded by its length. The first is a :class:`Handover` with the
configuration. The pipe carries it, since command lines and environments can be read by other users
and the configuration may contain secrets. The configuration is sent as it was read, overrides
included, so that workers which are started later use the same one.

The pipe stays open. A worker reads further messages with :class:`ControlPipe`. End of file means
that the first process has ended, for whatever reason.
"""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from attrs import define, field, frozen
from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from twisted.python.failure import Failure

    from twisted_registry.config.loading import LoadedConfiguration
    from twisted_registry.tls.interfaces import CertificateBundle

#: Descriptors of a worker, beside standard input, output and error.
LISTENER_FD: Final = 3
CONTROL_FD: Final = 4
TABLE_FD: Final = 5

#: The message that makes a worker finish its requests and end.
STOP_MESSAGE: Final = "stop"
#: The message that makes a worker cut its requests and end.
ABORT_MESSAGE: Final = "abort"

_LENGTH_BYTES: Final = 8
_READ_BYTES: Final = 65536


@frozen
class Handover:
    """Everything that a worker needs to start.

    :ivar loaded: the configuration.
    :ivar number: the number of the worker; the first process is 0.
    :ivar listener_fd: the descriptor of the listening socket.
    :ivar table_fd: the descriptor of the table of the processes.
    :ivar bundle: the current certificate and key; None without TLS. A worker cannot read the files
        itself: they may be readable for root only, or have changed since.
    :ivar started_read_only: whether the first process was started read-only, so that no process has
        the parts that store; the configuration may have been changed since.
    :ivar instance_id: identifies the registry in notifications.
    """

    loaded: LoadedConfiguration = field(repr=False)
    number: int
    listener_fd: int = LISTENER_FD
    table_fd: int = TABLE_FD
    bundle: CertificateBundle | None = None
    started_read_only: bool = False
    instance_id: str = ""

    @classmethod
    def read(cls, descriptor: int) -> Handover | None:
        """Read a handover from a pipe. Blocks.

        :returns: None if the first process ends before the handover is complete.
        """
        length = _read_exactly(descriptor, _LENGTH_BYTES)
        content = _read_exactly(descriptor, int.from_bytes(length)) if length else None
        if not content:
            return None
        handover: Handover = pickle.loads(content)  # noqa: S301 (written by the parent process)
        return handover


@frozen
class Question:
    """Asks a worker for a sign of life.

    :ivar number: what it writes into the table.
    """

    number: int


@frozen
class Inspection:
    """Asks a worker what it is doing. It answers on its standard error, as its log.

    :ivar number: the number of the answer.
    :ivar profile_s: seconds of a profile; None for the stacks.
    """

    number: int
    profile_s: float | None


def _read_exactly(descriptor: int, size: int) -> bytes | None:
    parts = []
    while size:
        part = os.read(descriptor, min(size, _READ_BYTES))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def encode_message(message: object) -> bytes:
    """Return the bytes of a message in the pipe."""
    content = pickle.dumps(message)
    return len(content).to_bytes(_LENGTH_BYTES) + content


@implementer(IReadDescriptor)
@define(eq=False)
class ControlPipe:
    """A worker's end of the pipe from the first process.

    :ivar descriptor: the pipe, after the handover was read.
    :ivar stop: called for :data:`STOP_MESSAGE`.
    :ivar abort_requests: called for :data:`ABORT_MESSAGE`, and when the first process has ended.
    :ivar on_message: called with every other message.
    """

    _reactor: Any
    _descriptor: int
    _stop: Callable[[], object]
    _abort_requests: Callable[[], object]
    _on_message: Callable[[Any], object]
    _pending: bytes = field(init=False, default=b"")

    def __attrs_post_init__(self) -> None:
        self._reactor.addReader(self)

    def fileno(self) -> int:
        """Return the descriptor of the pipe."""
        return self._descriptor

    def logPrefix(self) -> str:
        """Return the name for log lines of the reactor."""
        return "control"

    def connectionLost(self, reason: Failure) -> None:
        """Abort the requests: the first process has ended, or the reactor stops."""
        del reason
        self._close()

    def doRead(self) -> None:
        """Read from the pipe, and handle the messages that are complete."""
        data = os.read(self._descriptor, _READ_BYTES)
        if not data:
            self._close()
        self._pending += data
        for message in self._take_messages():
            if message == STOP_MESSAGE:
                self._stop()
            elif message == ABORT_MESSAGE:
                self._abort_requests()
            else:
                self._on_message(message)

    def _take_messages(self) -> Iterator[object]:
        """Yield the messages that are complete."""
        while len(self._pending) >= _LENGTH_BYTES:
            end = _LENGTH_BYTES + int.from_bytes(self._pending[:_LENGTH_BYTES])
            if len(self._pending) < end:
                break
            content, self._pending = self._pending[_LENGTH_BYTES:end], self._pending[end:]
            yield pickle.loads(content)  # noqa: S301 (written by the parent process)

    def _close(self) -> None:
        self._reactor.removeReader(self)
        self._abort_requests()


def worker_command() -> list[str]:
    """Return the command that starts a worker."""
    # -P: never import from the working directory.
    return [sys.executable, "-P", "-m", "twisted_registry.app"]


def worker_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a worker.

    That of the first process without the overrides, which the handover contains, and without the
    variables of systemd. PYTHONPATH is the module search path of the first process.
    """
    kept = {
        name: value
        for name, value in environ.items()
        if not name.startswith(("REGISTRY_", "LISTEN_", "NOTIFY_", "WATCHDOG_"))
    }
    entries = [Path(entry).absolute() for entry in sys.path]
    path = os.pathsep.join(str(entry) for entry in entries if entry.exists())
    return {**kept, "PYTHONPATH": path}
