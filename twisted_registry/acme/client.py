"""Requests that an ACME server takes (RFC 8555, section 6): signed, each with a nonce of its own.

The ``acme`` package signs; its own client blocks, and is not used.
"""

from __future__ import annotations

import json
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

from acme.jws import JWS
from attrs import frozen
from josepy.errors import DeserializationError
from josepy.json_util import decode_b64jose, encode_b64jose
from josepy.jwa import ES256
from josepy.jwk import JWKEC
from OpenSSL import SSL
from treq.client import HTTPClient
from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred
from twisted.web.http_headers import Headers

from twisted_registry import __version__
from twisted_registry.http.client import make_agent, read_limited_body
from twisted_registry.tls.context import openssl_message

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from twisted.web.iweb import IAgent

# treq types none of its functions.
# mypy: disable-error-code="no-untyped-call"


#: Seconds that one answer may take.
_TIMEOUT_S: Final = 30.0
#: Bytes of one answer; a chain of certificates has a few thousand.
_MAX_RESPONSE_BYTES: Final = 256 * 1024
#: How often one request is sent with other nonces.
_MAX_ATTEMPTS: Final = 5
_ERROR_PREFIX: Final = "urn:ietf:params:acme:error:"


class ACMEError(Exception):
    """The server says no, or nothing that makes sense; the text is one line.

    :ivar retry_after: seconds after which it may be asked again; 0 if it does not say.
    """

    def __init__(self, reason: str, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


@frozen
class ACMEResponse:
    """An answer.

    :ivar code: below 400.
    :ivar location: where what was made is, or empty.
    :ivar retry_after: seconds after which to ask again; 0 if it does not say.
    """

    url: str
    code: int
    location: str
    retry_after: float
    content: bytes

    @property
    def document(self) -> dict[str, Any]:
        """What it says.

        :raises ACMEError: if that is no JSON object.
        """
        try:
            said = json.loads(self.content)
        except ValueError:
            said = None
        if not isinstance(said, dict):
            raise ACMEError(f"{self.url}: answered with no JSON object")
        return said


class ACMEClient:
    """One account at a server."""

    def __init__(
        self,
        reactor: Any,
        directory: str,
        key: EllipticCurvePrivateKey,
        agent: IAgent | None = None,
    ) -> None:
        """Take who to ask, and the key of the account, of the curve P-256.

        :param directory: the URL of the server's directory.
        :param agent: one that checks certificates as browsers do, by default.
        """
        self._reactor = reactor
        self._directory = directory
        self._key = JWKEC(key=key)
        self._client = HTTPClient(agent or make_agent(reactor, _TIMEOUT_S))
        self._directory_urls: dict[str, Any] = {}
        self._account: str | None = None
        self._nonce = ""

    def directory_url(self, name: str) -> str:
        """Where the directory says that something is; :meth:`register` has read it.

        :raises ACMEError: if it does not say.
        """
        found = self._directory_urls.get(name)
        if not isinstance(found, str):
            raise ACMEError(f"{self._directory}: names no {name}")
        return found

    async def register(self, email: str) -> str | None:
        """Read the directory, and find the account, or make it.

        :param email: who is to be told of trouble; may be empty.
        :returns: the terms of service that were agreed to, if an account was made; maybe "".
        :raises ACMEError: if that is not possible.
        """
        self._directory_urls = (await self._request("GET", self._directory)).document
        contact = {"contact": [f"mailto:{email}"]} if email else {}
        reply = await self.post(
            self.directory_url("newAccount"), {"termsOfServiceAgreed": True, **contact}
        )
        if not reply.location:
            raise ACMEError(f"{reply.url}: answered without the account's URL")
        self._account = reply.location
        meta = self._directory_urls.get("meta")
        terms = meta.get("termsOfService") if isinstance(meta, dict) else None
        return str(terms or "") if reply.code == 201 else None

    async def post(self, url: str, payload: Mapping[str, Any] | None = None) -> ACMEResponse:
        """Ask for something; without ``payload`` what is at ``url`` is read.

        :raises ACMEError: if the server refuses, or can not be asked.
        """
        content = b"" if payload is None else json.dumps(payload).encode()
        for attempt in range(_MAX_ATTEMPTS):
            nonce, self._nonce = self._nonce or await self._new_nonce(), ""
            try:
                signed = JWS.sign(
                    content,
                    key=self._key,
                    alg=ES256,
                    nonce=decode_b64jose(nonce),
                    url=url,
                    kid=self._account,
                )
            except DeserializationError as error:
                raise ACMEError(f"{url}: gave a nonce that is none") from error
            try:
                return await self._request("POST", url, signed.json_dumps().encode())
            except _BadNonce:
                if attempt + 1 == _MAX_ATTEMPTS:
                    raise
        raise AssertionError  # pragma: no cover - the loop ends above

    def authorization(self, token: str) -> str:
        """What proves to the server that a challenge is answered by this account (section 8.1)."""
        return f"{token}.{encode_b64jose(self._key.thumbprint())}"

    async def _new_nonce(self) -> str:
        url = self.directory_url("newNonce")
        await self._request("HEAD", url)
        if not self._nonce:
            raise ACMEError(f"{url}: gave no nonce")
        return self._nonce

    async def _request(self, method: str, url: str, content: bytes | None = None) -> ACMEResponse:
        waiting = Deferred.fromCoroutine(self._send(method, url, content))
        waiting.addTimeout(_TIMEOUT_S, self._reactor)
        try:
            return await waiting
        except (ACMEError, CancelledError):
            raise
        except defer.TimeoutError as error:
            raise ACMEError(f"{url}: no answer within {_TIMEOUT_S:.0f} s") from error
        except Exception as error:
            raise ACMEError(f"{url}: {_failure_reason(error)}") from error

    async def _send(self, method: str, url: str, content: bytes | None) -> ACMEResponse:
        headers = Headers({"User-Agent": [f"twisted-registry/{__version__}"]})
        if content is not None:
            headers.setRawHeaders("Content-Type", ["application/jose+json"])
        response = await self._client.request(
            method, url, headers=headers, data=content, allow_redirects=False, unbuffered=True
        )
        told = await read_limited_body(response, _MAX_RESPONSE_BYTES)

        def field(name: str) -> str:
            return str((response.headers.getRawHeaders(name) or [""])[0])

        self._nonce = field("Replay-Nonce") or self._nonce
        wait = _parse_retry_after(field("Retry-After"), self._reactor.seconds())
        if response.code >= 300:
            raise _make_error(url, response.code, told, wait)
        return ACMEResponse(url, response.code, field("Location"), wait, told)


class _BadNonce(ACMEError):
    """The nonce is used or too old; the answer has brought another."""


def _make_error(url: str, code: int, content: bytes, wait: float) -> ACMEError:
    """What a problem document (RFC 7807) says."""
    try:
        problem = json.loads(content)
        kind = problem.get("type", "")
        said = told(problem)
    except (ValueError, TypeError, AttributeError):
        kind = said = ""
    failed = _BadNonce if kind == f"{_ERROR_PREFIX}badNonce" else ACMEError
    return failed(f"{url}: answered {code}{said and f': {said}'}", wait)


def told(problem: Mapping[str, Any]) -> str:
    """A problem document in one line."""
    kind = str(problem.get("type", "")).removeprefix(_ERROR_PREFIX)
    details = [problem.get("detail", "")]
    details += [each.get("detail", "") for each in problem.get("subproblems") or ()]
    said = "; ".join(" ".join(str(detail).split()) for detail in details if detail)
    return ": ".join(filter(None, [kind, said]))


def _parse_retry_after(retry_after: str, now: float) -> float:
    """What ``Retry-After`` says: seconds, or a date."""
    if retry_after.isdecimal():
        return float(retry_after)
    try:
        return max(parsedate_to_datetime(retry_after).timestamp() - now, 0.0)
    except ValueError:
        return 0.0


def _failure_reason(error: Any) -> str:
    """Why a connection failed: Twisted hides it in a list of failures."""
    while getattr(error, "reasons", None):
        error = error.reasons[0].value
    if isinstance(error, SSL.Error):
        return openssl_message(error)
    return f"{type(error).__name__}: {error}"
