"""Resources that record in a kit what happens to them."""

import os

from attrs import define, field
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure
from twisted.web.http import CACHED
from twisted.web.resource import EncodingResourceWrapper, Resource
from twisted.web.server import NOT_DONE_YET, GzipEncoderFactory
from zope.interface import implementer

from twisted_registry.http.interfaces import IStreamingResource


@define(eq=False)
class Sink:
    """A consumer that collects a body."""

    received: bytearray = field(factory=bytearray)
    pieces: int = 0
    on_write: object = None

    def write(self, piece):
        self.received += piece
        self.pieces += 1
        if self.on_write is not None:
            self.on_write(self, piece)


class PlainResource(Resource):
    """A plain Resource, which answers by the first segment of its path."""

    isLeaf = True

    def __init__(self, kit):
        super().__init__()
        self.kit = kit

    def render(self, request):
        name = request.path.strip(b"/").decode() or "root"
        return getattr(self, "on_" + name.partition("/")[0], self.on_other)(request)

    def on_other(self, request):
        return request.path[1:] + request.content.read()

    def on_empty(self, request):
        return b""

    def on_inspect(self, request):
        parts = (
            request.method,
            request.args,
            request.getHeader("x-one"),
            request.requestHeaders.getRawHeaders(b"x-one"),
            request.getCookie(b"c"),
            request.getRequestHostname(),
            request.prepath,
            request.postpath,
            request.isSecure(),
        )
        return repr(parts).encode()

    def on_producing(self, request):
        """Raise after a producer was registered and before anything was written."""
        request.registerProducer(self, True)
        raise ValueError("the secret word")

    def on_gone(self, request):
        self.kit.wire.lose(Failure(ConnectionLost()))
        raise ValueError

    def on_cookie(self, request):
        request.addCookie(b"k", b"v")
        return b"cookie"

    def on_redirect(self, request):
        request.redirect(b"/elsewhere")
        return b""

    def on_etag(self, request):
        return b"" if request.setETag(b'"e"') is CACHED else b"entity"

    def on_modified(self, request):
        return b"" if request.setLastModified(1000) is CACHED else b"entity"

    def on_nothing(self, request):
        request.setResponseCode(204)
        return b""

    def on_pieces(self, request):
        request.write(b"ab")
        request.write(b"")
        request.write(b"cd")
        request.finish()
        return NOT_DONE_YET

    def on_boom(self, request):
        request.setHeader(b"X-Secret", b"1")
        raise ValueError("the secret word")

    def on_late_boom(self, request):
        request.write(b"begun")
        raise ValueError("the secret word")

    def on_short(self, request):
        request.setHeader(b"Content-Length", b"10")
        request.write(b"short")
        request.finish()
        return NOT_DONE_YET

    def on_long(self, request):
        request.setHeader(b"Content-Length", b"2")
        request.write(b"too long")
        request.finish()
        return NOT_DONE_YET

    def on_inject(self, request):
        request.setHeader(b"X-A", b"a\r\nX-B: b")
        request.setResponseCode(200, b"OK\r\nX-C: c")
        request.addCookie(b"k", b"v\r\nX-D: d")
        return b"injected"

    def on_closing(self, request):
        request.setHeader(b"Connection", b"close")
        return b"bye"

    def on_wait(self, request):
        """Leave the response to the test."""
        self.kit.waiting.append(request)
        request.notifyFinish().addCallbacks(
            lambda _: self.kit.events.append("finished"),
            lambda reason: self.kit.events.append(reason.type.__name__),
        )
        return NOT_DONE_YET

    def on_whole(self, request):
        """Respond in one piece, with encoded header fields."""
        status = int(request.args.get(b"status", [b"200"])[0])
        length = request.args.get(b"length")
        request.sendResponse(
            status, b"X-Ready: 1\r\n", b"whole", None if length is None else int(length[0])
        )
        return NOT_DONE_YET

    def on_file(self, request):
        size = int(request.args.get(b"size", [b"0"])[0])
        offset = int(request.args.get(b"offset", [b"0"])[0])
        descriptor = os.open(self.kit.file, os.O_RDONLY)
        sent = request.sendFileResponse(206, b"X-Ready: 1\r\n", descriptor, offset, size)
        if sent is not None:
            sent.addErrback(self.kit.failed)
        os.close(descriptor)
        self.kit.sending = sent
        return NOT_DONE_YET


@implementer(IStreamingResource)
class StreamingResource(PlainResource):
    """A Resource that is rendered before the body has been received."""

    def on_take(self, request):
        sink = self.kit.sink(on_write=self.kit.on_write)
        self.kit.sinks.append(sink)
        self.kit.waiting.append(request)
        taken = request.body.startProducing(sink)

        def answer(_):
            body = b"%s %d %d" % (bytes(sink.received[:8]), len(sink.received), sink.pieces)
            request.setHeader(b"Content-Length", b"%d" % len(body))
            request.write(body)
            request.finish()

        taken.addCallbacks(answer, self.kit.failed)
        return NOT_DONE_YET

    def on_refuse(self, request):
        request.setResponseCode(401)
        return b"no"

    def on_length(self, request):
        return repr(request.body.length).encode()

    def on_other(self, request):
        return b"streaming"


class RootResource(Resource):
    """The root: ``/s/...`` streams, other paths do not."""

    def __init__(self, kit):
        super().__init__()
        self.kit = kit

    def getChild(self, name, request):
        if name == b"s":
            return StreamingFolder(self.kit)
        if name == b"nowhere":
            raise ValueError("the secret word")
        if name == b"zip":
            return EncodingResourceWrapper(PlainResource(self.kit), [GzipEncoderFactory()])
        return PlainResource(self.kit)


class StreamingFolder(Resource):
    def __init__(self, kit):
        super().__init__()
        self.kit = kit

    def getChild(self, name, request):
        request.path = b"/" + name
        return StreamingResource(self.kit)
