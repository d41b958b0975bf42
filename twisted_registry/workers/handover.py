"""What the first process hands to the others: sockets as descriptors, the rest through a pipe.

Each message in the pipe is preceded by its length. The first is a :class:`Handover`.

The configuration may hold secrets, so it goes neither on a command line nor into an environment,
which others can read. It goes as it was read, overrides included: all processes serve by the same
one, those that start later as well. The pipe stays open afterwards. Its end, whatever the reason,
tells the others that the first process is gone.

A worker's end of the pipe from the first process.
"""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from attrs import field, frozen
from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from twisted.python.failure import Failure

    from twisted_registry.config.loading import LoadedConfiguration
    from twisted_registry.tls.interfaces import CertificateBundle

#: Descriptors of a worker beside standard input, output and error.
LISTENER_FD: Final = 3
CONTROL_FD: Final = 4
LOADS_FD: Final = 5

#: Tells a worker, after the handover, to end its requests and then itself.
STOP_MESSAGE: Final = "stop"

_SIZE_BYTES: Final = 8


@frozen
class Handover:
    """What a worker is told.

    :ivar loaded: the configuration.
    :ivar number: which process it is; the first is 0.
    :ivar listener: the descriptor of the listening socket.
    :ivar loads: that of the table of loads.
    :ivar material: certificate and key, as they are at this moment; None if TLS is not spoken. The
        files may be unreadable for a worker, or hold something else by now.
    """

    loaded: LoadedConfiguration = field(repr=False)
    number: int
    listener: int = LISTENER_FD
    loads: int = LOADS_FD
    material: CertificateBundle | None = None

    @classmethod
    def read(cls, descriptor: int) -> Handover | None:
        """Wait for a handover; None if the first process ends before it is complete."""
        size = _read(descriptor, _SIZE_BYTES)
        content = _read(descriptor, int.from_bytes(size)) if size else None
        if not content:
            return None
        made: Handover = pickle.loads(content)  # noqa: S301 (the process that started us wrote it)
        return made


def encode_message(message: object) -> bytes:
    """A message as it goes through the pipe."""
    content = pickle.dumps(message)
    return len(content).to_bytes(_SIZE_BYTES) + content


class MessageDecoder:
    """Takes what follows the handover apart."""

    def __init__(self) -> None:
        """Begin between two messages."""
        self._pending = b""

    def received(self, data: bytes) -> Iterator[object]:
        """Some bytes came; answer the messages that are complete now."""
        self._pending += data
        while len(self._pending) >= _SIZE_BYTES:
            end = _SIZE_BYTES + int.from_bytes(self._pending[:_SIZE_BYTES])
            if len(self._pending) < end:
                break
            content, self._pending = self._pending[_SIZE_BYTES:end], self._pending[end:]
            yield pickle.loads(content)  # noqa: S301 (as above)


def worker_command() -> list[str]:
    """How a worker is started."""
    # -P: what lies in the working directory is no part of the program.
    return [sys.executable, "-P", "-m", "twisted_registry.app"]


def worker_environment(own: Mapping[str, str]) -> dict[str, str]:
    """The environment of a worker: that of this process, without what the handover tells.

    The way to the modules is this process' own, however it was told of it.
    """
    kept = {
        name: value
        for name, value in own.items()
        if not name.startswith(("REGISTRY_", "LISTEN_")) and name != "NOTIFY_SOCKET"
    }
    entries = [Path(entry).absolute() for entry in sys.path]
    path = os.pathsep.join(str(entry) for entry in entries if entry.exists())
    return {**kept, "PYTHONPATH": path}


def _read(descriptor: int, size: int) -> bytes | None:
    parts = []
    while size:
        part = os.read(descriptor, min(size, 65536))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


@implementer(IReadDescriptor)
class ControlPipe:
    """Hears when to stop, when the first process is gone, and what else it has to say."""

    def __init__(
        self,
        reactor: Any,
        descriptor: int,
        stop: Callable[[], object],
        abort_requests: Callable[[], object],
        on_message: Callable[[Any], object],
    ) -> None:
        """Begin to watch.

        :param descriptor: the pipe, after the handover was read.
        :param stop: called when the first process asks for it.
        :param abandon: called when the first process is gone.
        :param told: called with every other message.
        """
        self._reactor = reactor
        self._descriptor = descriptor
        self._stop = stop
        self._abort_requests = abort_requests
        self._on_message = on_message
        self._messages = MessageDecoder()
        reactor.addReader(self)

    def fileno(self) -> int:
        """The pipe."""
        return self._descriptor

    def logPrefix(self) -> str:
        """A name for the reactor's own messages."""
        return "control"

    def connectionLost(self, reason: Failure) -> None:
        """The other end is gone, or the reactor ends; then nothing is left to abandon."""
        del reason
        self._reactor.removeReader(self)
        self._abort_requests()

    def doRead(self) -> None:
        """Something came, or the end."""
        said = os.read(self._descriptor, 65536)
        if not said:
            self._reactor.removeReader(self)
            self._abort_requests()
        for message in self._messages.received(said):
            if message == STOP_MESSAGE:
                self._stop()
            else:
                self._on_message(message)
