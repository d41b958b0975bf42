"""What is kept of one change of a tag: what it named before, and what it named then.

A text file of two lines, the later one first, each a digest, or ``-`` for no tag. Both are there,
so that one record that is left tells the state on both of its sides.
"""

from __future__ import annotations

from attrs import frozen

from twisted_registry.digest import Digest, DigestInvalid

_NOTHING = "-"


@frozen
class TagChangeRecord:
    """One change.

    :ivar now: what the tag named from then on; None if it was removed.
    :ivar before: what it named until then; None if there was none.
    """

    now: Digest | None
    before: Digest | None

    def to_bytes(self) -> bytes:
        """The content of the file."""
        return f"{self.now or _NOTHING}\n{self.before or _NOTHING}\n".encode("ascii")

    @classmethod
    def from_bytes(cls, content: bytes) -> TagChangeRecord | None:
        """Read the file; None if it is torn."""
        try:
            now, before, rest = content.decode("ascii").split("\n")
            return None if rest else cls(_parse(now), _parse(before))
        except (ValueError, DigestInvalid):
            return None


def _parse(text: str) -> Digest | None:
    return None if text == _NOTHING else Digest.parse(text)
