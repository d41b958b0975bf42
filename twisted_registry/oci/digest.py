"""Content digests, ``algorithm:hex``.

Grammar (OCI image specification, descriptor.md, "Digests")::

    digest    ::= algorithm ":" encoded
    algorithm ::= component (separator component)*
    component ::= [a-z0-9]+
    separator ::= [+._-]
    encoded   ::= [a-zA-Z0-9=_-]+

Only algorithms that Python's hashlib computes are supported; each fixes the length of its
lower-case hexadecimal form.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from hashlib import _Hash

#: algorithm -> number of hexadecimal digits. sha384 is not registered by OCI, but Distribution
#: accepts it, so that its stores may contain such blobs.
ALGORITHMS = {"sha256": 64, "sha384": 96, "sha512": 128}
CANONICAL = "sha256"

_GRAMMAR = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+", re.ASCII)
_HEX = re.compile(r"[0-9a-f]+", re.ASCII)


class DigestInvalid(ValueError):
    """The text is not a digest, or its algorithm is not supported."""


@frozen(order=True, cache_hash=True)
class Digest:
    """A valid digest.

    :ivar algorithm: ``sha256``, ``sha384`` or ``sha512``.
    :ivar hex: lower-case hexadecimal digits, of the length that the algorithm has.
    """

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Parse ``algorithm:hex``.

        :raises DigestInvalid: with the reason.
        """
        algorithm, _, encoded = text.partition(":")
        length = ALGORITHMS.get(algorithm)
        if len(encoded) == length and _HEX.fullmatch(encoded):
            return cls(algorithm, encoded)
        if not _GRAMMAR.fullmatch(text):
            raise DigestInvalid("not of the form algorithm:hex")
        if length is None:
            raise DigestInvalid(f"algorithm must be one of {', '.join(ALGORITHMS)}")
        raise DigestInvalid(f"{algorithm} needs {length} lower-case hexadecimal digits")

    @classmethod
    def of(cls, content: bytes, algorithm: str = CANONICAL) -> Digest:
        """Compute the digest of ``content``."""
        return cls(algorithm, hashlib.new(algorithm, content).hexdigest())

    @classmethod
    def from_hasher(cls, hasher: _Hash) -> Digest:
        """Return the current digest of a hasher from :func:`hasher`."""
        return cls(hasher.name, hasher.hexdigest())

    @property
    def is_of_empty_content(self) -> bool:
        """Whether this is the digest of zero bytes."""
        return self.hex == _EMPTY_HEX[self.algorithm]

    def matches(self, content: bytes) -> bool:
        """Whether ``content`` has this digest."""
        return hashlib.new(self.algorithm, content).hexdigest() == self.hex

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


def hasher(algorithm: str) -> _Hash:
    """Return a hash object without data.

    :param algorithm: a key of :data:`ALGORITHMS`.
    :raises DigestInvalid: for any other algorithm.
    """
    if algorithm not in ALGORITHMS:
        raise DigestInvalid(f"algorithm must be one of {', '.join(ALGORITHMS)}")
    return hashlib.new(algorithm)


_EMPTY_HEX = {algorithm: hashlib.new(algorithm).hexdigest() for algorithm in ALGORITHMS}
