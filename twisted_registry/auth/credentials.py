"""Authorization headers with user name and password (RFC 7617)."""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode

from twisted.cred.credentials import UsernamePassword


def is_basic(authorization: str) -> bool:
    """Return whether an Authorization header has this scheme."""
    return authorization[:6].lower() == "basic "


def is_empty_login(credentials: UsernamePassword) -> bool:
    """Return whether user name and password are both empty.

    podman and related tools send such credentials if they have no login; they count as none.
    """
    return not (credentials.username or credentials.password)


def basic_authorization(name: str, password: str) -> str:
    """Return the Authorization header of this scheme for a user name and password."""
    return f"Basic {b64encode(f'{name}:{password}'.encode()).decode('ascii')}"


def parse_basic(authorization: str) -> UsernamePassword | None:
    """Return the credentials of an Authorization header of this scheme; None if malformed."""
    try:
        name, colon, password = b64decode(authorization[6:], validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return None
    return UsernamePassword(name, password) if colon else None
