"""Choose the output of a connection by its transport."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IReactorThreads
from twisted.internet.tcp import Connection

from twisted_registry.http.interfaces import ITLSConnection
from twisted_registry.http.output import Output, TransportOutput
from twisted_registry.http.socket_output import SocketOutput
from twisted_registry.http.tls_output import TLSOutput

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import DeferredSemaphore


def make_output(
    transport: Any,
    clock: Any,
    progressed: Callable[[], None],
    drained: Callable[[], None],
    tls_send_slots: DeferredSemaphore,
) -> Output:
    """Return the output that fits a transport.

    A transport that wraps another one returns the handle of the socket below, which must not get
    the bytes of the upper one. Only Twisted's own connections are sent to directly.

    :param clock: an IReactorTime; with threads, which TLS uses, if it is an IReactorThreads, too.
    :param progressed: called when the peer has accepted bytes.
    :param drained: called when everything written has been sent.
    :param tls_send_slots: bounds the threads that send over TLS.
    """
    arguments = (transport, clock, progressed, drained)
    if isinstance(transport, Connection) and not transport.TLS:
        return SocketOutput(*arguments)
    if ITLSConnection.providedBy(transport) and IReactorThreads.providedBy(clock):
        return TLSOutput(*arguments, tls_send_slots)
    return TransportOutput(*arguments)
