"""bcrypt, as Distribution's library does it. All of it takes long: call it on a thread."""

from __future__ import annotations

import bcrypt

from twisted_registry.auth.htpasswd import MAX_PASSWORD_BYTES

#: The binary logarithm of the rounds of a new hash: Distribution's, some 70 ms.
DEFAULT_COST = 10


def verify_password(password: bytes, hashed: bytes) -> bool:
    """Whether a hash is that of a password, of which only the first 72 bytes count."""
    # The library knows the first version by its later name only.
    known = b"$2a" + hashed[2:] if hashed.startswith(b"$2$") else hashed
    try:
        return bcrypt.checkpw(password[:MAX_PASSWORD_BYTES], known)
    except ValueError:  # a salt or a hash that bcrypt never wrote
        return False


def verify_dummy_password(password: bytes, cost: int) -> bool:
    """Take as long as :func:`verify_password` does, for a hash of nobody's password."""
    return verify_password(password, b"$2b$%02d$%s" % (cost, b"." * 53))


def hash_password(password: bytes, cost: int = DEFAULT_COST) -> bytes:
    """A new hash, in the version that Apache writes.

    :param password: at most 72 bytes.
    """
    return b"$2y" + bcrypt.hashpw(password, bcrypt.gensalt(cost))[3:]
