"""Bytes of a blob from afar, compared with their digest while they pass.

Whoever pulls compares the digest, too, but not everybody does, and nobody who only looks at the
length can tell a spoiled blob from a good one. So the last bytes are kept back until all were
looked at: a client gets a whole answer, or one that is shorter than was announced.

A large blob is hashed when it first passes through this process. Then its fingerprint is known,
which takes much less time to compare.

Bytes that had the right digest once are told again by a code that takes a twentieth of the time.

The code is that of AES-GCM over data that is only authenticated (GMAC), with a key that is made up
for this process and leaves it no more than the codes do. Who does not know the key finds no other
bytes with the same code but by a chance below one in 2**90 for a blob of a TiB: for what breaks by
itself, and for who breaks it, that is as good as the digest.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, cast

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import GCM
from twisted.internet.interfaces import IConsumer
from twisted.logger import Logger
from zope.interface import implementer

from twisted_registry.oci.digest import hasher
from twisted_registry.repository import layout
from twisted_registry.storage.interfaces import IReader, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from hashlib import _Hash

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IProducer

    from twisted_registry.oci.digest import Digest
    # @@EMPTY

log = Logger()


#: Bytes from which on it pays to have a fingerprint.
_LARGE: Final = 1024 * 1024


@implementer(IReader)
class VerifiedReader:
    """A reader of a whole blob whose ``deliver`` fails before the end if the digest is another."""

    def __init__(self, reader: IReader, digest: Digest, fingerprints: Fingerprints) -> None:
        self._reader = reader
        self._digest = digest
        self._fingerprints = fingerprints

    @property
    def size(self) -> int:
        """Bytes of the blob."""
        return self._reader.size

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        """Write the blob to ``consumer``; its last bytes only if all are right."""
        known = self._fingerprints.of(self._digest)
        check = _Check(
            consumer,
            hasher(self._digest.algorithm) if known is None else None,
            self._fingerprints.begin() if self.size >= _LARGE else None,
        )
        return self._reader.deliver(check).addCallback(lambda _: self._finish(check, known))

    def feed(self, observe: Callable[[bytes], object]) -> Deferred[None]:
        """Pass it on: whoever is shown the bytes hashes them."""
        return self._reader.feed(observe)

    def close(self) -> None:
        """Close the reader."""
        self._reader.close()

    def _finish(self, check: _Check, known: bytes | None) -> None:
        code = None if check.fingerprint is None else check.fingerprint.code()
        if check.running is None:
            right = code == known
        else:
            right = check.running.hexdigest() == self._digest.hex
            if right and code is not None:
                self._fingerprints.note(self._digest, code)
        if not right:
            log.error(
                "the store sent other bytes than those of {digest}; the client was sent no more of "
                "them",
                digest=str(self._digest),
            )
            raise StorageError(layout.blob(self._digest), "are not the bytes of the digest")
        check.release()


@implementer(IConsumer)
class _Check:
    """Passes on what is written to it, but for the last piece, and looks at everything.

    :ivar running: what hashes it, if that has to be.
    :ivar fingerprint: what makes its code, if it is large.
    """

    def __init__(
        self, consumer: IConsumer, running: _Hash | None, fingerprint: Fingerprint | None
    ) -> None:
        self._consumer = consumer
        self.running = running
        self.fingerprint = fingerprint
        self._held = b""

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:  # noqa: FBT001
        """Let the consumer pause the reader."""
        self._consumer.registerProducer(cast("Any", producer), streaming)

    def unregisterProducer(self) -> None:
        """Let the reader go."""
        self._consumer.unregisterProducer()

    def write(self, data: bytes) -> None:
        """Take a piece, and pass on the one before it."""
        if self.running is not None:
            self.running.update(data)
        if self.fingerprint is not None:
            self.fingerprint.update(data)
        held, self._held = self._held, data
        if held:
            self._consumer.write(held)

    def release(self) -> None:
        """Pass on the last piece."""
        if self._held:
            self._consumer.write(self._held)


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
