"""Trusted keys for token signatures, and the key that a token was signed with.

A key may be used for the algorithms of its type and for no others, whatever a token says: a public
key is never used as the secret of an HMAC.

The header of a token refers to a key by ``kid``, by the key itself (``jwk``), or by a chain of
certificates (``x5c``, RFC 7515 section 4.1.6) that leads to a trusted certificate.

This module needs the package ``PyJWT`` (the extra ``auth``).
"""

from __future__ import annotations

import binascii
import hashlib
import json
from base64 import b32encode, b64decode, urlsafe_b64encode
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_der_x509_certificate, load_pem_x509_certificates
from jwt import PyJWK
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.exceptions import PyJWTError
from OpenSSL.crypto import X509, X509Store, X509StoreContext, X509StoreContextError, X509StoreFlags

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cryptography.x509 import Certificate

#: The algorithms of RSA keys.
RSA_ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
#: The minimum size of an RSA key in bits (RFC 7518 section 3.3).
_MIN_RSA_BITS = 2048
#: The minimum size of an HMAC secret in bytes (RFC 7518 section 3.2).
_MIN_SECRET_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
#: The algorithm of each curve (RFC 7518 section 3.4).
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
#: Other names of algorithms.
_ALIASES = {"Ed25519": "EdDSA"}
#: The exceptions that reading a malformed key can raise.
_UNREADABLE = (PyJWTError, ValueError, TypeError, KeyError, AttributeError, UnsupportedAlgorithm)
#: Bytes of the hash in a libtrust key id.
_LIBTRUST_BYTES = 30
#: The members of a public JWK. Reading the members of a private key can take long.
_PUBLIC_MEMBERS = ("kty", "crv", "n", "e", "x", "y")
#: Certificates in an ``x5c`` chain; longer chains are rejected, because verifying them takes long.
_MAX_CHAIN_LENGTH = 10


class KeyUnusable(Exception):
    """A key cannot be used for token signatures; the text says why and contains no secret."""


@frozen(eq=False)
class SigningKey:
    """A key for verifying signatures.

    :ivar key: a public key of ``cryptography``, or the bytes of an HMAC secret.
    :ivar algorithms: the algorithms that it may be used for, named as in RFC 7518.
    """

    key: Any = field(repr=False)
    algorithms: frozenset[str]

    @classmethod
    def from_public_key(cls, key: object) -> SigningKey:
        """Make a key for all algorithms of its type.

        :raises KeyUnusable: if keys of this type or size are not used for tokens.
        """
        if isinstance(key, RSAPublicKey):
            if key.key_size < _MIN_RSA_BITS:
                raise KeyUnusable(f"the RSA key has {key.key_size} bits, {_MIN_RSA_BITS} needed")
            return cls(key, RSA_ALGORITHMS)
        if isinstance(key, EllipticCurvePublicKey) and key.curve.name in _CURVES:
            return cls(key, frozenset({_CURVES[key.curve.name]}))
        if isinstance(key, Ed25519PublicKey):
            return cls(key, frozenset({"EdDSA"}))
        raise KeyUnusable("keys of this type are not used for tokens")

    @classmethod
    def from_jwk(cls, jwk: Mapping[str, Any]) -> SigningKey:
        """Make a key from a JWK (RFC 7517). Of a private key only the public half is kept.

        :raises KeyUnusable: if the JWK is malformed or not for signatures.
        """
        if jwk.get("use", "sig") != "sig":
            raise KeyUnusable("the key is not for signatures")
        try:
            # The library would take alg for the type of the key; it is checked below.
            members = {name: value for name, value in jwk.items() if name != "alg"}
            key: Any = PyJWK.from_dict(members).key
        except _UNREADABLE:
            # The library's message may contain the whole key.
            raise KeyUnusable("the key cannot be read") from None
        if isinstance(key, bytes):
            fitting = {name for name, least in _MIN_SECRET_BYTES.items() if len(key) >= least}
            signing_key = cls(key, frozenset(fitting))
        else:
            public = key.public_key() if hasattr(key, "public_key") else key
            signing_key = cls.from_public_key(public)
        alg = jwk.get("alg")
        algorithms = signing_key.algorithms
        if alg is not None:
            algorithms &= {_ALIASES.get(alg, alg)} if isinstance(alg, str) else set()
        if not algorithms:
            raise KeyUnusable("the key is too short or does not fit its alg")
        return cls(signing_key.key, algorithms)


def key_ids(key: object) -> tuple[str, ...]:
    """Return the values of ``kid`` that Distribution derives from a public key.

    Distribution 3 uses the thumbprint of RFC 7638, Distribution 2 the fingerprint of libtrust.
    """
    if isinstance(key, RSAPublicKey):
        thumbprints = [thumbprint(RSAAlgorithm.to_jwk(key, as_dict=True), "e", "kty", "n")]
    elif isinstance(key, EllipticCurvePublicKey) and key.curve.name in _CURVES:
        members = ECAlgorithm.to_jwk(key, as_dict=True)
        numbers = key.public_numbers()
        # Distribution omits the leading zeros that the RFC requires; 1 of 128 keys has some.
        short = {**members, "x": _encode_int(numbers.x), "y": _encode_int(numbers.y)}
        thumbprints = [thumbprint(each, "crv", "kty", "x", "y") for each in (members, short)]
    elif isinstance(key, Ed25519PublicKey):
        thumbprints = [thumbprint(OKPAlgorithm.to_jwk(key, as_dict=True), "crv", "kty", "x")]
    else:
        return ()
    return (*thumbprints, _libtrust_id(key))


def thumbprint(jwk: Mapping[str, Any], *members: str) -> str:
    """Return the thumbprint of a key (RFC 7638 section 3).

    :param members: the members that the RFC requires for the type of the key.
    """
    document = {name: jwk[name] for name in sorted(members)}
    text = json.dumps(document, separators=(",", ":"))
    return _encode_base64url(hashlib.sha256(text.encode()).digest())


def _libtrust_id(key: RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey) -> str:
    encoded = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    letters = b32encode(hashlib.sha256(encoded).digest()[:_LIBTRUST_BYTES]).decode()
    return ":".join(letters[start : start + 4] for start in range(0, len(letters), 4))


def _encode_int(number: int) -> str:
    return _encode_base64url(number.to_bytes((number.bit_length() + 7) // 8, "big"))


def _encode_base64url(content: bytes) -> str:
    return urlsafe_b64encode(content).rstrip(b"=").decode()


@define(eq=False, repr=False)
class TrustAnchors:
    """Trusted certificates, for verifying chains of certificates.

    :ivar certificates: each may end a chain, whether it belongs to an authority or not.
    """

    certificates: Sequence[Certificate]
    _store: X509Store = field(init=False, factory=X509Store)

    def __attrs_post_init__(self) -> None:
        self._store.set_flags(X509StoreFlags.PARTIAL_CHAIN)
        for certificate in self.certificates:
            self._store.add_cert(X509.from_cryptography(certificate))

    @classmethod
    def from_pem(cls, content: bytes) -> TrustAnchors:
        """Read certificates in PEM.

        :raises ValueError: if there is no certificate, or a malformed one.
        """
        return cls(load_pem_x509_certificates(content))

    def verify_chain(self, chain: Any, now: float) -> SigningKey:
        """Return the key of the first certificate of a chain that leads to a trusted one.

        :param chain: the ``x5c`` of a token.
        :param now: the time at which the certificates must be valid, in seconds since 1970.
        :raises KeyUnusable: if the chain is malformed or not trusted.
        """
        if not isinstance(chain, list) or not 0 < len(chain) <= _MAX_CHAIN_LENGTH:
            raise KeyUnusable("x5c is not a list of certificates")
        leaf, *others = [_load_certificate(each) for each in chain]
        self._store.set_time(datetime.fromtimestamp(now, UTC))
        context = X509StoreContext(self._store, leaf, others)
        try:
            context.verify_certificate()
        except X509StoreContextError as error:
            raise KeyUnusable(f"x5c leads to no trusted certificate: {error}") from None
        return SigningKey.from_public_key(leaf.get_pubkey().to_cryptography_key())


def _load_certificate(text: object) -> X509:
    try:
        content = b64decode(str(text), validate=True)
        return X509.from_cryptography(load_der_x509_certificate(content))
    except (binascii.Error, ValueError, UnsupportedAlgorithm):
        raise KeyUnusable("x5c contains an invalid certificate") from None


@frozen(eq=False)
class Keyring:
    """The trusted keys.

    :ivar keys: keys by ``kid``.
    :ivar authorities: trusted certificates for ``x5c`` chains; None to reject all chains.
    """

    keys: Mapping[str, SigningKey] = field(repr=False)
    authorities: TrustAnchors | None = None

    def find_key(self, header: Mapping[str, Any], now: float) -> SigningKey:
        """Return the trusted key that the header of a token refers to.

        A key inside the header only selects one of the trusted keys; it is not trusted itself.

        :param now: in seconds since 1970.
        :raises KeyUnusable: if the key is not trusted.
        """
        if header.get("x5c"):
            return self._key_from_chain(header["x5c"], now)
        jwk = header.get("jwk")
        if jwk is None:
            return self._key_by_id(header.get("kid"))
        if not isinstance(jwk, dict):
            raise KeyUnusable("jwk is not a key")
        embedded = SigningKey.from_jwk({name: jwk[name] for name in _PUBLIC_MEMBERS if name in jwk})
        if jwk.get("x5c"):
            key = self._key_from_chain(jwk["x5c"], now)
            if not set(key_ids(key.key)) & set(key_ids(embedded.key)):
                raise KeyUnusable("jwk and its x5c have different keys")
            return key
        for name in key_ids(embedded.key):
            if name in self.keys:
                return self.keys[name]
        raise KeyUnusable("jwk is not a trusted key")

    def _key_from_chain(self, chain: Any, now: float) -> SigningKey:
        if self.authorities is None:
            raise KeyUnusable("x5c is not accepted: no authority is trusted")
        return self.authorities.verify_chain(chain, now)

    def _key_by_id(self, name: Any) -> SigningKey:
        key = self.keys.get(name) if isinstance(name, str) else None
        if key is None:
            raise KeyUnusable("kid is not the id of a trusted key")
        return key


def make_keyring(authorities: TrustAnchors | None, jwks: bytes | None) -> Keyring:
    """Return a keyring with the keys of certificates and of a JWK Set.

    :param jwks: a JWK Set (RFC 7517 section 5). Keys that are not for signatures are ignored.
    :raises KeyUnusable: if the set is malformed, or nothing would be trusted.
    """
    keys: dict[str, SigningKey] = {}
    for certificate in authorities.certificates if authorities else ():
        public = certificate.public_key()
        for name in key_ids(public):
            keys[name] = SigningKey.from_public_key(public)
    if jwks is not None:
        keys.update(_parse_jwks(jwks))
    if not keys and authorities is None:
        raise KeyUnusable("there is no key for signatures")
    return Keyring(keys, authorities)


def _parse_jwks(jwks: bytes) -> dict[str, SigningKey]:
    try:
        document = json.loads(jwks)
        listed = document["keys"]
    except (ValueError, RecursionError, KeyError, TypeError):
        listed = None
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise KeyUnusable("expected JSON with a list of keys")
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
