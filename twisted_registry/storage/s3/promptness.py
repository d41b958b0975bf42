"""Connections that acknowledge at once what they receive.

Some stores (Ceph's gateway, as it is installed) send the head of an answer, and its body only once
that was acknowledged. Linux keeps an acknowledgement back for 40 ms, to send it along with data of
ours, of which there are none: so each small answer would take that long.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from twisted_registry.storage.s3.endpoints import READ_BUFFER_BYTES

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IProtocol, IProtocolFactory
    from twisted.web.client import URI

#: Bytes to read at once in the midst of a large body, which saves a ninth of the processor time.
#: Two such pieces are held for a client that is slower than the store.
_BULK_BUFFER_BYTES: Final = 512 * 1024
#: The option of Linux; elsewhere nothing is done.
_QUICKACK = getattr(socket, "TCP_QUICKACK", None)


@implementer(IAgentEndpointFactory)
@frozen
class QuickAckEndpointFactory:
    """Makes the connections of another factory prompt."""

    _endpoints: IAgentEndpointFactory

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """Answer the endpoint of a URL."""
        return _QuickAckEndpoint(self._endpoints.endpointForURI(uri))


@implementer(IStreamClientEndpoint)
@frozen
class _QuickAckEndpoint:
    _endpoint: IStreamClientEndpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect."""
        return self._endpoint.connect(protocolFactory).addCallback(enable_quickack)


def enable_quickack(protocol: Any) -> Any:
    """Let a connected protocol acknowledge all that it receives from now on; and answer it."""
    transport = protocol.transport
    # Over TLS the socket is one layer below.
    connection = getattr(transport, "transport", transport)
    handle = getattr(connection, "socket", None)
    if _QUICKACK is None or not isinstance(handle, socket.socket):
        return protocol
    receive = protocol.dataReceived

    def received(data: bytes) -> None:
        receive(data)
        if len(data) >= READ_BUFFER_BYTES:
            # More is to come, and so much is acknowledged in any case.
            connection.bufferSize = _BULK_BUFFER_BYTES
            return
        connection.bufferSize = READ_BUFFER_BYTES
        # It holds for a few packets only. The socket may be closed by now.
        with suppress(OSError):
            handle.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)

    protocol.dataReceived = received
    return protocol
