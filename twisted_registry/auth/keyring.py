"""All keys that tokens may be signed with, and which of them a token means."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from twisted_registry.auth.signingkeys import KeyUnusable, SigningKey, key_ids

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted_registry.auth.authorities import TrustAnchors


#: The members of a public key. To read a private one may take long.
_PUBLIC_MEMBERS = ("kty", "crv", "n", "e", "x", "y")


@frozen(eq=False)
class Keyring:
    """Trusted keys, by what tokens call them.

    :ivar keys: by ``kid``.
    :ivar authorities: who vouches for others; None if nobody does.
    """

    keys: Mapping[str, SigningKey] = field(repr=False)
    authorities: TrustAnchors | None = None

    def find(self, header: Mapping[str, Any], now: float) -> SigningKey:
        """The key that a token was signed with, as far as its header says.

        A key that the token itself brings along is only looked up among ours, never believed.

        :param now: in seconds since 1970.
        :raises KeyUnusable: if it is none that is trusted.
        """
        if header.get("x5c"):
            return self._key_from_chain(header["x5c"], now)
        jwk = header.get("jwk")
        if jwk is None:
            return self._key_by_id(header.get("kid"))
        if not isinstance(jwk, dict):
            raise KeyUnusable("jwk is no key")
        embedded = SigningKey.from_jwk({name: jwk[name] for name in _PUBLIC_MEMBERS if name in jwk})
        if jwk.get("x5c"):
            key = self._key_from_chain(jwk["x5c"], now)
            if not set(key_ids(key.key)) & set(key_ids(embedded.key)):
                raise KeyUnusable("jwk is another key than that of its x5c")
            return key
        for name in key_ids(embedded.key):
            if name in self.keys:
                return self.keys[name]
        raise KeyUnusable("jwk is no key that is trusted")

    def _key_from_chain(self, chain: Any, now: float) -> SigningKey:
        if self.authorities is None:
            raise KeyUnusable("x5c is given, and no authority is trusted")
        return self.authorities.verify_chain(chain, now)

    def _key_by_id(self, name: Any) -> SigningKey:
        key = self.keys.get(name) if isinstance(name, str) else None
        if key is None:
            raise KeyUnusable("kid names no key that is trusted")
        return key


def make_keyring(authorities: TrustAnchors | None, jwks: bytes | None) -> Keyring:
    """The keys of certificates, and of a set of keys.

    :param jwks: a JWK Set (RFC 7517 section 5); those of its keys that are of no use for signatures
        are left out.
    :raises KeyUnusable: if the set can not be read, or nothing is trusted.
    """
    keys: dict[str, SigningKey] = {}
    for certificate in authorities.certificates if authorities else ():
        public = certificate.public_key()
        for name in key_ids(public):
            keys[name] = SigningKey.from_public_key(public)
    if jwks is not None:
        keys.update(_parse_jwks(jwks))
    if not keys and authorities is None:
        raise KeyUnusable("there is no key for signatures in it")
    return Keyring(keys, authorities)


def _parse_jwks(jwks: bytes) -> dict[str, SigningKey]:
    try:
        document = json.loads(jwks)
        listed = document["keys"]
    except (ValueError, RecursionError, KeyError, TypeError):
        listed = None
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise KeyUnusable("it is no JSON with a list of keys")
    keys: dict[str, SigningKey] = {}
    for number, jwk in enumerate(listed):
        if jwk.get("use", "sig") != "sig":
            continue
        try:
            key = SigningKey.from_jwk(jwk)
        except KeyUnusable as error:
            raise KeyUnusable(f"keys[{number}]: {error}") from None
        names = [jwk["kid"]] if isinstance(jwk.get("kid"), str) else []
        for name in (*names, *key_ids(key.key)):
            keys[name] = key
    return keys
