"""Which output fits a transport."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IReactorThreads
from twisted.internet.tcp import Connection

from twisted_registry.api.output import Output, TransportOutput
from twisted_registry.api.secureoutput import TLSOutput
from twisted_registry.api.socketoutput import SocketOutput
from twisted_registry.securesocket import ITLSConnection

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import DeferredSemaphore
    from twisted.internet.interfaces import IReactorTime


def make_output(
    transport: Any,
    clock: IReactorTime,
    progressed: Callable[[], None],
    drained: Callable[[], None],
    tls_send_slots: DeferredSemaphore,
) -> Output:
    """The output that fits a transport.

    A wrapped transport hands out the socket below it, which is not where its bytes belong: only
    Twisted's own connections are sent to directly.

    :param turns: of the threads that send files over TLS.
    """
    if isinstance(transport, Connection) and not transport.TLS:
        return SocketOutput(transport, clock, progressed, drained)
    if ITLSConnection.providedBy(transport) and IReactorThreads.providedBy(clock):
        return TLSOutput(transport, clock, progressed, drained, tls_send_slots)
    return TransportOutput(transport, clock, progressed, drained)
