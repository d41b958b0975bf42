"""Keys that tokens may be signed with: what each may sign, and what tokens call it.

A key is good for the algorithms of its kind and for no others, whatever a token says: a public key
is never taken for the secret of an HMAC.

All keys that tokens may be signed with, and which of them a token means.

Authorities whose certificates vouch for the keys of tokens (``x5c``, RFC 7515 section 4.1.6).
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
    # @@EMPTY
    from collections.abc import Mapping, Sequence

    from cryptography.x509 import Certificate

_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
#: Bits of an RSA key at least (RFC 7518 section 3.3).
_MIN_RSA_BITS = 2048
#: Bytes of a secret at least (RFC 7518 section 3.2).
_MIN_SECRET_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
#: RFC 7518 section 3.4: each curve has its algorithm.
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
#: What some algorithms are called in other words.
_ALIASES = {"Ed25519": "EdDSA"}
#: What reading a key may raise, whatever it says.
_UNREADABLE = (
    *(PyJWTError, ValueError, TypeError, KeyError, AttributeError, UnsupportedAlgorithm),
)
#: Bytes of the hash that libtrust takes.
_LIBTRUST_BYTES = 30


class KeyUnusable(Exception):
    """No token can be checked with this; the text says why, and holds no secret."""


@frozen(eq=False)
class SigningKey:
    """A key that is trusted.

    :ivar key: a public key of ``cryptography``, or the bytes of a secret.
    :ivar algorithms: what it may have signed with, in the words of RFC 7518.
    """

    key: Any = field(repr=False)
    algorithms: frozenset[str]

    @classmethod
    def from_public_key(cls, key: object) -> SigningKey:
        """A key for all algorithms of its kind.

        :raises KeyUnusable: if no token is signed with such keys.
        """
        if isinstance(key, RSAPublicKey):
            if key.key_size < _MIN_RSA_BITS:
                raise KeyUnusable(f"it has {key.key_size} bits, which are too few")
            return cls(key, _RSA)
        if isinstance(key, EllipticCurvePublicKey) and key.curve.name in _CURVES:
            return cls(key, frozenset({_CURVES[key.curve.name]}))
        if isinstance(key, Ed25519PublicKey):
            return cls(key, frozenset({"EdDSA"}))
        raise KeyUnusable("no tokens are signed with keys of this kind")

    @classmethod
    def from_jwk(cls, jwk: Mapping[str, Any]) -> SigningKey:
        """A key from its JSON (RFC 7517); of a private key the public half.

        :raises KeyUnusable: if it is none, or not for signatures.
        """
        if jwk.get("use", "sig") != "sig":
            raise KeyUnusable("it is not for signatures")
        try:
            # What its alg says is looked at below: the library takes it for the kind of the key.
            material = {name: value for name, value in jwk.items() if name != "alg"}
            key: Any = PyJWK.from_dict(material).key
        except _UNREADABLE:
            # What the library says of it may repeat the whole key.
            raise KeyUnusable("it can not be read as a key") from None
        if isinstance(key, bytes):
            fitting = {name for name, least in _MIN_SECRET_BYTES.items() if len(key) >= least}
            made = cls(key, frozenset(fitting))
        else:
            made = cls.from_public_key(key.public_key() if hasattr(key, "public_key") else key)
        alg = jwk.get("alg")
        fit = made.algorithms if alg is None else made.algorithms & {_ALIASES.get(alg, alg)}
        if not fit:
            raise KeyUnusable("it is too short, or not of the kind that its alg wants")
        return cls(made.key, fit)


def key_ids(key: object) -> tuple[str, ...]:
    """What the ``kid`` of a token may call a public key, without anybody having agreed on it.

    The thumbprint of RFC 7638, as Distribution 3 has it; and the fingerprint of libtrust, as
    Distribution 2 has it.
    """
    if isinstance(key, RSAPublicKey):
        thumbprints = [thumbprint(RSAAlgorithm.to_jwk(key, as_dict=True), "e", "kty", "n")]
    elif isinstance(key, EllipticCurvePublicKey) and key.curve.name in _CURVES:
        members = ECAlgorithm.to_jwk(key, as_dict=True)
        numbers = key.public_numbers()
        # Distribution leaves out zeros in front, which the standard wants; 1 of 128 keys has some.
        short = {**members, "x": _encode_int(numbers.x), "y": _encode_int(numbers.y)}
        thumbprints = [thumbprint(each, "crv", "kty", "x", "y") for each in (members, short)]
    elif isinstance(key, Ed25519PublicKey):
        thumbprints = [thumbprint(OKPAlgorithm.to_jwk(key, as_dict=True), "crv", "kty", "x")]
    else:
        return ()
    return (*thumbprints, _libtrust_id(key))


def thumbprint(jwk: Mapping[str, Any], *members: str) -> str:
    """The thumbprint of a key (RFC 7638 section 3).

    :param members: those that the standard asks for its kind.
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


#: Certificates in one chain; a token with more wants to keep us busy.
_MAX_CHAIN = 10


@define(eq=False, repr=False)
class TrustAnchors:
    """Certificates that are trusted, and whatever they have vouched for.

    :ivar certificates: any of them ends a chain, be it an authority's or not.
    """

    certificates: Sequence[Certificate]
    _store: X509Store = field(init=False, factory=X509Store)

    def __attrs_post_init__(self) -> None:
        self._store.set_flags(X509StoreFlags.PARTIAL_CHAIN)
        for certificate in self.certificates:
            self._store.add_cert(X509.from_cryptography(certificate))

    @classmethod
    def from_pem(cls, content: bytes) -> TrustAnchors:
        """Read a bundle.

        :raises ValueError: if it holds no certificate, or one that is broken.
        """
        return cls(load_pem_x509_certificates(content))

    def verify_chain(self, chain: Any, now: float) -> SigningKey:
        """The key of the first certificate of a chain, if the others lead to one of ours.

        :param chain: what a token gives as ``x5c``.
        :param now: for how long certificates are good, in seconds since 1970.
        :raises KeyUnusable: if they do not.
        """
        if not isinstance(chain, list) or not 0 < len(chain) <= _MAX_CHAIN:
            raise KeyUnusable("x5c is no list of certificates")
        leaf, *others = [_certificate(each) for each in chain]
        self._store.set_time(datetime.fromtimestamp(now, UTC))
        context = X509StoreContext(self._store, leaf, others)
        try:
            context.verify_certificate()
        except X509StoreContextError as error:
            raise KeyUnusable(f"x5c leads to no certificate that is trusted: {error}") from None
        return SigningKey.from_public_key(leaf.get_pubkey().to_cryptography_key())


def _certificate(text: object) -> X509:
    try:
        content = b64decode(str(text), validate=True)
        return X509.from_cryptography(load_der_x509_certificate(content))
    except (binascii.Error, ValueError, UnsupportedAlgorithm):
        raise KeyUnusable("x5c holds something that is no certificate") from None
