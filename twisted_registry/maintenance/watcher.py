"""Who hears what a collection does."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted_registry.digest import Digest


class CollectorObserver:
    """Hears what a run does; this one does nothing."""

    def repository_started(self, name: str) -> None:
        """A repository is looked through."""

    def manifest_kept(self, name: str, digest: Digest) -> None:
        """A manifest of it is kept."""

    def eligible(self, manifests: Sequence[tuple[str, Digest]], blobs: Sequence[Digest]) -> None:
        """These may go."""

    def removed(self, done: int, total: int) -> None:
        """So many of them were dealt with."""
