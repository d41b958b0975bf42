"""Credentials for a registry that requires a login: a password or a token."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import bcrypt
from cryptography.x509 import load_pem_x509_certificate

from tests.support.passwords import basic_header
from tests.support.tokens import claims, mint, x5c

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bench.certificate import Certificate
    from tests.bench.setups import Login

USER, PASSWORD = "bench", "password"
BASIC = {"Authorization": basic_header(USER, PASSWORD)}
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
    now = datetime.now(UTC).timestamp()
    access = [
        {"type": "repository", "name": name, "actions": ["pull", "push"]} for name in _REPOSITORIES
    ]
    token_claims = claims(now - 60, sub=USER, exp=int(now) + 86_400, access=access)
    signer = load_pem_x509_certificate(certificate.certificate.read_bytes())
    return mint(certificate.key.read_text(), "ES256", token_claims, x5c=x5c(signer))
