"""The public keys of an issuer, fetched when they are needed, and kept (RFC 7517)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from twisted_registry.auth.keyring import Keyring
from twisted_registry.auth.shared import SingleFlight
from twisted_registry.auth.signingkeys import KeyUnusable, SigningKey
from twisted_registry.errors import ErrorCode, RegistryError
from twisted_registry.tokens.fetching import FetchError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.tokens.fetching import JSONFetcher

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
            keys = _parse_keys(await self._fetcher.json(self._jwks or await self._discover_jwks_uri()))
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
