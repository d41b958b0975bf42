"""An ACME server in memory, with the responses that a test sets."""

from __future__ import annotations

import json
from collections import deque

from acme.jws import JWS
from attrs import define, field, frozen
from josepy.b64 import b64decode
from josepy.jwk import JWK
from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse
from zope.interface import implementer

BASE = "https://ca.example"
DIRECTORY = {
    "newNonce": f"{BASE}/nonce",
    "newAccount": f"{BASE}/account",
    "newOrder": f"{BASE}/order",
    "meta": {"termsOfService": "https://ca.example/terms"},
}


@implementer(IResponse)
class Response:
    """A response."""

    version = (b"HTTP", 1, 1)
    phrase = b""
    previousResponse = request = None

    def __init__(self, code, headers, content):
        self.code = code
        self.headers = headers
        self.content = content
        self.length = len(content)

    def setPreviousResponse(self, response):
        """Do nothing."""

    def deliverBody(self, protocol):
        """Deliver the body at once."""
        protocol.makeConnection(self)
        protocol.dataReceived(self.content)
        protocol.connectionLost(Failure(ResponseDone()))

    def stopProducing(self):
        """Do nothing."""


@frozen
class SignedRequest:
    """A request with its signed payload and protected header."""

    method: str
    url: str
    payload: object
    protected: dict


@implementer(IAgent)
@define(eq=False)
class Server:
    """Sends the next response set for a URL; the last one again and again.

    :ivar said: the requests.
    :ivar nonces: the issued nonces that have not been used.
    """

    answers: dict = field(factory=dict)
    said: list = field(factory=list)
    nonces: set = field(factory=set)
    key: JWK | None = None
    given: int = 0
    sends_malformed_nonces: bool = False

    def __attrs_post_init__(self):
        self.answer("", 200, DIRECTORY)
        self.answer("/nonce", 200)
        self.answer("/account", 201, {}, Location=f"{BASE}/account/1")

    def answer(self, path, code, document="", **headers):
        """Set the next response for a path."""
        content = document if isinstance(document, bytes) else json.dumps(document).encode()
        fields = {name.replace("_", "-"): [value] for name, value in headers.items()}
        self.answers.setdefault(BASE + path, deque()).append((code, fields, content))

    def refuse(self, path, code, kind, detail="", **more):
        """Set the next response for a path to an error."""
        problem = {"type": f"urn:ietf:params:acme:error:{kind}", "detail": detail}
        self.answer(path, code, problem, **more)

    def request(self, method, uri, headers=None, bodyProducer=None):
        """Record a request and return its response."""
        assert headers.getRawHeaders("User-Agent")[0].startswith("twisted-registry/")
        content = b""
        if bodyProducer is not None:
            # Twisted's producer would read it later, in the reactor.
            content = bodyProducer._inputFile.read()
            assert headers.getRawHeaders("Content-Type") == ["application/jose+json"]
        url = uri.decode()
        self.said.append(self._read(method.decode(), url, content))
        waiting = self.answers[url]
        code, fields, content = waiting.popleft() if len(waiting) > 1 else waiting[0]
        if isinstance(code, Exception):
            return fail(code)
        if code is None:
            return Deferred()
        fields_sent = Headers(fields)
        if url != BASE:
            self.given += 1
            nonce = "a" if self.sends_malformed_nonces else f"nonce{self.given:07}"
            self.nonces.add(nonce)
            fields_sent.setRawHeaders("Replay-Nonce", [nonce])
        return succeed(Response(code, fields_sent, content))

    def _read(self, method, url, content):
        if not content:
            return SignedRequest(method, url, None, {})
        signed = JWS.json_loads(content)
        protected = json.loads(b64decode(json.loads(content)["protected"]))
        if "jwk" in protected:
            self.key = JWK.from_json(protected["jwk"])
        assert signed.verify(self.key)
        assert protected["url"] == url
        self.nonces.remove(protected["nonce"])
        return SignedRequest(method, url, json.loads(signed.payload or b"null"), protected)
