"""Every link of every repository, and what each manifest needs.

Tags: what each names, what it named, and whether that can be pulled.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from attrs import define, evolve, field

from twisted_registry.integrity.affected import AffectedTag, RepositoryFindings
from twisted_registry.integrity.blobs import list_folder, walk_files
from twisted_registry.integrity.findings import Finding, FindingKind, Severity
from twisted_registry.integrity.links import ClassifiedPath, FileRole, classify_path
from twisted_registry.oci.digest import ALGORITHMS, Digest
from twisted_registry.oci.manifest import is_media_type
from twisted_registry.repository import layout
from twisted_registry.repository.links import read_link, write_link
from twisted_registry.storage.fallbacks import host_lock
from twisted_registry.storage.interfaces import PathNotFound, StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from twisted_registry.integrity.links import LinkCheck
    from twisted_registry.integrity.manifests import ManifestCheck
    from twisted_registry.repository.inventory import Inventory
    from twisted_registry.storage.interfaces import Entry

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
            FindingKind.TAG_UNFINISHED,
            folder,
            "it has no current/link",
            repository=place.repository,
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
        release = await host_lock(self.links.driver).lock(f"{place.repository}:{place.tag}")
        try:
            if await read_link(self.links.driver, place.path) is not None:
                return False
            await write_link(self.links.driver, place.path, named[0])
        finally:
            release()
        return True


#: Manifests that are read at once, and bytes of one.
_MANIFESTS_AT_ONCE = 64


@define(eq=False)
class RepositoryCheck:
    """The repositories of a store, one after the other.

    :ivar entering: told the name of each.
    :ivar affected: told of each tag that can not be pulled whole.
    """

    links: LinkCheck
    manifest_check: ManifestCheck
    inventory: Inventory
    repository_started: Callable[[str], object]
    affected: Callable[[AffectedTag], object]
    _state: RepositoryFindings | None = field(init=False, default=None)

    async def findings(self) -> AsyncIterator[Finding]:
        """Yield all that is wrong. What is repaired before the next is asked for is seen so."""
        async for page in walk_files(self.links.driver, layout.REPOSITORIES):
            if isinstance(page, Finding):
                yield page
                continue
            async for finding in self._page(page):
                yield finding
        async for finding in self._finish_repository():
            yield finding

    async def _page(self, page: Sequence[Entry]) -> AsyncIterator[Finding]:
        """The files of a repository lie together: its own names alone begin with ``_``."""
        places = []
        for entry in page:
            place = classify_path(entry.path)
            if place is None:
                yield Finding(FindingKind.FILE_STRAY, entry.path, "nothing looks for it there")
            else:
                places.append(place)
        for name, of_one in groupby(places, lambda place: place.repository):
            if self._state is None or self._state.name != name:
                async for finding in self._finish_repository():
                    yield finding
                self._state = RepositoryFindings(name)
                self.repository_started(name)
            for role, group in groupby(of_one, _group_role):
                async for finding in self._group(self._state, role, list(group)):
                    yield finding

    async def _group(
        self, state: RepositoryFindings, role: FileRole, places: Sequence[ClassifiedPath]
    ) -> AsyncIterator[Finding]:
        if role is FileRole.LAYER:
            found = self._layers(state, places)
        elif role is FileRole.REVISION:
            state.has_manifests = True
            found = self._revisions(state, places)
        elif role is FileRole.TAG:
            state.has_manifests = True
            if not state.is_propagated:
                await state.propagate_to_indexes(self.inventory)
            found = TagCheck(self.links, state, self.affected).findings(places)
        elif role is FileRole.REFERRER:
            found = self._referrers(state, places)
        else:
            return
        async for finding in found:
            yield finding

    async def _layers(
        self, state: RepositoryFindings, places: Sequence[ClassifiedPath]
    ) -> AsyncIterator[Finding]:
        read = await self.links.read(places)
        sizes = await self.manifest_check.sizes.of(
            [digest for digest in read if digest is not None and not isinstance(digest, Finding)]
        )
        for place, held in zip(places, read, strict=True):
            assert place.digest is not None
            target = _bind_digest(self.links.has_bytes, place.digest)
            if isinstance(held, Finding):
                yield await self.links.with_link_repair(held, place, target)
            elif (
                held is not None
                and sizes[held] is None
                and held not in self.manifest_check.corrupt
                and await self.links.is_there(place)
            ):
                state.dangling.append(held)

    async def _revisions(
        self, state: RepositoryFindings, places: Sequence[ClassifiedPath]
    ) -> AsyncIterator[Finding]:
        for place in places:
            if place.role is FileRole.MEDIA_TYPE:
                finding = await self._media_type(place)
                if finding is not None:
                    yield finding
        places = [place for place in places if place.role is FileRole.REVISION]
        whole = []
        for place, held in zip(places, await self.links.read(places), strict=True):
            assert place.digest is not None
            if isinstance(held, Finding):
                target = _bind_digest(self.links.has_bytes, place.digest)
                yield await self.links.with_link_repair(held, place, target)
            if held is not None and place.digest in self.manifest_check.corrupt:
                state.add_cause(place.digest, place.digest)
            elif held is not None:
                whole.append(place)
        for start in range(0, len(whole), _MANIFESTS_AT_ONCE):
            async for finding in self._manifests(state, whole[start : start + _MANIFESTS_AT_ONCE]):
                yield finding

    async def _manifests(
        self, state: RepositoryFindings, places: Sequence[ClassifiedPath]
    ) -> AsyncIterator[Finding]:
        for place in places:
            digest = place.digest
            assert digest is not None
            try:
                content = await self.links.driver.get(layout.blob(digest), _MAX_MANIFEST_BYTES)
            except PathNotFound:
                if await self.links.is_there(place):
                    state.add_lost_manifest(digest)
                continue
            except StorageError as error:
                state.add_cause(digest, digest)
                yield Finding(
                    FindingKind.FILE_UNREADABLE, layout.blob(digest), error.reason, digest
                )
                continue
            async for finding, part in self.manifest_check.examine(state.name, digest, content):
                if finding is None or finding.severity is Severity.DAMAGE:
                    state.add_cause(digest, part)
                if finding is not None:
                    yield finding

    async def _media_type(self, place: ClassifiedPath) -> Finding | None:
        try:
            content = await self.links.driver.get(place.path, _MAX_MANIFEST_BYTES)
        except PathNotFound:
            return None
        except StorageError as error:
            return Finding(
                FindingKind.FILE_UNREADABLE,
                place.path,
                error.reason,
                place.digest,
                place.repository,
            )
        if is_media_type(content.decode("ascii", "replace")):
            return None

        async def repair() -> bool:
            return await self.links.quarantine.isolate(place.path)

        return Finding(
            FindingKind.TYPE_MALFORMED, place.path, "", place.digest, place.repository,
            repair=repair, blocked_digest=place.digest,
        )  # fmt: skip

    async def _referrers(
        self, state: RepositoryFindings, places: Sequence[ClassifiedPath]
    ) -> AsyncIterator[Finding]:
        for place, held in zip(places, await self.links.read(places), strict=True):
            assert place.digest is not None
            target = _bind_digest(state.manifest_lookup(self.links), place.digest)
            if isinstance(held, Finding):
                yield await self.links.with_link_repair(held, place, target)
            elif held is not None and not await target() and await self.links.is_there(place):
                yield self.links.dangling(
                    place, "the repository does not hold it", target, Severity.HARMLESS
                )

    async def _finish_repository(self) -> AsyncIterator[Finding]:
        """What is only known when a repository is through."""
        state, self._state = self._state, None
        if state is None:
            return
        all_causes = state.all_causes() if state.dangling else set()
        for digest in state.dangling:
            path = layout.layer_link(state.name, digest)
            finding = self._leads_nowhere(ClassifiedPath(FileRole.LAYER, path, state.name, digest))
            # Pushed to any repository, it is here again for the manifests that need it.
            yield finding.without_repair() if digest in all_causes else finding
        for digest in sorted(state.lost):
            path = layout.revision_link(state.name, digest)
            finding = self._leads_nowhere(
                ClassifiedPath(FileRole.REVISION, path, state.name, digest)
            )
            # A tag that names it goes on being reported until somebody pushes or deletes it.
            yield finding.without_repair() if digest in state.tagged else finding
        if state.has_manifests:
            unmarked = await self._unmarked(state.name)
            if unmarked is not None:
                yield unmarked

    def _leads_nowhere(self, place: ClassifiedPath) -> Finding:
        assert place.digest is not None
        target = _bind_digest(self.links.has_bytes, place.digest)
        return self.links.dangling(place, "its bytes are not in the store", target)

    async def _unmarked(self, name: str) -> Finding | None:
        try:
            await self.links.driver.stat(layout.layers(name))
        except PathNotFound:
            pass
        else:
            return None

        async def repair() -> bool:
            await self.links.driver.put(layout.layers_marker(name), b"")
            return True

        return Finding(
            FindingKind.REPOSITORY_UNMARKED, layout.repository(name),
            "without _layers Distribution does not list it", repository=name, repair=repair,
        )  # fmt: skip


def _bind_digest(
    question: Callable[[Digest], Awaitable[bool]], digest: Digest
) -> Callable[[], Awaitable[bool]]:
    return lambda: question(digest)


def _group_role(place: ClassifiedPath) -> FileRole:
    """What is looked at in one go: the files of a revision, and those of a tag, alternate."""
    if place.role is FileRole.MEDIA_TYPE:
        return FileRole.REVISION
    return FileRole.TAG if place.role is FileRole.TAG_INDEX else place.role
