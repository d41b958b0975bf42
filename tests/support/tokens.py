"""Tokens as a token server issues them, and forged ones."""

from __future__ import annotations

import hmac
import json
from base64 import b64encode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from functools import cache

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID
from twisted.internet.defer import succeed

from twisted_registry.tokens.keys import KeyCache, TokenKey, TokenKeys
from twisted_registry.tokens.signing import TokenSigner

ISSUER, SERVICE, REALM = "the issuer", "registry.example", "https://auth.example/token"
#: Time of the test clocks; certificates are valid then.
NOW = 1_800_000_000
SECRET = b"a secret of more than 64 bytes, " * 3


@cache
def key(kind, name=""):
    """Return a private key, the same for each kind and name."""
    if kind == "RSA":
        return rsa.generate_private_key(65537, 2048)
    if kind == "Ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    curves = {"P-256": ec.SECP256R1, "P-384": ec.SECP384R1, "P-521": ec.SECP521R1}
    return ec.generate_private_key(curves[kind]())


#: Signing algorithm -> kind of its key.
SIGNING = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "RSA"),
    "ES256": "P-256",
    "ES384": "P-384",
    "ES512": "P-521",
    "EdDSA": "Ed25519",
}


def certificate(subject, issuer=None, *, ends=1, authority=True, now=NOW):
    """Return a certificate for a private key, self-signed or issued by another.

    :param issuer: the private key and the certificate of the issuer.
    :param ends: its validity in days.
    """
    issuer_key, issuer_certificate = issuer or (subject, None)
    own = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"key {id(subject)}")])
    at = datetime.fromtimestamp(now, UTC)
    is_ed25519 = isinstance(issuer_key, ed25519.Ed25519PrivateKey)
    algorithm = None if is_ed25519 else hashes.SHA256()
    return (
        x509.CertificateBuilder()
        .subject_name(own)
        .issuer_name(own if issuer_certificate is None else issuer_certificate.subject)
        .public_key(subject.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(at - timedelta(days=1))
        .not_valid_after(at + timedelta(days=ends))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .sign(issuer_key, algorithm)
    )


def pem(*certificates):
    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates)


def x5c(*certificates):
    return [b64encode(each.public_bytes(Encoding.DER)).decode() for each in certificates]


def private_pem(private):
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_pem(private):
    return private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def jwk(private, **more):
    """Return the public key as a JSON web key."""
    kinds = {rsa.RSAPrivateKey: "RS256", ed25519.Ed25519PrivateKey: "EdDSA"}
    name = next((alg for of, alg in kinds.items() if isinstance(private, of)), "ES256")
    algorithm = jwt.algorithms.get_default_algorithms()[name]
    return {**algorithm.to_jwk(private.public_key(), as_dict=True), **more}


def jwks(*listed):
    return json.dumps({"keys": listed}).encode()


def claims(now=NOW, **more):
    """Return the claims of a valid token, with changes; None removes a claim."""
    all_claims = {
        "iss": ISSUER,
        "sub": "me",
        "aud": SERVICE,
        "exp": int(now) + 300,
        "nbf": int(now),
        "access": [{"type": "repository", "name": "a/b", "actions": ["pull", "push"]}],
        **more,
    }
    return {name: value for name, value in all_claims.items() if value is not None}


def access_claim(scope):
    """Return the ``access`` claim for scopes separated by spaces: ``repository:a/b:pull,push``."""
    parts = [each.split(":") for each in scope.split()]
    return [{"type": t, "name": n, "actions": actions.split(",")} for t, n, actions in parts]


def mint(private, algorithm, content=None, **header):
    """Return a token that is signed by PyJWT."""
    return jwt.encode(claims() if content is None else content, private, algorithm, headers=header)


def make_signer(clock, *keys, service="here", lifetime=300.0):
    """Return a signer of the registry's own tokens.

    :param keys: the first one signs; a new one if there is none.
    """
    listed = TokenKeys(keys or (TokenKey.generate(),))
    return TokenSigner(KeyCache(lambda: succeed(listed), clock), clock, service, lifetime)


def segment(content):
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def forge(header, content=None, secret=None):
    """Return a token assembled by hand, with an HMAC or without a signature."""
    text = f"{segment(header)}.{segment(claims() if content is None else content)}"
    signature = b"" if secret is None else hmac.digest(secret, text.encode(), "sha256")
    return f"{text}.{segment(signature)}"
