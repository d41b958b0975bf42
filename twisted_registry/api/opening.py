"""Which output fits a transport."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IReactorThreads
from twisted.internet.tcp import Connection

from twisted_registry.api.output import Output, TransportOutput
from twisted_registry.api.secureoutput import SecureOutput
from twisted_registry.api.socketoutput import SocketOutput
from twisted_registry.securesocket import ISecureSocket

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import DeferredSemaphore
    from twisted.internet.interfaces import IReactorTime


def open_output(
    transport: Any,
    clock: IReactorTime,
    moved: Callable[[], None],
    drained: Callable[[], None],
    turns: DeferredSemaphore,
) -> Output:
    """The output that fits a transport.

    A wrapped transport hands out the socket below it, which is not where its bytes belong: only
    Twisted's own connections are sent to directly.

    :param turns: of the threads that send files over TLS.
    """
    if isinstance(transport, Connection) and not transport.TLS:
        return SocketOutput(transport, clock, moved, drained)
    if ISecureSocket.providedBy(transport) and IReactorThreads.providedBy(clock):
        return SecureOutput(transport, clock, moved, drained, turns)
    return TransportOutput(transport, clock, moved, drained)
