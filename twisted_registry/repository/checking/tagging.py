"""Tags: what each names, what it named, and whether that can be pulled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, evolve

from twisted_registry.digest import ALGORITHMS, Digest
from twisted_registry.repository import layout
from twisted_registry.repository.checking.damage import Finding, FindingKind, Severity
from twisted_registry.repository.checking.placing import ClassifiedPath, FileRole
from twisted_registry.repository.checking.trouble import AffectedTag, RepositoryFindings
from twisted_registry.repository.checking.walking import list_folder
from twisted_registry.repository.links import read_link, write_link

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from twisted_registry.repository.checking.links import LinkCheck

#: Bytes of a manifest.
_MAX_MANIFEST_BYTES = 64 * 1024 * 1024


@define(eq=False)
class TagCheck:
    """The tags of one repository.

    :ivar affected: told of each that can not be pulled whole.
    """

    links: LinkCheck
    state: RepositoryFindings
    affected: Callable[[AffectedTag], object]

    async def findings(self, places: Sequence[ClassifiedPath]) -> AsyncIterator[Finding]:
        """Yield what is wrong with some links of tags, which come in the order of their paths."""
        read = await self.links.read(places)
        named = [held if isinstance(held, Digest) else None for held in read]
        wanted = [digest for digest in named if digest is not None]
        paths = [layout.revision_link(self.state.name, digest) for digest in wanted]
        answers = dict(zip(wanted, await self.links.check_targets(paths, wanted), strict=True))
        for place, held in zip(places, read, strict=True):
            there = isinstance(held, Digest) and answers[held]
            if place.role is FileRole.TAG:
                self.state.tag = place.tag
                finding = await self._tag(place, held, there=there)
            else:
                if place.tag not in {self.state.tag, self.state.unfinished}:
                    self.state.unfinished = place.tag
                    yield self._without_link(place)
                finding = await self._index(place, held, there=there)
            if finding is not None:
                yield finding

    async def _tag(
        self, place: ClassifiedPath, held: Digest | Finding | None, *, there: bool
    ) -> Finding | None:
        if held is None:
            return None
        if isinstance(held, Finding):
            self.affected(AffectedTag(place.repository, place.tag, (), place.path))
            return evolve(held, repair=lambda: self._restore_from_index(place))
        causes = self.state.causes(held) or (() if there else (held,))
        if not causes:
            return None
        self.state.tagged.add(held)
        link = "" if there else place.path
        self.affected(AffectedTag(place.repository, place.tag, causes, link))
        if there:
            return None
        return Finding(
            FindingKind.LINK_DANGLING, place.path, "tag, the repository does not hold it", held,
            place.repository, repair=lambda: self._link_manifest(held), blocked_digest=held,
        )  # fmt: skip

    async def _index(
        self, place: ClassifiedPath, held: Digest | Finding | None, *, there: bool
    ) -> Finding | None:
        digest = place.digest
        assert digest is not None
        holds = self.state.manifest_lookup(self.links)
        if isinstance(held, Finding):
            return await self.links.with_link_repair(held, place, lambda: holds(digest))
        if held is None or there or not await self.links.is_there(place):
            return None
        return self.links.dangling(
            place, "the repository does not hold it", lambda: holds(digest), Severity.HARMLESS
        )

    def _without_link(self, place: ClassifiedPath) -> Finding:
        folder = layout.tag(place.repository, place.tag)
        return Finding(
            FindingKind.TAG_UNFINISHED, folder, "it has no current/link", repository=place.repository
        )

    async def _link_manifest(self, digest: Digest) -> bool:
        """Let the repository hold a manifest that a tag of its names, if its bytes are there."""
        if not await self.links.has_bytes(digest):
            return False
        content = await self.links.driver.get(layout.blob(digest), _MAX_MANIFEST_BYTES)
        if digest.matches(content):
            path = layout.revision_link(self.state.name, digest)
            await write_link(self.links.driver, path, digest)
            return True
        return False

    async def _restore_from_index(self, place: ClassifiedPath) -> bool:
        """Let a tag name again what it named, if it never named anything else."""
        folder = f"{layout.tag(place.repository, place.tag)}/index"
        named = [
            Digest(algorithm, entry.path)
            for algorithm in ALGORITHMS
            for entry in await list_folder(self.links.driver, f"{folder}/{algorithm}")
        ]
        if len(named) != 1 or not await self.state.manifest_lookup(self.links)(named[0]):
            return False
        release = await self.links.driver.lock(f"{place.repository}:{place.tag}")
        try:
            if await read_link(self.links.driver, place.path) is not None:
                return False
            await write_link(self.links.driver, place.path, named[0])
        finally:
            if release is not None:
                release()
        return True
