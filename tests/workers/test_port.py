"""The shared port, with a clock for a reactor and real sockets."""

from __future__ import annotations

import errno
import os
import socket

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IListeningPort, IReadDescriptor, IStreamServerEndpoint
from twisted.internet.protocol import ServerFactory
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from zope.interface.verify import verifyObject

from twisted_registry.workers.port import AdoptedEndpoint, ProcessTable, SharedPort, SharingEndpoint


class Reactor(Clock):
    """Remembers who reads, and what it was given."""

    def __init__(self):
        super().__init__()
        self.readers = set()
        self.adopted = []
        self.refuse = None

    def addReader(self, reader):
        self.readers.add(reader)

    def removeReader(self, reader):
        self.readers.discard(reader)

    def adoptStreamConnection(self, descriptor, family, factory):
        if self.refuse is not None:
            raise self.refuse
        made = socket.socket(fileno=os.dup(descriptor))
        assert made.family == family
        assert not os.get_blocking(made.fileno())
        self.adopted.append(made)
        factory.count(len(self.adopted))


class Factory(ServerFactory):
    noisy = False
    started = stopped = 0

    def startFactory(self):
        self.started += 1

    def stopFactory(self):
        self.stopped += 1


class Shared:
    """A port, its reactor, and clients of it."""

    def __init__(self, listening=None):
        self.reactor = Reactor()
        self.table = ProcessTable.create(2)
        self.other = ProcessTable(os.dup(self.table.fileno()), 2, 1)
        self.factory = Factory()
        self.factory.count = self.table.publish
        self.listening = listening or socket.create_server(("127.0.0.1", 0))
        self.port = SharedPort(self.reactor, self.listening, self.factory, self.table)
        self.port.startListening()
        self.clients = []

    def connect(self):
        self.clients.append(socket.create_connection(self.listening.getsockname()))

    def close(self):
        self.port.stopListening()
        for each in (*self.clients, *self.reactor.adopted):
            each.close()
        self.table.close()
        self.other.close()


@pytest.fixture
def shared():
    made = Shared()
    yield made
    made.close()


def test_each_read_accepts_one_connection(shared):
    verifyObject(IListeningPort, shared.port)
    verifyObject(IReadDescriptor, shared.port)
    assert shared.reactor.readers == {shared.port}
    assert shared.factory.started == 1
    assert shared.port.fileno() == shared.listening.fileno()
    assert "port" in shared.port.logPrefix()
    for _ in range(3):
        shared.connect()
    for count in (1, 2, 3, 3):
        shared.port.doRead()
        assert len(shared.reactor.adopted) == count


def test_a_connection_is_left_to_a_process_with_fewer_for_a_moment(shared):
    shared.other.register()
    shared.connect()
    shared.connect()
    shared.port.doRead()  # no process has any
    assert len(shared.reactor.adopted) == 1
    shared.port.doRead()
    assert len(shared.reactor.adopted) == 1
    assert not shared.reactor.readers
    # The other process does not accept it.
    shared.reactor.advance(0.01)
    assert len(shared.reactor.adopted) == 2
    assert shared.reactor.readers == {shared.port}


def test_a_connection_that_the_other_process_accepted_is_not_waited_for(shared):
    shared.other.register()
    shared.table.publish(1)
    shared.connect()
    shared.port.doRead()
    shared.listening.accept()[0].close()
    shared.reactor.advance(0.01)
    assert not shared.reactor.adopted
    assert shared.reactor.readers == {shared.port}


def test_a_stop_while_a_connection_is_left_to_another_process(shared):
    shared.other.register()
    shared.table.publish(1)
    shared.connect()
    shared.port.doRead()
    shared.port.stopListening()
    shared.port.stopListening()
    assert not shared.reactor.getDelayedCalls()
    assert shared.factory.stopped == 1
    assert shared.listening.fileno() == -1
    assert not shared.other.others_have_fewer()


def test_a_lost_reader_stops_listening(shared):
    shared.port.connectionLost(None)
    assert shared.factory.stopped == 1
    assert not shared.reactor.readers


def test_accepting_pauses_when_no_descriptor_is_left(shared, monkeypatch):
    told = []

    def accept(_):
        raise OSError(errno.EMFILE, "Too many open files")

    globalLogPublisher.addObserver(told.append)
    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, "accept", accept)
        shared.port.doRead()
    globalLogPublisher.removeObserver(told.append)
    assert [event["reason"] for event in told] == ["Too many open files"]
    assert not shared.reactor.readers
    shared.connect()
    shared.reactor.advance(1)
    assert len(shared.reactor.adopted) == 1


def test_a_client_that_disconnected_early_is_ignored(shared):
    shared.reactor.refuse = OSError(errno.ENOTCONN, "Transport endpoint is not connected")
    shared.connect()
    shared.port.doRead()
    shared.reactor.refuse = None
    shared.connect()
    shared.port.doRead()
    assert len(shared.reactor.adopted) == 1


def test_a_socket_that_was_shut_down_stops_listening(shared):
    told = []
    shared.listening.shutdown(socket.SHUT_RDWR)
    globalLogPublisher.addObserver(told.append)
    shared.port.doRead()
    globalLogPublisher.removeObserver(told.append)
    assert told == []
    assert not shared.reactor.readers
    assert shared.factory.stopped == 1


@pytest.mark.parametrize("kind", [IPv4Address, IPv6Address, UNIXAddress])
def test_get_host_returns_the_address_by_family(tmp_path, kind):
    if kind is IPv4Address:
        listening = socket.create_server(("127.0.0.1", 0))
    elif kind is IPv6Address:
        listening = socket.create_server(("::1", 0), family=socket.AF_INET6)
    else:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(tmp_path / "sock"))
        listening.listen()
    made = Shared(listening)
    address = made.port.getHost()
    assert isinstance(address, kind)
    if kind is UNIXAddress:
        assert address.name == os.fsencode(tmp_path / "sock")
    else:
        assert address.port == listening.getsockname()[1]
    made.close()


class Port:
    """The port of Twisted that opened the socket."""

    addressFamily = socket.AF_INET

    def __init__(self, listening):
        self.listening = listening
        self.reading = True

    def stopReading(self):
        self.reading = False

    def fileno(self):
        return self.listening.fileno()

    def stopListening(self):
        self.listening.close()


class Endpoint:
    def __init__(self, port):
        self.port = port

    def listen(self, factory):
        from twisted.internet.defer import succeed

        return succeed(self.port)


def test_sharing_endpoint_accepts_from_a_duplicate_and_closes_the_original():
    reactor, table, factory = Reactor(), ProcessTable.create(2), Factory()
    factory.count = table.publish
    opened = Port(socket.create_server(("127.0.0.1", 0)))
    endpoint = SharingEndpoint(reactor, Endpoint(opened), table)
    verifyObject(IStreamServerEndpoint, endpoint)
    ports = []
    endpoint.listen(factory).addCallback(ports.append)
    (port,) = ports
    assert not opened.reading
    assert reactor.readers == {port}
    assert port.fileno() != opened.fileno()
    ended = []
    port.stopListening().addCallback(ended.append)
    assert ended == [None]
    assert opened.listening.fileno() == -1
    assert port.socket.fileno() == -1
    table.close()


def test_adopted_endpoint_leaves_the_socket_open_for_other_processes():
    reactor, table, factory = Reactor(), ProcessTable.create(2), Factory()
    with socket.create_server(("127.0.0.1", 0)) as opened:
        endpoint = AdoptedEndpoint(reactor, os.dup(opened.fileno()), table)
        verifyObject(IStreamServerEndpoint, endpoint)
        ports = []
        endpoint.listen(factory).addCallback(ports.append)
        (port,) = ports
        assert port.getHost().port == opened.getsockname()[1]
        port.stopListening()
        socket.create_connection(opened.getsockname()).close()  # still open
    table.close()
