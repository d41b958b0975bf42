"""What is known of a digest, whoever holds it: how large its content is.

That never changes, so it may be remembered anywhere and for ever. Nothing here says that any
repository holds the content, or that the store does: pushes, HEAD and mounts ask the store, and a
pull asks it for the link. What is saved is the second question of a pull.
"""

# zope's methods have no self, and their bodies are their docstrings.
# ruff: noqa: N805
# mypy: disable-error-code="empty-body"

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, succeed
from zope.interface import Interface, implementer

if TYPE_CHECKING:
    from twisted_registry.digest import Digest


class IDescriptorCache(Interface):
    """Remembers sizes. It never fails: what it can not tell, it does not know."""

    def size(digest: Digest) -> Deferred[int | None]:
        """Fire with the bytes that the content of a digest has, or None if that is not known."""

    def remember_size(digest: Digest, size: int) -> None:
        """Remember the size of the content of a digest."""

    def close() -> Deferred[None]:
        """Free connections."""


@implementer(IDescriptorCache)
class NullDescriptorCache:
    """Remembers nothing."""

    def size(self, digest: Digest) -> Deferred[int | None]:  # noqa: ARG002
        """Nothing is known."""
        return succeed(None)

    def remember_size(self, digest: Digest, size: int) -> None:
        """Forget."""

    def close(self) -> Deferred[None]:
        """Nothing is held."""
        return succeed(None)


@implementer(IDescriptorCache)
class MemoryDescriptorCache:
    """Remembers in this process (``storage.cache.blobdescriptor: inmemory``).

    :ivar limit: how many; the one longest unused is dropped. 0 is no limit.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._sizes: OrderedDict[Digest, int] = OrderedDict()

    def size(self, digest: Digest) -> Deferred[int | None]:
        """Fire at once."""
        size = self._sizes.get(digest)
        if size is not None:
            self._sizes.move_to_end(digest)
        return succeed(size)

    def remember_size(self, digest: Digest, size: int) -> None:
        """Remember."""
        self._sizes[digest] = size
        self._sizes.move_to_end(digest)
        if self.limit and len(self._sizes) > self.limit:
            self._sizes.popitem(last=False)

    def close(self) -> Deferred[None]:
        """Nothing is held."""
        return succeed(None)
