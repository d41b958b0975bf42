"""Where a list goes on, in a URL, for those who must not learn what stands there."""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64encode
from typing import TYPE_CHECKING

from twisted_registry.reference import MAX_NAME_LENGTH

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

#: What was hidden begins with it, and no name does.
CURSOR_PREFIX = "~"
_PURPOSE = b"catalog cursor"


def encrypt_cursor(name: str, secret: bytes) -> str:
    """Hide a name, and how long it is.

    :param secret: what only registries over the same store have.
    """
    return CURSOR_PREFIX + _fernet(secret).encrypt(name.ljust(MAX_NAME_LENGTH).encode()).decode("ascii")


def decrypt_cursor(last: str, secret: bytes) -> str | None:
    """The name that was hidden; None if it was not hidden with this secret."""
    from cryptography.fernet import InvalidToken  # noqa: PLC0415 - as below

    try:
        return _fernet(secret).decrypt(last.removeprefix(CURSOR_PREFIX).encode()).decode().rstrip()
    except InvalidToken:
        return None


def _fernet(secret: bytes) -> Fernet:
    from cryptography.fernet import Fernet  # noqa: PLC0415 - seldom needed, and heavy

    key = hmac.new(secret, _PURPOSE, hashlib.sha256).digest()
    return Fernet(urlsafe_b64encode(key))
