"""Restore images, tags and repositories from the trash by command.

Restoring is a push of content that the store already has. Blobs are restored while the gate
protects them, then the manifests are put as a client would, children first and tags last. So it is
safe beside processes that serve or collect, as long as this process registers with the collector
as they do.

Before anything is changed, the trash is searched for everything that is needed. An image that
cannot be restored completely is not touched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field

from twisted_registry.oci.errors import RegistryError
from twisted_registry.oci.manifest import ManifestInvalid, parse_manifest
from twisted_registry.repository import layout
from twisted_registry.repository.concurrency import map_concurrently
from twisted_registry.repository.errors import translate_storage_errors
from twisted_registry.repository.links import read_link, write_link
from twisted_registry.repository.trash import Trash, TrashedKind, TrashReason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted_registry.oci.digest import Digest
    from twisted_registry.oci.manifest import Manifest
    from twisted_registry.repository.registry import Registry
    from twisted_registry.repository.trash import RecoverableManifest

#: Tags that are set by one manifest PUT. Collectors wait for its end.
_TAGS_PER_PUT = 100


class NotRecoverable(Exception):
    """Something cannot be restored; the text names the missing content."""


@define(eq=False)
class _UndeletePlan:
    """Content to restore, children before their indexes, and missing content."""

    blobs: dict[Digest, None] = field(factory=dict)
    manifests: dict[Digest, RecoverableManifest] = field(factory=dict)
    missing: dict[Digest, None] = field(factory=dict)


@define(eq=False)
class Undelete:
    """Restores content of the repositories of one store.

    :ivar registry: the registry, whose gate has to be polled meanwhile.
    """

    registry: Registry
    trash: Trash = field(init=False)

    @trash.default
    def _make_trash(self) -> Trash:
        return Trash(self.registry.driver)

    async def manifest(self, name: str, digest: Digest, tags: Sequence[str] = ()) -> int:
        """Restore a manifest with all that it needs, and then its tags.

        :param tags: tags that shall name it.
        :returns: the number of blobs and manifests that it consists of.
        :raises NotRecoverable: if something that it needs is neither in the store nor in the trash.
        :raises RegistryError: as for a push of it.
        """
        plan = _UndeletePlan()
        await self._plan_manifest(name, digest, plan)
        if plan.missing:
            missing = ", ".join(map(str, plan.missing))
            raise NotRecoverable(f"{name}@{digest} cannot be restored: {missing} no longer exists")
        for needed in plan.blobs:
            await self.layer(name, needed)
        manifests = self.registry.repository(name).manifests
        for member, kept in plan.manifests.items():
            own_tags = tags if member == digest else ()
            await manifests.put(member, kept.content, kept.media_type, own_tags, is_restored=True)
            await self.trash.discard_restored(name, member)
        return len(plan.blobs) + len(plan.manifests)

    @translate_storage_errors
    async def layer(self, name: str, digest: Digest) -> None:
        """Restore a blob of a repository.

        :raises NotRecoverable: if its bytes are neither in the store nor in the trash.
        :raises RegistryError: if the store fails.
        """
        async with self.registry.gate.protect_push(name, digest):
            if await self.trash.restore_blob(digest) is None:
                raise NotRecoverable(f"{digest} no longer exists")
            link = layout.layer_link(name, digest)
            if await read_link(self.trash.driver, link) != digest:
                await write_link(self.trash.driver, link, digest)
        kept = await self.trash.list_folder(layout.trashed_layer_folder(name, digest))
        if kept:
            await self.trash.remove_entries(kept)

    async def has_trashed_layer(self, name: str, digest: Digest) -> bool:
        """Return whether the trash has a repository's link to a blob."""
        return bool(await self.trash.list_folder(layout.trashed_layer_folder(name, digest)))

    async def repository(self, name: str) -> list[str]:
        """Restore everything that was deleted in a repository: tags, manifests, links to blobs.

        Existing tags are not changed. An item that cannot be restored does not keep others.

        :returns: a line for each item that could not be restored.
        :raises RegistryError: if the trash cannot be listed.
        """
        problems: list[str] = []
        tags, others = await self._deleted(name)
        for digest, named in (await self._deleted_tags(name, sorted(tags), problems)).items():
            for start in range(0, len(named), _TAGS_PER_PUT):
                batch = named[start : start + _TAGS_PER_PUT]
                try:
                    await self.manifest(name, digest, batch)
                except (NotRecoverable, RegistryError) as error:
                    problems += [f"{name}:{tag}: {error}" for tag in batch]
        for kind, digest in others:
            folder_of = (
                layout.trashed_revision_folder
                if kind is TrashedKind.MANIFEST
                else layout.trashed_layer_folder
            )
            try:
                if not await self.trash.list_folder(folder_of(name, digest)):
                    # It was restored with a manifest before.
                    continue
                if kind is TrashedKind.MANIFEST:
                    await self.manifest(name, digest)
                else:
                    await self.layer(name, digest)
            except NotRecoverable as error:
                problems.append(str(error))
            except RegistryError as error:
                problems.append(f"{name}@{digest}: {error}")
        return problems

    async def _deleted(self, name: str) -> tuple[set[str], list[tuple[TrashedKind, Digest]]]:
        """Return tags that ever changed, and manifests and links to blobs that were deleted."""
        tags: set[str] = set()
        others: list[tuple[TrashedKind, Digest]] = []
        async for items in self.trash.pages(layout.trashed_repository_folder(name)):
            for item in items:
                if item.repository != name or item.entry_name.reason is TrashReason.COLLECTED:
                    continue
                if item.kind is TrashedKind.TAG:
                    tags.add(item.tag)
                elif item.digest is not None:
                    others.append((item.kind, item.digest))
        return tags, others

    async def _deleted_tags(
        self, name: str, tags: Sequence[str], problems: list[str]
    ) -> dict[Digest, list[str]]:
        """Return the digests that deleted tags named, each with its tags that do not exist now.

        :param problems: receives a line for each tag whose records cannot be read.
        """

        async def last_digest(tag: str) -> Digest | None:
            try:
                changes = await self.trash.tag_changes(name, tag)
                if not changes or changes[-1].now is not None:
                    return None
                current = await self.registry.repository(name).tags.resolve(tag)
            except RegistryError as error:
                problems.append(f"{name}:{tag}: {error}")
                return None
            return changes[-1].before if current is None else None

        found: dict[Digest, list[str]] = {}
        for tag, digest in zip(tags, await map_concurrently(last_digest, tags), strict=True):
            if digest is not None:
                found.setdefault(digest, []).append(tag)
        return found

    async def _plan_manifest(self, name: str, digest: Digest, plan: _UndeletePlan) -> None:
        if digest in plan.manifests or digest in plan.missing:
            return
        records = await self.trash.list_folder(layout.trashed_revision_folder(name, digest))
        kept = await self.trash.find_manifest(digest, records[-1] if records else None)
        manifest = None if kept is None else _parse_kept(kept)
        if kept is None or manifest is None:
            plan.missing[digest] = None
            return
        for descriptor in manifest.blobs:
            if await self._is_available(descriptor.digest):
                plan.blobs[descriptor.digest] = None
            elif not descriptor.is_foreign:
                plan.missing[descriptor.digest] = None
        for child in manifest.manifests:
            await self._plan_manifest(name, child.digest, plan)
        plan.manifests[digest] = kept

    async def _is_available(self, digest: Digest) -> bool:
        return await self.trash.blob_size(digest) is not None or await self.trash.has_blob(digest)


def _parse_kept(kept: RecoverableManifest) -> Manifest | None:
    try:
        return parse_manifest(kept.content, kept.media_type)
    except ManifestInvalid:
        return None
