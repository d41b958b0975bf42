from __future__ import annotations

import socket
from contextlib import closing

import pytest
from attrs import define, field

from twisted_registry.storage.s3.connections import READ_BUFFER_BYTES, tune_connection


@define
class Transport:
    socket: object = None
    transport: object = field(default=None)
    bufferSize: int = READ_BUFFER_BYTES

    def __getattribute__(self, name):
        # A plain connection has no transport below it.
        found = object.__getattribute__(self, name)
        if name == "transport" and found is None:
            raise AttributeError(name)
        return found


class Protocol:
    def __init__(self, transport):
        self.transport = transport
        self.received = []

    def dataReceived(self, data):
        self.received.append(data)


def is_quick(handle):
    return handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK)


@pytest.fixture
def pair():
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
        with closing(near), closing(far):
            yield near, far


@pytest.mark.parametrize("tls", [False, True])
def test_received_data_is_acknowledged_at_once(pair, tls):
    near, _ = pair
    near.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
    transport = Transport(near)
    protocol = Protocol(Transport(None, transport) if tls else transport)
    assert tune_connection(protocol) is protocol
    assert not is_quick(near)
    protocol.dataReceived(b"a")
    assert protocol.received == [b"a"]
    assert is_quick(near)
    near.close()
    protocol.dataReceived(b"b")
    assert protocol.received == [b"a", b"b"]


def test_large_reads_use_a_larger_buffer_and_no_quickack(pair):
    near, _ = pair
    protocol = tune_connection(Protocol(Transport(near)))
    near.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
    protocol.dataReceived(bytes(READ_BUFFER_BYTES))
    assert not is_quick(near)
    assert protocol.transport.bufferSize > READ_BUFFER_BYTES
    protocol.dataReceived(bytes(READ_BUFFER_BYTES - 1))
    assert is_quick(near)
    assert protocol.transport.bufferSize == READ_BUFFER_BYTES


def test_protocol_without_a_socket_is_not_patched():
    protocol = Protocol(Transport())
    assert tune_connection(protocol) is protocol
    assert "dataReceived" not in vars(protocol)
