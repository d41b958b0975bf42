"""Brings images, tags and repositories back from the trash by command.

It is a push of what is in the store already: blobs come back inside ``protect_push`` of the gate, then
the manifest is put as a client would, children first and its tag last. So it may be done beside
processes that serve and collect, by a process that attends as they do.

First it is found out whether everything is there: what can not come back whole is left alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field

from twisted_registry.oci.manifest import ManifestInvalid, parse_manifest
from twisted_registry.repository import layout
from twisted_registry.repository.concurrency import map_concurrently
from twisted_registry.repository.errors import translate_storage_errors
from twisted_registry.repository.links import read_link, write_link
from twisted_registry.repository.recall import Recall
from twisted_registry.repository.trash import TagHistory, TrashedKind, TrashReason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted_registry.oci.digest import Digest
    from twisted_registry.oci.manifest import Manifest
    from twisted_registry.repository.recall import RecoverableManifest
    from twisted_registry.repository.registry import Registry

#: Tags that are set in one go: collectors wait as long.
_TAGS_AT_ONCE = 100


class NotRecoverable(Exception):
    """Something can not be brought back; the text says what is missing."""


@define(eq=False)
class _UndeletePlan:
    """What is to come back, children before what names them."""

    blobs: dict[Digest, None] = field(factory=dict)
    manifests: dict[Digest, RecoverableManifest] = field(factory=dict)
    missing: dict[Digest, None] = field(factory=dict)


@define(eq=False)
class Undelete:
    """Brings things back into the repositories of one store.

    :ivar registry: whose gate attends.
    """

    registry: Registry
    recall: Recall = field(init=False)
    history: TagHistory = field(init=False)

    @recall.default
    def _make_recall(self) -> Recall:
        return Recall(self.registry.driver)

    @history.default
    def _make_history(self) -> TagHistory:
        return TagHistory(self.registry.driver)

    async def manifest(self, name: str, digest: Digest, tags: Sequence[str] = ()) -> int:
        """Bring a manifest back with all that it needs, then let tags name it.

        :returns: how many blobs and manifests the repository holds again, or still.
        :raises NotRecoverable: if something that it needs is neither in the store nor in the trash.
        :raises RegistryError: as a push of it.
        """
        plan = _UndeletePlan()
        await self._plan_manifest(name, digest, plan)
        if plan.missing:
            missing = ", ".join(map(str, plan.missing))
            raise NotRecoverable(f"{name}@{digest} can not come back: {missing} gone for good")
        for needed in plan.blobs:
            await self.layer(name, needed)
        manifests = self.registry.repository(name).manifests
        for member, kept in plan.manifests.items():
            last = tags if member == digest else ()
            await manifests.put(member, kept.content, kept.media_type, last)
            await self.recall.discard_restored(name, member)
        return len(plan.blobs) + len(plan.manifests)

    @translate_storage_errors
    async def layer(self, name: str, digest: Digest) -> None:
        """Let a repository hold a blob again.

        :raises NotRecoverable: if its bytes are neither in the store nor in the trash.
        """
        async with self.registry.gate.protect_push(name, digest):
            if await self.recall.restore_blob(digest) is None:
                raise NotRecoverable(f"{digest} is gone for good")
            link = layout.layer_link(name, digest)
            if await read_link(self.recall.driver, link) != digest:
                await write_link(self.recall.driver, link, digest)
        kept = await self.recall.contents.folder(layout.trashed_layer(name, digest))
        if kept:
            await self.recall.contents.remove(kept)

    async def has_trashed_layer(self, name: str, digest: Digest) -> bool:
        """Whether the trash has a repository's link to a blob of this digest."""
        return bool(await self.recall.contents.folder(layout.trashed_layer(name, digest)))

    async def repository(self, name: str) -> list[str]:
        """Bring back all that was deleted in a repository: tags, manifests, links to blobs.

        A tag that is there stays as it is.

        :returns: a line for each thing that could not come back.
        """
        problems: list[str] = []
        tags, others = await self._deleted(name)
        for digest, named in (await self._deleted_tags(name, sorted(tags))).items():
            for start in range(0, len(named), _TAGS_AT_ONCE):
                some = named[start : start + _TAGS_AT_ONCE]
                try:
                    await self.manifest(name, digest, some)
                except NotRecoverable as error:
                    problems += [f"{name}:{tag}: {error}" for tag in some]
        for kind, digest in others:
            place = (
                layout.trashed_revision if kind is TrashedKind.MANIFEST else layout.trashed_layer
            )
            if not await self.recall.contents.folder(place(name, digest)):
                # It came back with something else.
                continue
            try:
                if kind is TrashedKind.MANIFEST:
                    await self.manifest(name, digest)
                else:
                    await self.layer(name, digest)
            except NotRecoverable as error:
                problems.append(str(error))
        return problems

    async def _deleted(self, name: str) -> tuple[set[str], list[tuple[TrashedKind, Digest]]]:
        """Tags that ever changed, and manifests and links to blobs that somebody deleted."""
        tags: set[str] = set()
        others: list[tuple[TrashedKind, Digest]] = []
        async for items in self.recall.contents.pages(layout.trashed_repository(name)):
            for item in items:
                if item.repository != name or item.entry_name.reason is TrashReason.COLLECTED:
                    continue
                if item.kind is TrashedKind.TAG:
                    tags.add(item.tag)
                elif item.digest is not None:
                    others.append((item.kind, item.digest))
        return tags, others

    async def _deleted_tags(self, name: str, tags: Sequence[str]) -> dict[Digest, list[str]]:
        """What tags named that were deleted and not set again, each with its tags."""

        async def named(tag: str) -> Digest | None:
            changes = await self.history.changes(name, tag)
            if not changes or changes[-1].now is not None:
                return None
            there = await self.registry.repository(name).tags.resolve(tag)
            return changes[-1].before if there is None else None

        found: dict[Digest, list[str]] = {}
        for tag, digest in zip(tags, await map_concurrently(named, tags), strict=True):
            if digest is not None:
                found.setdefault(digest, []).append(tag)
        return found

    async def _plan_manifest(self, name: str, digest: Digest, plan: _UndeletePlan) -> None:
        if digest in plan.manifests or digest in plan.missing:
            return
        records = await self.recall.contents.folder(layout.trashed_revision(name, digest))
        kept = await self.recall.find_manifest(digest, records[-1] if records else None)
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
        return await self.recall.blob_size(digest) is not None or await self.recall.has_blob(digest)


def _parse_kept(kept: RecoverableManifest) -> Manifest | None:
    try:
        return parse_manifest(kept.content, kept.media_type)
    except ManifestInvalid:
        return None
