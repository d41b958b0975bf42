"""Keys that tokens may be signed with: what each may sign, and what tokens call it.

A key is good for the algorithms of its kind and for no others, whatever a token says: a public key
is never taken for the secret of an HMAC.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b32encode, urlsafe_b64encode
from typing import TYPE_CHECKING, Any

from attrs import field, frozen
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt import PyJWK
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.exceptions import PyJWTError

if TYPE_CHECKING:
    from collections.abc import Mapping

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
