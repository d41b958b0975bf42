"""An ACME client (RFC 8555): signed requests, each with a new nonce (section 6).

The package ``acme`` signs the requests; its own client is not used, because it blocks.

This module needs the packages ``acme`` and ``treq`` (the extra ``acme``).
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
from treq.client import HTTPClient
from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred
from twisted.web.http_headers import Headers

from twisted_registry import __version__
from twisted_registry.http.client import describe_error, make_agent, read_limited_body

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from twisted.web.iweb import IAgent

# treq has no type annotations.
# mypy: disable-error-code="no-untyped-call"

#: Time limit of one request, in seconds.
_TIMEOUT_S: Final = 30.0
#: Size limit of a response in bytes; a chain of certificates has a few thousand.
_MAX_RESPONSE_BYTES: Final = 256 * 1024
#: How often a request is sent again because its nonce was rejected.
_MAX_ATTEMPTS: Final = 5
_ERROR_PREFIX: Final = "urn:ietf:params:acme:error:"


class ACMEError(Exception):
    """The server rejects a request, or cannot be reached; the text is one line.

    :ivar retry_after: seconds after which to try again; 0 if the server does not say.
    """

    def __init__(self, reason: str, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


@frozen
class ACMEResponse:
    """A successful response.

    :ivar url: the requested URL.
    :ivar code: the status code, below 300.
    :ivar location: the URL of a created object, or empty.
    :ivar retry_after: seconds after which to poll again; 0 if the server does not say.
    :ivar content: the body.
    """

    url: str
    code: int
    location: str
    retry_after: float
    content: bytes

    @property
    def document(self) -> dict[str, Any]:
        """The body as a JSON object.

        :raises ACMEError: if it is not a JSON object.
        """
        try:
            document = json.loads(self.content)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise ACMEError(f"{self.url}: the response is not a JSON object")
        return document


class ACMEClient:
    """An account on an ACME server."""

    def __init__(
        self,
        reactor: Any,
        directory: str,
        key: EllipticCurvePrivateKey,
        agent: IAgent | None = None,
    ) -> None:
        """Make a client.

        :param directory: the URL of the server's directory.
        :param key: the key of the account, on the curve P-256.
        :param agent: by default one that verifies certificates as browsers do.
        """
        self._reactor = reactor
        self._directory = directory
        self._key = JWKEC(key=key)
        self._client = HTTPClient(agent or make_agent(reactor, _TIMEOUT_S))
        self._directory_urls: dict[str, Any] = {}
        self._account: str | None = None
        self._nonce = ""

    def directory_url(self, name: str) -> str:
        """Return a URL of the directory. :meth:`register` must have read the directory.

        :raises ACMEError: if the directory has no such URL.
        """
        url = self._directory_urls.get(name)
        if not isinstance(url, str):
            raise ACMEError(f"{self._directory}: the directory has no {name}")
        return url

    async def register(self, email: str) -> str | None:
        """Read the directory, and find or create the account.

        :param email: the contact for notifications; may be empty.
        :returns: the URL of the accepted terms of service if the account is new, which may be
            empty; None if the account already existed.
        :raises ACMEError: if there is no account.
        """
        self._directory_urls = (await self._request("GET", self._directory)).document
        contact = {"contact": [f"mailto:{email}"]} if email else {}
        reply = await self.post(
            self.directory_url("newAccount"), {"termsOfServiceAgreed": True, **contact}
        )
        if not reply.location:
            raise ACMEError(f"{reply.url}: the response has no account URL")
        self._account = reply.location
        meta = self._directory_urls.get("meta")
        terms = meta.get("termsOfService") if isinstance(meta, dict) else None
        return str(terms or "") if reply.code == 201 else None

    async def post(self, url: str, payload: Mapping[str, Any] | None = None) -> ACMEResponse:
        """Send a signed request.

        :param payload: the payload; None to read the object at ``url`` (POST-as-GET).
        :raises ACMEError: if the server rejects the request or cannot be reached.
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
                raise ACMEError(f"{url}: the nonce is malformed") from error
            try:
                return await self._request("POST", url, signed.json_dumps().encode())
            except _BadNonce:
                if attempt + 1 == _MAX_ATTEMPTS:
                    raise
        raise AssertionError  # pragma: no cover - the loop always returns or raises

    def authorization(self, token: str) -> str:
        """Return the key authorization for a challenge (RFC 8555, section 8.1)."""
        return f"{token}.{encode_b64jose(self._key.thumbprint())}"

    async def _new_nonce(self) -> str:
        url = self.directory_url("newNonce")
        await self._request("HEAD", url)
        if not self._nonce:
            raise ACMEError(f"{url}: the response has no nonce")
        return self._nonce

    async def _request(self, method: str, url: str, content: bytes | None = None) -> ACMEResponse:
        waiting = Deferred.fromCoroutine(self._send(method, url, content))
        waiting.addTimeout(_TIMEOUT_S, self._reactor)
        try:
            return await waiting
        except (ACMEError, CancelledError):
            raise
        except defer.TimeoutError as error:
            raise ACMEError(f"{url}: no response within {_TIMEOUT_S:.0f} s") from error
        except Exception as error:
            raise ACMEError(f"{url}: {describe_error(error)}") from error

    async def _send(self, method: str, url: str, content: bytes | None) -> ACMEResponse:
        headers = Headers({"User-Agent": [f"twisted-registry/{__version__}"]})
        if content is not None:
            headers.setRawHeaders("Content-Type", ["application/jose+json"])
        response = await self._client.request(
            method, url, headers=headers, data=content, allow_redirects=False, unbuffered=True
        )
        body = await read_limited_body(response, _MAX_RESPONSE_BYTES)

        def header(name: str) -> str:
            return str((response.headers.getRawHeaders(name) or [""])[0])

        self._nonce = header("Replay-Nonce") or self._nonce
        wait = _parse_retry_after(header("Retry-After"), self._reactor.seconds())
        if response.code >= 300:
            raise _make_error(url, response.code, body, wait)
        return ACMEResponse(url, response.code, header("Location"), wait, body)


class _BadNonce(ACMEError):
    """The nonce is already used or too old; the response contains a new one."""


def _make_error(url: str, code: int, content: bytes, wait: float) -> ACMEError:
    """Return the error for a response with a problem document (RFC 7807)."""
    try:
        problem = json.loads(content)
        kind = problem.get("type", "")
        text = format_problem(problem)
    except (ValueError, TypeError, AttributeError):
        kind = text = ""
    error_class = _BadNonce if kind == f"{_ERROR_PREFIX}badNonce" else ACMEError
    return error_class(f"{url}: status {code}{text and f': {text}'}", wait)


def format_problem(problem: Mapping[str, Any]) -> str:
    """Return a problem document (RFC 7807) as one line."""
    kind = str(problem.get("type", "")).removeprefix(_ERROR_PREFIX)
    details = [problem.get("detail", "")]
    details += [each.get("detail", "") for each in problem.get("subproblems") or ()]
    text = "; ".join(" ".join(str(detail).split()) for detail in details if detail)
    return ": ".join(filter(None, [kind, text]))


def _parse_retry_after(retry_after: str, now: float) -> float:
    """Return the seconds of a Retry-After header, which contains seconds or a date."""
    if retry_after.isdecimal():
        return float(retry_after)
    try:
        return max(parsedate_to_datetime(retry_after).timestamp() - now, 0.0)
    except ValueError:
        return 0.0
