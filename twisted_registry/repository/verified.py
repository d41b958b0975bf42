"""Bytes of a blob from afar, compared with their digest while they pass.

Whoever pulls compares the digest, too, but not everybody does, and nobody who only looks at the
length can tell a spoiled blob from a good one. So the last bytes are kept back until all were
looked at: a client gets a whole answer, or one that is shorter than was announced.

A large blob is hashed when it first passes through this process. Then its fingerprint is known,
which takes much less time to compare.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from twisted.internet.interfaces import IConsumer
from twisted.logger import Logger
from zope.interface import implementer

from twisted_registry.digest import hasher
from twisted_registry.repository import layout
from twisted_registry.storage.interfaces import StorageError
from twisted_registry.storage.streams import IReader

if TYPE_CHECKING:
    from collections.abc import Callable
    from hashlib import _Hash

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IProducer

    from twisted_registry.digest import Digest
    from twisted_registry.repository.fingerprints import Fingerprint, Fingerprints

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

    def fileno(self) -> int | None:
        """Return None: a copy by the kernel would not be seen."""
        return None

    def offset(self) -> int:
        """Return where the blob begins."""
        return self._reader.offset()

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
