"""Credentials for a registry that requires a login: a password or a token."""

from __future__ import annotations

import datetime as dt
from base64 import b64encode
from typing import TYPE_CHECKING

import bcrypt
import jwt
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bench.certificate import Certificate
    from tests.bench.setups import Login

USER, PASSWORD = "bench", "password"
BASIC = {"Authorization": "Basic " + b64encode(f"{USER}:{PASSWORD}".encode()).decode()}
SERVICE = ISSUER = "bench"
#: The scope of a token; docker-registry does not support patterns.
_REPOSITORIES = ("bench/image", "bench/pushed", "bench/traced")
#: The default cost of ``htpasswd -B``.
_ROUNDS = 5


def write_passwords(file: Path) -> None:
    """Write an htpasswd file with one user."""
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(_ROUNDS)).decode()
    file.write_text(f"{USER}:{hashed}\n")


def login_headers(login: Login, certificate: Certificate) -> dict[str, str]:
    """Return the headers of each request.

    :param certificate: its key signs tokens.
    """
    if login == "token":
        return {"Authorization": f"Bearer {_token(certificate)}"}
    return BASIC if login else {}


def _token(certificate: Certificate) -> str:
    """Return a token as Distribution expects it, valid for a day."""
    now = int(dt.datetime.now(dt.UTC).timestamp())
    claims = {
        "iss": ISSUER,
        "sub": USER,
        "aud": SERVICE,
        "iat": now - 60,
        "nbf": now - 60,
        "exp": now + 86_400,
        "jti": "1",
        "access": [
            {"type": "repository", "name": name, "actions": ["pull", "push"]}
            for name in _REPOSITORIES
        ],
    }
    der = x509.load_pem_x509_certificate(certificate.certificate.read_bytes()).public_bytes(
        Encoding.DER
    )
    headers = {"x5c": [b64encode(der).decode()]}
    return jwt.encode(claims, certificate.key.read_text(), algorithm="ES256", headers=headers)
