"""Tokens that CI systems sign for their jobs (OpenID Connect), accepted instead of a password.

One issuer signs tokens for very many accounts, so a valid signature says little. A rule therefore
lists the values that claims must have, and gives its own rights.

The public keys of an issuer are fetched when they are needed, and cached (RFC 7517).

This module needs the packages ``PyJWT`` and ``treq`` (the extra ``auth``).
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from attrs import define, field, frozen
from jwt.api_jws import PyJWS
from jwt.exceptions import PyJWTError
from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.web.http_headers import Headers

from twisted_registry.auth.access import LoginFailed
from twisted_registry.auth.bearer import TokenVerifier
from twisted_registry.auth.keys import RSA_ALGORITHMS, Keyring, KeyUnusable, SigningKey
from twisted_registry.auth.login_cache import SingleFlight
from twisted_registry.auth.rules import IdentityWithRights, Right, Rights
from twisted_registry.http.client import read_limited_body
from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.tokens.logins import Principal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from twisted.internet.interfaces import IReactorTime
    from twisted.web.iweb import IAgent

# treq has no type annotations.
# mypy: disable-error-code="no-untyped-call"

log = Logger()

#: Accepted signature algorithms. None uses a shared secret: an issuer's keys are public.
ALGORITHMS = RSA_ALGORITHMS | {"ES256", "ES384", "ES512", "EdDSA"}
#: How long a login with a token is cached, in seconds.
_LOGIN_TTL_S = 60.0
#: The part of a subject that is used as a name; names are written to logs and events.
_MAX_SUBJECT_CHARS = 255

#: Time limit of a request to an issuer, in seconds.
TIMEOUT_S = 10.0
#: Size limit of a document in bytes; a set of keys has a few thousand.
_MAX_DOCUMENT_BYTES = 256 * 1024

#: Seconds for which fetched keys are used without a new request, unless a token names another key.
_FRESH_S = 3600.0
#: Minimum seconds between two requests, whatever keys the tokens name.
_MIN_INTERVAL_S = 60.0
#: The same after a failed request.
_RETRY_S = 5.0
#: Seconds for which fetched keys are used while the issuer does not respond.
_MAX_AGE_S = 24 * 3600.0
#: Keys of one issuer; further ones are ignored.
_MAX_KEYS = 100
_DISCOVERY_PATH = "/.well-known/openid-configuration"


@frozen
class ClaimCondition:
    """A condition for the value of one claim.

    :ivar claim: the name of the claim.
    :ivar pattern: the required value; ``*`` matches any characters.
    """

    claim: str
    pattern: str

    def matches(self, claims: Mapping[str, Any]) -> bool:
        """Return whether the claim, or one entry of it if it is a list, matches the pattern."""
        value = claims.get(self.claim)
        values = value if isinstance(value, list) else [value]
        return any(
            matches_pattern(self.pattern, text)
            for each in values
            if (text := _claim_text(each)) is not None
        )


@frozen
class OIDCRule:
    """A right for the tokens that fulfil all conditions."""

    conditions: tuple[ClaimCondition, ...]
    right: Right

    def matches(self, claims: Mapping[str, Any]) -> bool:
        """Return whether all conditions are fulfilled; False without conditions."""
        return bool(self.conditions) and all(each.matches(claims) for each in self.conditions)


@frozen
class TrustedIssuer:
    """An issuer whose tokens are accepted.

    :ivar keys: the issuer's keys.
    :ivar audience: the required audience of the tokens.
    :ivar rules: the rules; a token gets the rights of all rules that match.
    """

    keys: IssuerKeys
    audience: str
    rules: tuple[OIDCRule, ...]

    def id_of(self, rule: OIDCRule) -> str:
        """Return an id of a rule, which is another one once the rule or the issuer changes."""
        conditions = sorted((each.claim, each.pattern) for each in rule.conditions)
        content = [self.keys.issuer, self.audience, conditions, rule.right.as_json()]
        return sha256(json.dumps(content).encode()).hexdigest()[:16]


@define(eq=False, repr=False)
class OIDCVerifier:
    """Verifies the tokens of several issuers.

    :ivar issuers: the issuers, each with a different URL.
    :ivar clock: the current time.
    """

    _issuers: Sequence[TrustedIssuer]
    _clock: IReactorTime
    _rights: Mapping[str, Right] = field(init=False)

    @_rights.default
    def _rights_by_rule(self) -> Mapping[str, Right]:
        return {issuer.id_of(rule): rule.right for issuer in self._issuers for rule in issuer.rules}

    async def authenticate(self, token: str) -> Principal:
        """Verify a token and return a principal with the rights of the rules that match.

        :raises LoginFailed: if the token is not accepted.
        :raises RegistryError: UNAVAILABLE if the issuer's keys cannot be fetched now.
        """
        kid, named = _unverified_key_and_issuer(token)
        issuer = next((each for each in self._issuers if each.keys.issuer == named), None)
        if issuer is None:
            raise LoginFailed("the issuer of the token is not trusted")
        keyring = await issuer.keys.keyring_for(kid)
        verifier = TokenVerifier(
            issuer.keys.issuer, issuer.audience, keyring, self._clock.seconds, ALGORITHMS
        )
        claims = verifier.verify_claims(token)
        rules = tuple(issuer.id_of(rule) for rule in issuer.rules if rule.matches(claims))
        subject = claims.get("sub")
        if not isinstance(subject, str) or not subject.isprintable() or not subject:
            raise LoginFailed("the token has no subject")
        name = f"ci:{subject[:_MAX_SUBJECT_CHARS]}"
        if not rules:
            raise LoginFailed(f"no rule of the issuer matches {name!r}")
        now = self._clock.seconds()
        return Principal(
            IdentityWithRights(name, self.rights(rules)),
            expires=min(now + _LOGIN_TTL_S, float(claims["exp"])),
            rules=rules,
        )

    def rights(self, rules: Iterable[str]) -> Rights:
        """Return what rules allow now; nothing for those that were changed or removed.

        :param rules: the ids of the rules.
        """
        return Rights(tuple(self._rights[each] for each in rules if each in self._rights))


def matches_pattern(pattern: str, text: str) -> bool:
    """Return whether a text matches a pattern in which ``*`` stands for any characters.

    Each part is searched once, from left to right, so the time is linear: taking the first match
    of a part never prevents a match of the rest.
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
    """Return the key id and the issuer that a token names, before its signature is verified.

    :raises LoginFailed: if the token is malformed.
    """
    try:
        header = PyJWS().get_unverified_header(token)
        body = token.split(".")[1]
        claims = json.loads(urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return header.get("kid"), claims.get("iss")
    except (PyJWTError, ValueError, AttributeError, IndexError, RecursionError) as error:
        raise LoginFailed("the token cannot be read") from error


class FetchError(Exception):
    """The document could not be fetched; the text says why."""


class JSONFetcher:
    """Fetches JSON documents over HTTP."""

    def __init__(self, clock: IReactorTime, agent: IAgent) -> None:
        """Use an agent.

        :param clock: for the time limit.
        """
        self._clock = clock
        self._client = HTTPClient(agent)

    async def fetch(self, url: str) -> Any:
        """Fetch a document and parse it. Redirects are not followed.

        :raises FetchError: if there is no response in time, or the document is not JSON.
        """
        waiting: Deferred[bytes] = Deferred.fromCoroutine(self._content(url))
        waiting.addTimeout(TIMEOUT_S, self._clock)
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
            raise FetchError(f"{url}: status {response.code}")
        return content


@define(eq=False, repr=False)
class IssuerKeys:
    """The public keys of one issuer.

    :ivar issuer: the URL of the issuer.
    :ivar jwks: the URL of its keys; empty to find it with OpenID Connect Discovery.
    :ivar fetcher: fetches the documents.
    :ivar clock: for the age of the keys.
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
        """Return the keys; fetch them first if they are old or do not contain a key.

        :param kid: the key id that a token names.
        :raises RegistryError: UNAVAILABLE if there are no keys and the issuer does not respond.
        """
        now = self._clock.seconds()
        age = None if self._fetched is None else now - self._fetched
        is_known = isinstance(kid, str) and kid in self._keys
        is_needed = age is None or age >= _FRESH_S or not is_known
        if is_needed and (now >= self._next_fetch or self._refreshing is not None):
            await self._refresh()
        if self._fetched is None or self._clock.seconds() - self._fetched >= _MAX_AGE_S:
            raise RegistryError(
                ErrorCode.UNAVAILABLE,
                message="the keys of the token's issuer cannot be fetched",
                headers=(("Retry-After", str(int(_RETRY_S))),),
            )
        return Keyring(self._keys)

    def _refresh(self) -> Deferred[None]:
        """Fetch the keys, once for all waiting requests."""
        if self._refreshing is None:
            self._next_fetch = self._clock.seconds() + _MIN_INTERVAL_S
            self._refreshing = SingleFlight(
                lambda: Deferred.fromCoroutine(self._fetch_keys()), self._refresh_ended
            )
        return self._refreshing.wait()

    def _refresh_ended(self) -> None:
        self._refreshing = None

    async def _fetch_keys(self) -> None:
        try:
            url = self._jwks or await self._discover_jwks_uri()
            keys = _parse_keys(await self._fetcher.fetch(url))
        except FetchError as error:
            log.warn(
                "the keys of {issuer} cannot be fetched: {error}",
                issuer=self.issuer,
                error=str(error),
            )
            self._next_fetch = self._clock.seconds() + _RETRY_S
            return
        self._keys = keys
        self._fetched = self._clock.seconds()

    async def _discover_jwks_uri(self) -> str:
        url = self.issuer.rstrip("/") + _DISCOVERY_PATH
        document = await self._fetcher.fetch(url)
        uri = document.get("jwks_uri") if isinstance(document, dict) else None
        if not isinstance(uri, str) or document.get("issuer") != self.issuer:
            raise FetchError(f"{url}: names another issuer, or no jwks_uri")
        if urlsplit(uri).scheme not in {"https", urlsplit(self.issuer).scheme}:
            raise FetchError(f"{url}: jwks_uri must use https")
        return uri


def _parse_keys(document: Any) -> Mapping[str, SigningKey]:
    """Return the keys of a JWK Set that can verify tokens; others are ignored.

    :raises FetchError: if the document is not a JWK Set.
    """
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise FetchError("the response is not a set of keys")
    keys = {}
    for jwk in listed[:_MAX_KEYS]:
        if not isinstance(jwk, dict) or not isinstance(jwk.get("kid"), str):
            continue
        try:
            keys[jwk["kid"]] = SigningKey.from_jwk(jwk)
        except KeyUnusable as error:
            log.debug("ignoring a key of an issuer: {error}", error=str(error))
    return keys
