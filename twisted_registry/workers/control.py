"""A worker's end of the pipe from the first process."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer

from twisted_registry.workers.handover import STOP_MESSAGE, MessageDecoder

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.python.failure import Failure


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
