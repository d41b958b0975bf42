"""Check the repositories of a store: links, manifests, tags and referrers."""

from __future__ import annotations

from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING

from attrs import define, evolve, field

from twisted_registry.integrity.affected import AffectedTag, RepositoryFindings
from twisted_registry.integrity.findings import Finding, FindingKind, Severity
from twisted_registry.integrity.links import ClassifiedPath, FileRole, classify_path
from twisted_registry.integrity.walk import walk_files
from twisted_registry.oci.digest import ALGORITHMS, Digest
from twisted_registry.oci.media_types import is_media_type
from twisted_registry.repository import layout
from twisted_registry.repository.inventory import list_folder
from twisted_registry.repository.links import read_link, write_link
from twisted_registry.storage.fallbacks import host_lock
from twisted_registry.storage.interfaces import PathNotFound, StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from twisted_registry.integrity.links import LinkCheck
    from twisted_registry.integrity.manifests import ManifestCheck
    from twisted_registry.repository.inventory import Inventory
    from twisted_registry.storage.interfaces import Entry


@define(eq=False)
class TagCheck:
    """Checks the tags of one repository.

    :ivar affected: called with each tag that cannot be pulled completely.
    """

    links: LinkCheck
    state: RepositoryFindings
    affected: Callable[[AffectedTag], object]

    async def findings(self, files: Sequence[ClassifiedPath]) -> AsyncIterator[Finding]:
        """Yield the findings of some links of tags, given in the order of their paths."""
        read = await self.links.read(files)
        wanted = [held for _, held in read if isinstance(held, Digest)]
        paths = [layout.revision_link(self.state.name, digest) for digest in wanted]
        answers = dict(zip(wanted, await self.links.check_targets(paths, wanted), strict=True))
        for file, held in read:
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
            return evolve(held, repair=partial(self._restore_from_index, file))
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
            file.repository, repair=partial(self._link_manifest, held), blocked_digest=held,
        )  # fmt: skip

    async def _index(
        self, file: ClassifiedPath, held: Digest | Finding | None, *, there: bool
    ) -> Finding | None:
        holds = partial(self.links.holds_manifest, file.repository)
        if isinstance(held, Finding):
            return await self.links.with_link_repair(held, file, holds)
        if held is None or there or not await self.links.is_there(file):
            return None
        return self.links.dangling(
            file, "the repository does not hold it", holds, Severity.HARMLESS
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
        content = await self.links.driver.get(
            layout.blob_data(digest), layout.MAX_MANIFEST_READ_BYTES
        )
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
        if len(named) != 1 or not await self.links.holds_manifest(file.repository, named[0]):
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
        """Yield the findings. A repair that is done before the next step is taken into account."""
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
            [held for _, held in read if isinstance(held, Digest)]
        )
        for file, held in read:
            if isinstance(held, Finding):
                yield await self.links.with_link_repair(held, file, self.links.has_bytes)
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
        whole = []
        links = [file for file in files if file.role is FileRole.REVISION]
        for file, held in await self.links.read(links):
            assert file.digest is not None
            if isinstance(held, Finding):
                yield await self.links.with_link_repair(held, file, self.links.has_bytes)
            if held is not None and file.digest in self.manifest_check.corrupt:
                state.add_cause(file.digest, file.digest)
            elif held is not None:
                whole.append(file)
        for file in whole:
            async for finding in self._manifest(state, file):
                yield finding

    async def _manifest(
        self, state: RepositoryFindings, file: ClassifiedPath
    ) -> AsyncIterator[Finding]:
        digest = file.digest
        assert digest is not None
        path = layout.blob_data(digest)
        content = await self.links.content(path, layout.MAX_MANIFEST_READ_BYTES)
        if content is None:
            if await self.links.is_there(file):
                state.add_lost_manifest(digest)
        elif isinstance(content, StorageError):
            state.add_cause(digest, digest)
            yield Finding(FindingKind.FILE_UNREADABLE, path, content.reason, digest)
        else:
            async for finding, part in self.manifest_check.examine(state.name, digest, content):
                if finding is None or finding.severity is Severity.DAMAGE:
                    state.add_cause(digest, part)
                if finding is not None:
                    yield finding

    async def _media_type(self, file: ClassifiedPath) -> Finding | None:
        content = await self.links.content(file.path, layout.MAX_MANIFEST_READ_BYTES)
        if isinstance(content, StorageError):
            return file.finding(FindingKind.FILE_UNREADABLE, content.reason)
        if content is None or is_media_type(content.decode("ascii", "replace")):
            return None
        return file.finding(
            FindingKind.TYPE_MALFORMED,
            repair=partial(self.links.quarantine.isolate, file.path), blocked_digest=file.digest,
        )  # fmt: skip

    async def _referrers(
        self, state: RepositoryFindings, files: Sequence[ClassifiedPath]
    ) -> AsyncIterator[Finding]:
        holds = partial(self.links.holds_manifest, state.name)
        for file, held in await self.links.read(files):
            if isinstance(held, Finding):
                yield await self.links.with_link_repair(held, file, holds)
            elif held is not None and not await holds(held) and await self.links.is_there(file):
                yield self.links.dangling(
                    file, "the repository does not hold it", holds, Severity.HARMLESS
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
        why = "its bytes are not in the store"
        return self.links.dangling(file, why, self.links.has_bytes)

    async def _unmarked(self, name: str) -> Finding | None:
        try:
            await self.links.driver.stat(layout.layers_folder(name))
        except PathNotFound:
            pass
        except StorageError as error:
            path = layout.layers_folder(name)
            return Finding(FindingKind.FOLDER_UNREADABLE, path, error.reason, None, name)
        else:
            return None

        async def repair() -> bool:
            await self.links.driver.put(layout.layers_marker(name), b"")
            return True

        return Finding(
            FindingKind.REPOSITORY_UNMARKED, layout.repository_folder(name),
            "without _layers Distribution does not list it", repository=name, repair=repair,
        )  # fmt: skip


def _group_role(file: ClassifiedPath) -> FileRole:
    """Return the role under which a file is checked: files of a revision or tag belong together."""
    if file.role is FileRole.MEDIA_TYPE:
        return FileRole.REVISION
    return FileRole.TAG if file.role is FileRole.TAG_INDEX else file.role
