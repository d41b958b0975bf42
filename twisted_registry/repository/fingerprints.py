"""Bytes that had the right digest once are told again by a code that takes a twentieth of the time.

The code is that of AES-GCM over data that is only authenticated (GMAC), with a key that is made up
for this process and leaves it no more than the codes do. Who does not know the key finds no other
bytes with the same code but by a chance below one in 2**90 for a blob of a TiB: for what breaks by
itself, and for who breaks it, that is as good as the digest.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import GCM

if TYPE_CHECKING:
    from twisted_registry.digest import Digest

#: Digests whose codes are kept, some 300 bytes each.
_LIMIT: Final = 10_000


class Fingerprint:
    """The code of bytes, while they pass."""

    def __init__(self, key: bytes) -> None:
        # The same nonce each time gives the same code for the same bytes. That would be a fault
        # where others see codes.
        self._running = Cipher(AES(key), GCM(bytes(12))).encryptor()

    def update(self, data: bytes) -> None:
        """Take bytes."""
        self._running.authenticate_additional_data(data)

    def code(self) -> bytes:
        """The code of all of them, 16 bytes; nothing can be added then."""
        self._running.finalize()
        return self._running.tag


class Fingerprints:
    """The codes of content whose digest was compared.

    :ivar limit: how many; the one longest unused is dropped.
    """

    def __init__(self, limit: int = _LIMIT) -> None:
        self.limit = limit
        self._key = os.urandom(16)
        self._codes: OrderedDict[Digest, bytes] = OrderedDict()

    def begin(self) -> Fingerprint:
        """Begin a code."""
        return Fingerprint(self._key)

    def of(self, digest: Digest) -> bytes | None:
        """The code of the content of a digest, if that is known."""
        code = self._codes.get(digest)
        if code is not None:
            self._codes.move_to_end(digest)
        return code

    def note(self, digest: Digest, code: bytes) -> None:
        """Remember the code of bytes that have this digest."""
        self._codes[digest] = code
        self._codes.move_to_end(digest)
        if len(self._codes) > self.limit:
            self._codes.popitem(last=False)
