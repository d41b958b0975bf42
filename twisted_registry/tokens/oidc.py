"""Tokens that CI systems sign for their jobs (OpenID Connect), in the place of a password.

An issuer speaks for very many: that a token is genuine says little. So a rule has to name what the
claims must be, and gives rights of its own.

Short JSON documents of other servers: fetched in time, and never more of one than is sane.

The public keys of an issuer, fetched when they are needed, and kept (RFC 7517).
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from attrs import define, field, frozen
from jwt.api_jws import PyJWS
from jwt.exceptions import PyJWTError
from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.web.http_headers import Headers
from zope.interface import implementer

from twisted_registry.auth.access import LoginFailed
from twisted_registry.auth.bearer import TokenVerifier
from twisted_registry.auth.keys import Keyring, KeyUnusable, SigningKey
from twisted_registry.auth.rules import IdentityWithRights, Right, Rights
from twisted_registry.auth.single_flight import SingleFlight
from twisted_registry.http.client import make_agent, read_limited_body
from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.tokens.logins import IOIDCVerifier, Principal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from twisted.internet.interfaces import IReactorTime

    # @@EMPTY
    from twisted.web.iweb import IAgent

#: Only such as need a private key: what an issuer publishes is no secret.
ALGORITHMS = frozenset(
    {
        *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
        *("ES256", "ES384", "ES512", "EdDSA"),
    }
)
#: Seconds for which a token is not checked again.
_LOGIN_TTL_S = 60.0
#: Characters of a subject, which comes to logs and events.
_MAX_SUBJECT_CHARS = 255


@frozen
class ClaimCondition:
    """What a claim must be.

    :ivar pattern: the text of the claim; ``*`` stands for any part of it.
    """

    claim: str
    pattern: str

    def matches(self, claims: Mapping[str, Any]) -> bool:
        """Whether a token says so; of a list one entry is enough."""
        value = claims.get(self.claim)
        values = value if isinstance(value, list) else [value]
        return any(
            matches_pattern(self.pattern, text)
            for each in values
            if (text := _claim_text(each)) is not None
        )


@frozen
class OIDCRule:
    """Tokens of which all conditions hold have a right."""

    conditions: tuple[ClaimCondition, ...]
    right: Right

    def matches(self, claims: Mapping[str, Any]) -> bool:
        """Whether it is for a token; for none if it has no condition."""
        return bool(self.conditions) and all(each.matches(claims) for each in self.conditions)


@frozen
class TrustedIssuer:
    """Somebody whose tokens are believed.

    :ivar audience: what a token must be for.
    """

    keys: IssuerKeys
    audience: str
    rules: tuple[OIDCRule, ...]


@implementer(IOIDCVerifier)
@define(eq=False, repr=False)
class OIDCVerifier:
    """Believes the tokens of some issuers.

    :ivar issuers: each with a URL of its own.
    """

    _issuers: Sequence[TrustedIssuer]
    _clock: IReactorTime

    async def principal(self, token: str) -> Principal:
        """As promised by :class:`IOIDCVerifier`."""
        kid, named = _unverified_key_and_issuer(token)
        issuer = next((each for each in self._issuers if each.keys.issuer == named), None)
        if issuer is None:
            raise LoginFailed("the token is of an issuer that is not trusted")
        keyring = await issuer.keys.keyring_for(kid)
        check = TokenVerifier(
            issuer.keys.issuer, issuer.audience, keyring, self._clock.seconds, ALGORITHMS
        )
        claims = check.claims(token)
        rights = tuple(rule.right for rule in issuer.rules if rule.matches(claims))
        subject = claims.get("sub")
        if not isinstance(subject, str) or not subject.isprintable() or not subject:
            raise LoginFailed("the token has no subject")
        name = f"ci:{subject[:_MAX_SUBJECT_CHARS]}"
        if not rights:
            raise LoginFailed(f"no rule of the issuer is for {name!r}")
        now = self._clock.seconds()
        return Principal(
            IdentityWithRights(name, Rights(rights)),
            until=min(now + _LOGIN_TTL_S, float(claims["exp"])),
        )


def matches_pattern(pattern: str, text: str) -> bool:
    """Whether a text is of a form in which ``*`` stands for any characters.

    The first place that fits is as good as any, so that nothing is tried twice.
    """
    first, *others = pattern.split("*")
    if not others:
        return text == pattern
    *between, last = others
    if not text.startswith(first) or not text.endswith(last):
        return False
    position, end = len(first), len(text) - len(last)
    for part in between:
        found = text.find(part, position, end)
        if found < 0:
            return False
        position = found + len(part)
    return position <= end


def _claim_text(value: object) -> str | None:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, str | int) else None


def _unverified_key_and_issuer(token: str) -> tuple[object, object]:
    """The key and the issuer that a token names, which nobody has checked yet.

    :raises LoginFailed: if it is no token.
    """
    try:
        header = PyJWS().get_unverified_header(token)
        body = token.split(".")[1]
        claims = json.loads(urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return header.get("kid"), claims.get("iss")
    except (PyJWTError, ValueError, AttributeError, IndexError, RecursionError) as error:
        raise LoginFailed("the token can not be read") from error


# treq types none of its functions.
# mypy: disable-error-code="no-untyped-call"


#: Seconds.
_TIMEOUT_S = 10.0
#: Bytes. A set of keys has a few thousand.
_MAX_DOCUMENT_BYTES = 256 * 1024


class FetchError(Exception):
    """The document could not be had; the text says why."""


class JSONFetcher:
    """Fetches documents."""

    def __init__(self, reactor: Any, agent: IAgent | None = None) -> None:
        """Fetch them with ``agent``, or one that checks certificates as browsers do."""
        self._clock: IReactorTime = reactor
        self._client = HTTPClient(agent or make_agent(reactor, _TIMEOUT_S))

    async def json(self, url: str) -> Any:
        """A document. Redirects are not followed.

        :raises FetchError: if it does not come, or is not JSON.
        """
        waiting: Deferred[bytes] = Deferred.fromCoroutine(self._content(url))
        waiting.addTimeout(_TIMEOUT_S, self._clock)
        try:
            return json.loads(await waiting)
        except FetchError:
            raise
        except Exception as error:
            raise FetchError(f"{url}: {type(error).__name__}: {error}") from error

    async def _content(self, url: str) -> bytes:
        response = await self._client.get(
            url,
            headers=Headers({"Accept": ["application/json"]}),
            allow_redirects=False,
            unbuffered=True,
        )
        content = await read_limited_body(response, _MAX_DOCUMENT_BYTES)
        if response.code != 200:
            raise FetchError(f"{url}: answered {response.code}")
        return content


log = Logger()

#: Seconds for which keys are taken to be all there are, as long as no token names another.
_FRESH_S = 3600.0
#: Seconds between two questions at least, whatever tokens name.
_MIN_INTERVAL_S = 60.0
#: The same, after one that was not answered.
_RETRY_S = 5.0
#: Seconds for which keys are believed of an issuer who does not answer.
_MAX_AGE_S = 24 * 3600.0
#: Keys of one issuer; more are left out.
_MAX_KEYS = 100
_DISCOVERY_PATH = "/.well-known/openid-configuration"


@define(eq=False, repr=False)
class IssuerKeys:
    """The keys of one issuer.

    :ivar issuer: its URL.
    :ivar jwks: the URL of its keys; empty to ask the issuer for it (OpenID Connect Discovery).
    """

    issuer: str
    _jwks: str
    _fetcher: JSONFetcher
    _clock: IReactorTime
    _keys: Mapping[str, SigningKey] = field(init=False, factory=dict)
    _fetched: float | None = field(init=False, default=None)
    _next_fetch: float = field(init=False, default=0.0)
    _refreshing: SingleFlight[None] | None = field(init=False, default=None)

    async def keyring_for(self, kid: object) -> Keyring:
        """The keys, asked for anew if there may be one that a token names and we do not know.

        :raises RegistryError: UNAVAILABLE if none are known and the issuer does not answer.
        """
        now = self._clock.seconds()
        age = None if self._fetched is None else now - self._fetched
        known = isinstance(kid, str) and kid in self._keys
        wanted = age is None or age >= _FRESH_S or not known
        if wanted and (now >= self._next_fetch or self._refreshing is not None):
            await self._refresh()
        if self._fetched is None or self._clock.seconds() - self._fetched >= _MAX_AGE_S:
            raise RegistryError(
                ErrorCode.UNAVAILABLE,
                message="the issuer of the token can not be asked for its keys",
                headers=(("Retry-After", str(int(_RETRY_S))),),
            )
        return Keyring(self._keys)

    def _refresh(self) -> Deferred[None]:
        """Ask once for all who wait."""
        if self._refreshing is None:
            self._next_fetch = self._clock.seconds() + _MIN_INTERVAL_S
            self._refreshing = SingleFlight(self._refresh_ended)
            waiting = self._refreshing.wait()
            self._refreshing.start(Deferred.fromCoroutine(self._fetch()))
            return waiting
        return self._refreshing.wait()

    def _refresh_ended(self) -> None:
        self._refreshing = None

    async def _fetch(self) -> None:
        try:
            keys = _parse_keys(
                await self._fetcher.json(self._jwks or await self._discover_jwks_uri())
            )
        except FetchError as error:
            log.warn(
                "the keys of {issuer} can not be fetched: {error}",
                issuer=self.issuer,
                error=str(error),
            )
            self._next_fetch = self._clock.seconds() + _RETRY_S
            return
        self._keys = keys
        self._fetched = self._clock.seconds()

    async def _discover_jwks_uri(self) -> str:
        url = self.issuer.rstrip("/") + _DISCOVERY_PATH
        said = await self._fetcher.json(url)
        found = said.get("jwks_uri") if isinstance(said, dict) else None
        if not isinstance(found, str) or said.get("issuer") != self.issuer:
            raise FetchError(f"{url}: is not about this issuer, or names no keys")
        if urlsplit(found).scheme not in {"https", urlsplit(self.issuer).scheme}:
            raise FetchError(f"{url}: keys that do not come over TLS are not believed")
        return found


def _parse_keys(document: Any) -> Mapping[str, SigningKey]:
    """Those keys of a set that can sign tokens; others may be for other purposes.

    :raises FetchError: if it is no set of keys.
    """
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise FetchError("the answer is no set of keys")
    keys = {}
    for jwk in listed[:_MAX_KEYS]:
        if not isinstance(jwk, dict) or not isinstance(jwk.get("kid"), str):
            continue
        try:
            keys[jwk["kid"]] = SigningKey.from_jwk(jwk)
        except KeyUnusable as error:
            log.debug("a key is of no use: {error}", error=str(error))
    return keys
