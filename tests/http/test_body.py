"""Bodies that twisted.web has buffered."""

from io import BytesIO

import pytest
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site
from zope.interface.verify import verifyObject

from tests.http.connection_kit import Kit, MemoryConnection, put
from tests.http.resources import Sink
from twisted_registry.http.body import BufferedBody, request_body
from twisted_registry.http.interfaces import BodyAborted, IRequestBody


@pytest.fixture
def clock():
    return Clock()


def buffered(data, clock):
    return BufferedBody(BytesIO(data), clock)


def test_a_buffered_body_is_a_request_body(clock):
    body = buffered(b"abc", clock)
    verifyObject(IRequestBody, body)
    assert body.length == 3
    sink = Sink()
    taken = body.startProducing(sink)
    assert taken.called
    assert bytes(sink.received) == b"abc"
    with pytest.raises(RuntimeError):
        body.startProducing(sink)


def test_a_buffered_body_is_delivered_in_pieces(clock):
    sink = Sink()
    taken = buffered(bytes(200_000), clock).startProducing(sink)
    assert len(sink.received) == 65536
    assert not taken.called
    clock.pump([0] * 5)
    assert taken.called
    assert len(sink.received) == 200_000
    assert sink.pieces == 4


def test_a_buffered_body_can_be_paused(clock):
    body = buffered(bytes(200_000), clock)
    sink = Sink(on_write=lambda _sink, _piece: body.pauseProducing())
    taken = body.startProducing(sink)
    clock.pump([0] * 5)
    assert sink.pieces == 1
    assert not clock.getDelayedCalls()
    sink.on_write = None
    body.resumeProducing()
    body.pauseProducing()
    clock.pump([0] * 5)
    assert sink.pieces == 1
    body.resumeProducing()
    clock.pump([0] * 5)
    assert taken.called


def test_a_stopped_buffered_body_fails(clock):
    body = buffered(bytes(200_000), clock)
    failures = []
    body.startProducing(Sink()).addErrback(failures.append)
    body.stopProducing()
    body.stopProducing()
    assert failures[0].check(BodyAborted)
    assert not clock.getDelayedCalls()
    body = buffered(bytes(200_000), clock)
    taken = body.startProducing(Sink())
    taken.addErrback(failures.append)
    taken.cancel()
    assert failures[1].check(BodyAborted)
    body = buffered(b"abc", clock)
    body.stopProducing()
    body.startProducing(Sink()).addErrback(failures.append)
    assert failures[2].check(BodyAborted)


def test_a_buffered_body_fails_with_the_exception_of_its_consumer(clock):
    def explode(_sink, _piece):
        raise ValueError

    failures = []
    buffered(b"abc", clock).startProducing(Sink(on_write=explode)).addErrback(failures.append)
    assert failures[0].check(ValueError)


def test_a_buffered_body_without_bytes_ends_at_once(clock):
    sink = Sink()
    assert buffered(b"", clock).startProducing(sink).called
    assert sink.pieces == 0


def test_a_buffered_body_that_cannot_be_read_fails(clock):
    class Unreadable(BytesIO):
        def read(self, *_):
            raise OSError

    failures = []
    body = BufferedBody(Unreadable(b"abc"), clock)
    body.startProducing(Sink()).addErrback(failures.append)
    assert failures[0].check(OSError)
    assert not clock.getDelayedCalls()


def test_a_streaming_request_has_a_body(clock):
    kit = Kit()
    wire = MemoryConnection(kit)
    wire.send(put(b"/s/wait", b"abc"))
    assert request_body(kit.waiting[0], clock) is kit.waiting[0].body


class StockConnection:
    """A connection of a stock Site whose Resource collects its requests."""

    def __init__(self):
        self.clock = Clock()
        self.requests = []
        resource = Resource()
        resource.isLeaf = True
        resource.render = self.render
        self.site = Site(resource, reactor=self.clock)
        self.site.log = lambda request: None
        self.transport = StringTransport()
        self.channel = self.site.buildProtocol(None)
        self.channel.makeConnection(self.transport)

    def render(self, request):
        self.requests.append(request)
        return NOT_DONE_YET


def test_a_request_of_a_stock_site_gets_a_buffered_body():
    stock = StockConnection()
    stock.channel.dataReceived(put(b"/x", b"abc"))
    body = request_body(stock.requests[0], stock.clock)
    assert body.length == 3
    sink = Sink()
    body.startProducing(sink)
    assert bytes(sink.received) == b"abc"
