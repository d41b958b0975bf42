"""Errors that the HTTP engine answers itself have the specification's JSON."""

from __future__ import annotations

import json
from http.client import HTTPResponse
from io import BytesIO

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory

from tests.http.connection_kit import Peer, get
from twisted_registry.api.root import make_error_body
from twisted_registry.testing.server import serve


class Received:
    def __init__(self, data):
        self.data = data

    def makefile(self, _mode):
        return BytesIO(self.data)


@pytest.mark.parametrize(
    ("request_bytes", "status", "error"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400, {"code": "UNKNOWN", "message": "bad request"}),
        (
            get(b"/", version=b"HTTP/2.0"),
            505,
            {"code": "UNSUPPORTED", "message": "http version not supported"},
        ),
        (
            get(b"/", b"Transfer-Encoding: gzip, chunked", method=b"PUT"),
            501,
            {"code": "UNSUPPORTED", "message": "not implemented"},
        ),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_malformed_request_is_answered_in_json(request_bytes, status, error):
    async with serve(reactor) as served:
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", served.port)
        peer = await endpoint.connect(Factory.forProtocol(Peer))
        peer.transport.write(request_bytes)
        response = HTTPResponse(Received(await peer.end()))
    response.begin()
    assert response.status == status
    assert response.headers["Content-Type"] == "application/json"
    assert json.loads(response.read()) == {"errors": [error]}


def test_an_internal_error_is_unknown():
    content_type, body = make_error_body(500, "internal error")
    assert content_type == b"application/json"
    assert json.loads(body) == {"errors": [{"code": "UNKNOWN", "message": "internal error"}]}
