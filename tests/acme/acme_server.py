"""An ACME server in memory, that says what a test has it say."""

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
    """An answer."""

    version = (b"HTTP", 1, 1)
    phrase = b""
    previousResponse = request = None

    def __init__(self, code, headers, content):
        self.code = code
        self.headers = headers
        self.content = content
        self.length = len(content)

    def setPreviousResponse(self, response):
        """Never asked."""

    def deliverBody(self, protocol):
        """All at once."""
        protocol.makeConnection(self)
        protocol.dataReceived(self.content)
        protocol.connectionLost(Failure(ResponseDone()))

    def stopProducing(self):
        """Nothing more comes."""


@frozen
class Said:
    """A request: what was signed, where, and by whom."""

    method: str
    url: str
    payload: object
    protected: dict


@implementer(IAgent)
@define(eq=False)
class Server:
    """Answers what is next for a URL; the last answer for a URL again and again.

    :ivar said: what it was asked.
    :ivar nonces: those that it has given, and nobody has used.
    """

    answers: dict = field(factory=dict)
    said: list = field(factory=list)
    nonces: set = field(factory=set)
    key: JWK | None = None
    given: int = 0

    def __attrs_post_init__(self):
        self.answer("", 200, DIRECTORY)
        self.answer("/nonce", 200)
        self.answer("/account", 201, {}, Location=f"{BASE}/account/1")

    def answer(self, path, code, document="", **headers):
        """Say what comes next for a path."""
        content = document if isinstance(document, bytes) else json.dumps(document).encode()
        fields = {name.replace("_", "-"): [value] for name, value in headers.items()}
        self.answers.setdefault(BASE + path, deque()).append((code, fields, content))

    def refuse(self, path, code, kind, detail="", **more):
        """Say that the next request for a path is refused."""
        problem = {"type": f"urn:ietf:params:acme:error:{kind}", "detail": detail}
        self.answer(path, code, problem, **more)

    def request(self, method, uri, headers=None, bodyProducer=None):
        """As promised by the interface."""
        assert headers.getRawHeaders("User-Agent")[0].startswith("twisted-registry/")
        content = b""
        if bodyProducer is not None:
            # Twisted's, which would read it in the reactor's next turns.
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
        told = Headers(fields)
        if url != BASE:
            self.given += 1
            nonce = f"nonce{self.given:07}"
            self.nonces.add(nonce)
            told.setRawHeaders("Replay-Nonce", [nonce])
        return succeed(Response(code, told, content))

    def _read(self, method, url, content):
        if not content:
            return Said(method, url, None, {})
        signed = JWS.json_loads(content)
        protected = json.loads(b64decode(json.loads(content)["protected"]))
        if "jwk" in protected:
            self.key = JWK.from_json(protected["jwk"])
        assert signed.verify(self.key)
        assert protected["url"] == url
        self.nonces.remove(protected["nonce"])
        return Said(method, url, json.loads(signed.payload or b"null"), protected)
