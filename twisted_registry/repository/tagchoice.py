"""Tags that patterns choose, in repositories that patterns choose; and those that never move."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from twisted_registry.errors import ErrorCode, RegistryError
from twisted_registry.globs import GlobSet, Glob

if TYPE_CHECKING:
    from collections.abc import Iterable


@frozen
class TagSelector:
    """Some tags of some repositories."""

    repositories: GlobSet
    tags: GlobSet

    @classmethod
    def parse(cls, repositories: Iterable[str], tags: Iterable[str]) -> TagSelector:
        """Read two lists of patterns.

        :raises GlobInvalid: with the first that is none.
        """
        return cls(GlobSet.parse(repositories), GlobSet.parse(tags, Glob.parse_tag))

    def matches(self, name: str, tag: str) -> bool:
        """Whether a tag of a repository is one of them."""
        return name in self.repositories and tag in self.tags


def immutable_error(tag: str) -> RegistryError:
    """The answer to whoever would move or delete a tag that stays as it is."""
    return RegistryError(
        ErrorCode.DENIED, message="this tag is immutable here", detail={"tag": tag}
    )
