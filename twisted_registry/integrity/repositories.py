"""Check the repositories of a store: links, manifests, tags and referrers."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from attrs import define, evolve, field

from twisted_registry.integrity.affected import AffectedTag, RepositoryFindings
from twisted_registry.integrity.findings import Finding, FindingKind, Severity
from twisted_registry.integrity.links import ClassifiedPath, FileRole, classify_path
from twisted_registry.integrity.walk import list_folder, walk_files
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

#: Bytes that are read of a manifest.
_MAX_MANIFEST_BYTES = 64 * 1024 * 1024
#: Manifests that are checked at once.
_MANIFESTS_AT_ONCE = 64


@define(eq=False)
class TagCheck:
    """Checks the tags of one repository.

    :ivar affected: called with each tag that cannot be pulled completely.
    """

    links: LinkCheck
    state: RepositoryFindings
    affected: Callable[[AffectedTag], object]

    async def findings(self, files: Sequence[ClassifiedPath]) -> AsyncIterator[Finding]:
        """Yield what is wrong with some links of tags, given in the order of their paths."""
        read = await self.links.read(files)
        named = [held if isinstance(held, Digest) else None for held in read]
        wanted = [digest for digest in named if digest is not None]
        paths = [layout.revision_link(self.state.name, digest) for digest in wanted]
        answers = dict(zip(wanted, await self.links.check_targets(paths, wanted), strict=True))
        for file, held in zip(files, read, strict=True):
            there = isinstance(held, Digest) and answers[held]
            if file.role is FileRole.TAG:
                self.state.tag = file.tag
                finding = await self._tag(file, held, there=there)
            else:
                if file.tag not in {self.state.tag, self.state.unfinished}:
                    self.state.unfinished = file.tag
                    yield self._without_link(file)
                finding = await self._index(file, held, there=there)
            if finding is not None:
                yield finding

    async def _tag(
        self, file: ClassifiedPath, held: Digest | Finding | None, *, there: bool
    ) -> Finding | None:
        if held is None:
            return None
        if isinstance(held, Finding):
            self.affected(AffectedTag(file.repository, file.tag, (), file.path))
            return evolve(held, repair=lambda: self._restore_from_index(file))
        causes = self.state.causes(held) or (() if there else (held,))
        if not causes:
            return None
        self.state.tagged.add(held)
        link = "" if there else file.path
        self.affected(AffectedTag(file.repository, file.tag, causes, link))
        if there:
            return None
        return Finding(
            FindingKind.LINK_DANGLING, file.path, "tag, the repository does not hold it", held,
            file.repository, repair=lambda: self._link_manifest(held), blocked_digest=held,
        )  # fmt: skip

    async def _index(
        self, file: ClassifiedPath, held: Digest | Finding | None, *, there: bool
    ) -> Finding | None:
        digest = file.digest
        assert digest is not None
        holds = self.state.manifest_lookup(self.links)
        if isinstance(held, Finding):
            return await self.links.with_link_repair(held, file, lambda: holds(digest))
        if held is None or there or not await self.links.is_there(file):
            return None
        return self.links.dangling(
            file, "the repository does not hold it", lambda: holds(digest), Severity.HARMLESS
        )

    def _without_link(self, file: ClassifiedPath) -> Finding:
        folder = layout.tag_folder(file.repository, file.tag)
        return Finding(
            FindingKind.TAG_UNFINISHED,
            folder,
            "it has no current/link",
            repository=file.repository,
        )

    async def _link_manifest(self, digest: Digest) -> bool:
        """Link a manifest that a tag names into the repository, if it is stored intact."""
        if not await self.links.has_bytes(digest):
            return False
        content = await self.links.driver.get(layout.blob_data(digest), _MAX_MANIFEST_BYTES)
        if digest.matches(content):
            path = layout.revision_link(self.state.name, digest)
            await write_link(self.links.driver, path, digest)
            return True
        return False

    async def _restore_from_index(self, file: ClassifiedPath) -> bool:
        """Point a tag to the only manifest in its index, if there is exactly one."""
        folder = f"{layout.tag_folder(file.repository, file.tag)}/index"
        named = [
            Digest(algorithm, entry.path)
            for algorithm in ALGORITHMS
            for entry in await list_folder(self.links.driver, f"{folder}/{algorithm}")
        ]
        if len(named) != 1 or not await self.state.manifest_lookup(self.links)(named[0]):
            return False
        release = await host_lock(self.links.driver).lock(f"{file.repository}:{file.tag}")
        try:
            if await read_link(self.links.driver, file.path) is not None:
                return False
            await write_link(self.links.driver, file.path, named[0])
        finally:
            release()
        return True


@define(eq=False)
class RepositoryCheck:
    """Checks the repositories of a store, one after the other.

    :ivar repository_started: called with the name of each.
    :ivar affected: called with each tag that cannot be pulled completely.
    """

    links: LinkCheck
    manifest_check: ManifestCheck
    inventory: Inventory
    repository_started: Callable[[str], object]
    affected: Callable[[AffectedTag], object]
    _state: RepositoryFindings | None = field(init=False, default=None)

    async def findings(self) -> AsyncIterator[Finding]:
        """Yield what is wrong. A repair that is done before the next step is taken into account."""
        async for page in walk_files(self.links.driver, layout.REPOSITORIES):
            if isinstance(page, Finding):
                yield page
                continue
            async for finding in self._page(page):
                yield finding
        async for finding in self._finish_repository():
            yield finding

    async def _page(self, page: Sequence[Entry]) -> AsyncIterator[Finding]:
        """Check a page of files; those of one repository follow each other in the listing."""
        files = []
        for entry in page:
            file = classify_path(entry.path)
            if file is None:
                yield Finding(FindingKind.FILE_STRAY, entry.path, "nothing reads it there")
            else:
                files.append(file)
        for name, of_one in groupby(files, lambda file: file.repository):
            if self._state is None or self._state.name != name:
                async for finding in self._finish_repository():
                    yield finding
                self._state = RepositoryFindings(name)
                self.repository_started(name)
            for role, group in groupby(of_one, _group_role):
                async for finding in self._group(self._state, role, list(group)):
                    yield finding

    async def _group(
        self, state: RepositoryFindings, role: FileRole, files: Sequence[ClassifiedPath]
    ) -> AsyncIterator[Finding]:
        if role is FileRole.LAYER:
            found = self._layers(state, files)
        elif role is FileRole.REVISION:
            state.has_manifests = True
            found = self._revisions(state, files)
        elif role is FileRole.TAG:
            state.has_manifests = True
            if not state.is_propagated:
                await state.propagate_to_indexes(self.inventory)
            found = TagCheck(self.links, state, self.affected).findings(files)
        elif role is FileRole.REFERRER:
            found = self._referrers(state, files)
        else:
            return
        async for finding in found:
            yield finding

    async def _layers(
        self, state: RepositoryFindings, files: Sequence[ClassifiedPath]
    ) -> AsyncIterator[Finding]:
        read = await self.links.read(files)
        sizes = await self.manifest_check.sizes.of(
            [digest for digest in read if digest is not None and not isinstance(digest, Finding)]
        )
        for file, held in zip(files, read, strict=True):
            assert file.digest is not None
            target = _bind_digest(self.links.has_bytes, file.digest)
            if isinstance(held, Finding):
                yield await self.links.with_link_repair(held, file, target)
            elif (
                held is not None
                and sizes[held] is None
                and held not in self.manifest_check.corrupt
                and await self.links.is_there(file)
            ):
                state.dangling.append(held)

    async def _revisions(
        self, state: RepositoryFindings, files: Sequence[ClassifiedPath]
    ) -> AsyncIterator[Finding]:
        for file in files:
            if file.role is FileRole.MEDIA_TYPE:
                finding = await self._media_type(file)
                if finding is not None:
                    yield finding
        files = [file for file in files if file.role is FileRole.REVISION]
        whole = []
        for file, held in zip(files, await self.links.read(files), strict=True):
            assert file.digest is not None
            if isinstance(held, Finding):
                target = _bind_digest(self.links.has_bytes, file.digest)
                yield await self.links.with_link_repair(held, file, target)
            if held is not None and file.digest in self.manifest_check.corrupt:
                state.add_cause(file.digest, file.digest)
            elif held is not None:
                whole.append(file)
        for start in range(0, len(whole), _MANIFESTS_AT_ONCE):
            async for finding in self._manifests(state, whole[start : start + _MANIFESTS_AT_ONCE]):
                yield finding

    async def _manifests(
        self, state: RepositoryFindings, files: Sequence[ClassifiedPath]
    ) -> AsyncIterator[Finding]:
        for file in files:
            digest = file.digest
            assert digest is not None
            try:
                content = await self.links.driver.get(layout.blob_data(digest), _MAX_MANIFEST_BYTES)
            except PathNotFound:
                if await self.links.is_there(file):
                    state.add_lost_manifest(digest)
                continue
            except StorageError as error:
                state.add_cause(digest, digest)
                yield Finding(
                    FindingKind.FILE_UNREADABLE, layout.blob_data(digest), error.reason, digest
                )
                continue
            async for finding, part in self.manifest_check.examine(state.name, digest, content):
                if finding is None or finding.severity is Severity.DAMAGE:
                    state.add_cause(digest, part)
                if finding is not None:
                    yield finding

    async def _media_type(self, file: ClassifiedPath) -> Finding | None:
        try:
            content = await self.links.driver.get(file.path, _MAX_MANIFEST_BYTES)
        except PathNotFound:
            return None
        except StorageError as error:
            return Finding(
                FindingKind.FILE_UNREADABLE,
                file.path,
                error.reason,
                file.digest,
                file.repository,
            )
        if is_media_type(content.decode("ascii", "replace")):
            return None

        async def repair() -> bool:
            return await self.links.quarantine.isolate(file.path)

        return Finding(
            FindingKind.TYPE_MALFORMED, file.path, "", file.digest, file.repository,
            repair=repair, blocked_digest=file.digest,
        )  # fmt: skip

    async def _referrers(
        self, state: RepositoryFindings, files: Sequence[ClassifiedPath]
    ) -> AsyncIterator[Finding]:
        for file, held in zip(files, await self.links.read(files), strict=True):
            assert file.digest is not None
            target = _bind_digest(state.manifest_lookup(self.links), file.digest)
            if isinstance(held, Finding):
                yield await self.links.with_link_repair(held, file, target)
            elif held is not None and not await target() and await self.links.is_there(file):
                yield self.links.dangling(
                    file, "the repository does not hold it", target, Severity.HARMLESS
                )

    async def _finish_repository(self) -> AsyncIterator[Finding]:
        """Yield the findings that need the whole repository."""
        state, self._state = self._state, None
        if state is None:
            return
        all_causes = state.all_causes() if state.dangling else set()
        for digest in state.dangling:
            path = layout.layer_link(state.name, digest)
            finding = self._dangling_link(ClassifiedPath(FileRole.LAYER, path, state.name, digest))
            # A manifest needs it: the next push of the blob, to any repository, repairs it.
            yield finding.without_repair() if digest in all_causes else finding
        for digest in sorted(state.lost):
            path = layout.revision_link(state.name, digest)
            finding = self._dangling_link(
                ClassifiedPath(FileRole.REVISION, path, state.name, digest)
            )
            # A tag names it: the tag is reported until it is pushed or deleted.
            yield finding.without_repair() if digest in state.tagged else finding
        if state.has_manifests:
            unmarked = await self._unmarked(state.name)
            if unmarked is not None:
                yield unmarked

    def _dangling_link(self, file: ClassifiedPath) -> Finding:
        assert file.digest is not None
        target = _bind_digest(self.links.has_bytes, file.digest)
        return self.links.dangling(file, "its bytes are not in the store", target)

    async def _unmarked(self, name: str) -> Finding | None:
        try:
            await self.links.driver.stat(layout.layers_folder(name))
        except PathNotFound:
            pass
        else:
            return None

        async def repair() -> bool:
            await self.links.driver.put(layout.layers_marker(name), b"")
            return True

        return Finding(
            FindingKind.REPOSITORY_UNMARKED, layout.repository_folder(name),
            "without _layers Distribution does not list it", repository=name, repair=repair,
        )  # fmt: skip


def _bind_digest(
    question: Callable[[Digest], Awaitable[bool]], digest: Digest
) -> Callable[[], Awaitable[bool]]:
    return lambda: question(digest)


def _group_role(file: ClassifiedPath) -> FileRole:
    """Return the role under which a file is checked: files of a revision or tag belong together."""
    if file.role is FileRole.MEDIA_TYPE:
        return FileRole.REVISION
    return FileRole.TAG if file.role is FileRole.TAG_INDEX else file.role
