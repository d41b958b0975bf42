"""The manifests of a repository, and the pushes that make tags name them.

The order of writes is such that a crash leaves garbage at worst, never a tag of a missing manifest:
bytes, media type, revision link, link and record of a referrer, and the link of the tag last. After
that the revision link is read once more, because a DELETE, or a collector that was slow, may have
removed it meanwhile.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from attrs import define, evolve, frozen

from twisted_registry.oci.digest import Digest
from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.oci.manifest import (
    OCI_IMAGE,
    Manifest,
    ManifestInvalid,
    declared_media_type,
    guess_media_type,
    is_media_type,
    parse_manifest,
)
from twisted_registry.repository import catalog, layout
from twisted_registry.repository.concurrency import map_concurrently
from twisted_registry.repository.errors import translate_storage_errors
from twisted_registry.repository.links import read_link, write_link
from twisted_registry.repository.referrers import Referrers
from twisted_registry.repository.tags import Tags
from twisted_registry.repository.trash import TrashReason
from twisted_registry.storage.interfaces import PathNotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted_registry.oci.manifest import Descriptor
    from twisted_registry.repository.cache import StoredManifest
    from twisted_registry.repository.context import StoreContext
    from twisted_registry.repository.interfaces import EventPublisher


@frozen
class Precondition:
    """A condition on a tag for a push (RFC 9110 section 13.1).

    :ivar digests: the tag must name one of these (If-Match). Empty means any manifest, None no
        condition.
    :ivar absent: the tag must not exist (If-None-Match: ``*``).
    :ivar none_of: the tag must name none of these (If-None-Match with digests).
    """

    digests: frozenset[str] | None = None
    absent: bool = False
    none_of: frozenset[str] = frozenset()

    def is_met_by(self, current: Digest | None) -> bool:
        """Return whether a tag may be set that names ``current``; None means that it is missing."""
        if current is None:
            return self.digests is None
        if self.absent or str(current) in self.none_of:
            return False
        return not self.digests or str(current) in self.digests

    def check(self, tag: str, current: Digest | None) -> None:
        """Check the condition on a tag that names ``current``.

        :raises RegistryError: PRECONDITION_FAILED.
        """
        if not self.is_met_by(current):
            raise _precondition_failed(tag)


@define(eq=False)
class Manifests:
    """The manifests of one repository."""

    store: StoreContext
    name: str
    publish_event: EventPublisher

    @property
    def tags(self) -> Tags:
        """The tags of the same repository; a pull needs none."""
        return Tags(self.store, self.name, self.publish_event)

    @property
    def referrers(self) -> Referrers:
        """The referrers of the same repository."""
        return Referrers(self.store, self.name, self.parse)

    @translate_storage_errors
    async def get(self, reference: Digest | str, *, is_query: bool = False) -> StoredManifest:
        """Return a manifest for a client.

        :param reference: its digest, or a tag that names it.
        :param is_query: whether the client may skip a push if it exists.
        :raises RegistryError: MANIFEST_UNKNOWN if the repository does not have it, or if it is
            damaged: the next push repairs it. UNAVAILABLE if it is a query, and a collector may be
            about to remove the manifest for more than 20 seconds.
        """
        # A tag protects the manifest that it names.
        is_query = is_query and isinstance(reference, Digest)
        stored = await self.store.presence.cached_pull(self.name, reference, is_query=is_query)
        if stored is None:
            stored = await self._find(reference, is_query=is_query)
            self.store.cache.remember_pull(self.name, reference, stored.digest)
            stored = await self._with_media_type(stored)
        if self.store.pending_pulls is not None:
            self.store.pending_pulls.add((self.name, reference))
        self.publish_event(
            "pull",
            "manifest",
            stored.digest,
            size=len(stored.content),
            media_type=stored.media_type,
            tag=reference if isinstance(reference, str) else None,
        )
        return stored

    @translate_storage_errors
    async def get_parsed(self, digest: Digest) -> tuple[StoredManifest, Manifest] | None:
        """Return a manifest, also parsed, or None if it is missing, damaged or invalid."""
        stored = await self.store.presence.manifest_content(self.name, digest)
        return None if stored is None else await self.parse(stored)

    @translate_storage_errors
    async def parse(self, stored: StoredManifest) -> tuple[StoredManifest, Manifest] | None:
        """Return a manifest of the repository with its media type, also parsed.

        :returns: None if it is invalid.
        """
        stored = await self._with_media_type(stored)
        try:
            return stored, parse_manifest(stored.content, stored.media_type)
        except ManifestInvalid:
            return None

    @translate_storage_errors
    async def put(
        self,
        digest: Digest,
        content: bytes,
        media_type: str | None,
        tags: Sequence[str] = (),
        precondition: Precondition | None = None,
    ) -> Manifest:
        """Store a manifest, and make tags name it.

        :param digest: the digest that the content must have.
        :param media_type: the Content-Type, or None if there was none.
        :param precondition: a condition on every tag.
        :raises RegistryError: DIGEST_INVALID, MANIFEST_INVALID, MANIFEST_BLOB_UNKNOWN with all
            missing digests, DENIED, PRECONDITION_FAILED.
        """
        if not digest.matches(content):
            raise RegistryError(ErrorCode.DIGEST_INVALID, detail={"digest": str(digest)})
        try:
            manifest = parse_manifest(content, media_type)
        except ManifestInvalid as error:
            raise RegistryError(ErrorCode.MANIFEST_INVALID, detail=str(error)) from error
        self.store.policy.check_manifest(manifest)
        if self.store.policy.check_references:
            await self.store.presence.gate.wait_until_unlisted(
                self.name, _referenced_digests(manifest)
            )
            await self._check_references(manifest, restore=True)
        # Before anything is written: a refused push leaves nothing behind.
        for tag in tags:
            if precondition is not None:
                precondition.check(tag, await self.tags.resolve(tag))
            await self.tags.check_may_set(tag, digest)
        async with self.store.presence.gate.protect_push(self.name, digest):
            await self._store(digest, content, manifest)
            await self._recheck_references(digest, manifest)
            for tag in tags:
                await self._tag(tag, digest, precondition)
            revision = layout.revision_link(self.name, digest)
            if await read_link(self.store.driver, revision) != digest:
                await self._store(digest, content, manifest)
                await self._recheck_or_untag(digest, manifest, tags)
        for name in tags or (None,):
            self.publish_event(
                "push",
                "manifest",
                digest,
                size=len(content),
                media_type=manifest.media_type,
                tag=name,
            )
        return manifest

    @translate_storage_errors
    async def delete(self, digest: Digest) -> list[str]:
        """Delete a manifest and every tag that names it; return the tags.

        :raises RegistryError: MANIFEST_UNKNOWN if the repository does not have it, DENIED if an
            immutable tag names it.
        """
        if not await self.store.presence.has_manifest(self.name, digest):
            raise _manifest_unknown(digest)
        await self.tags.check_may_delete_manifest(digest)
        stored = await self.store.cache.read_manifest(digest)
        parsed = None if stored is None else await self.parse(stored)
        tags = await self.tags.delete_tags_of(digest)
        await self.store.deleter.delete_revision(self.name, digest, TrashReason.DELETED)
        # Again, for a push that set a tag meanwhile.
        tags += await self.tags.delete_tags_of(digest, indexed=True)
        if parsed is not None and parsed[1].subject is not None:
            await self.referrers.remove(parsed[1].subject.digest, digest)
        self.publish_event("delete", "manifest", digest)
        return tags

    async def _find(self, reference: Digest | str, *, is_query: bool) -> StoredManifest:
        digest = reference if isinstance(reference, Digest) else await self.tags.resolve(reference)
        if digest is None:
            raise RegistryError(ErrorCode.MANIFEST_UNKNOWN, detail={"tag": reference})
        manifest = await self.store.presence.manifest_content(self.name, digest, is_query=is_query)
        if manifest is None:
            raise _manifest_unknown(digest)
        return manifest

    async def _with_media_type(self, manifest: StoredManifest) -> StoredManifest:
        """Return the manifest, with the stored media type if the document declares none."""
        if manifest.media_type:
            return manifest
        media_type = await self._read_media_type(manifest.digest, manifest.content)
        return evolve(manifest, media_type=media_type)

    async def _store(self, digest: Digest, content: bytes, manifest: Manifest) -> None:
        if await self.store.cache.read_manifest(digest) is None:
            await self.store.driver.put(layout.blob_data(digest), content)
        is_declared = declared_media_type(content) is not None
        if not is_declared:
            await self._store_media_type(digest, content, manifest.media_type)
        await write_link(self.store.driver, layout.revision_link(self.name, digest), digest)
        await catalog.mark_repository(self.store.driver, self.name)
        await self.referrers.record_push(digest, manifest, len(content), is_declared=is_declared)

    async def _recheck_references(self, digest: Digest, manifest: Manifest) -> None:
        """Check that the content that a manifest needs still exists, now that it has its link.

        If not, the link stays, as the link of a manifest that was never acknowledged: deleting it
        could delete the link of another push of the same manifest.
        """
        refused = await self.store.presence.gate.find_listed(
            self.name, [digest, *_referenced_digests(manifest)]
        )
        if refused:
            raise _blobs_unknown(refused)
        if self.store.policy.check_references:
            await self._check_references(manifest)

    async def _recheck_or_untag(
        self, digest: Digest, manifest: Manifest, tags: Sequence[str]
    ) -> None:
        """Check the references again; delete the tags if the repository was deleted meanwhile."""
        try:
            await self._recheck_references(digest, manifest)
        except RegistryError:
            for tag in tags:
                async with self.tags.lock(tag):
                    if await self.tags.resolve(tag) == digest:
                        await self.tags.remove(tag)
            raise

    async def _store_media_type(self, digest: Digest, content: bytes, media_type: str) -> None:
        path = layout.revision_media_type(self.name, digest)
        if media_type != (guess_media_type(content) or OCI_IMAGE):
            await self.store.driver.put(path, media_type.encode("ascii"))
            return
        # An earlier push of the same bytes may have stored another type.
        with suppress(PathNotFound):
            await self.store.driver.delete(path)

    async def _tag(self, tag: str, digest: Digest, precondition: Precondition | None) -> None:
        async with self.tags.lock(tag):
            if precondition is None:
                await self.tags.set(tag, digest)
                return
            precondition.check(tag, await self.tags.resolve(tag))
            if not await self.tags.set(tag, digest, only_new=precondition.absent):
                raise _precondition_failed(tag)

    async def _check_references(self, manifest: Manifest, *, restore: bool = False) -> None:
        """Check that the repository has all content that a manifest refers to.

        :param restore: whether content that a collector removed is restored from the trash.
        :raises RegistryError: MANIFEST_BLOB_UNKNOWN.
        """

        async def missing_blob(descriptor: Descriptor) -> Descriptor | None:
            size = await self.store.presence.blob_size(self.name, descriptor.digest)
            return descriptor if size is None else None

        async def missing_child(descriptor: Descriptor) -> Descriptor | None:
            size = await self.store.presence.manifest_size(self.name, descriptor.digest)
            if size is None:
                # An index may list blobs too.
                size = await self.store.presence.blob_size(self.name, descriptor.digest)
            return descriptor if size is None else None

        # Only layers may be stored elsewhere. The URLs of a config are ignored.
        blobs = [layer for layer in manifest.layers if not layer.is_foreign]
        if manifest.config is not None:
            blobs.insert(0, manifest.config)
        children = [
            child for child in manifest.manifests if self.store.policy.requires_child(child)
        ]
        missing_blobs = [
            found.digest for found in await map_concurrently(missing_blob, blobs) if found
        ]
        missing_children = [
            found.digest for found in await map_concurrently(missing_child, children) if found
        ]
        if restore and self.store.presence.trash is not None:
            missing_blobs = [
                digest for digest in missing_blobs if not await self._restore_blob(digest)
            ]
            missing_children = [
                digest for digest in missing_children if not await self._restore_manifest(digest)
            ]
        if missing_blobs or missing_children:
            raise _blobs_unknown([*missing_blobs, *missing_children])

    async def _restore_blob(self, digest: Digest) -> bool:
        trash = self.store.presence.trash
        assert trash is not None
        if not await trash.collected_layer_entries(self.name, digest):
            return False
        async with self.store.presence.gate.protect_push(self.name, digest):
            return await trash.restore_layer(self.name, digest)

    async def _restore_manifest(self, digest: Digest) -> bool:
        """Push a manifest again that a collector removed, with the content that it needs."""
        trash = self.store.presence.trash
        assert trash is not None
        manifest = await trash.find_collected_manifest(self.name, digest)
        if manifest is None:
            return False
        try:
            await self.put(digest, manifest.content, manifest.media_type)
        except RegistryError as error:
            if error.code is not ErrorCode.MANIFEST_BLOB_UNKNOWN:
                raise
            return False
        await trash.discard_restored(self.name, digest)
        return True

    async def _read_media_type(self, digest: Digest, content: bytes) -> str:
        """Return the media type of a manifest that does not declare one."""
        with suppress(PathNotFound):
            stored = await self.store.driver.get(
                layout.revision_media_type(self.name, digest), layout.MAX_MEDIA_TYPE_BYTES
            )
            media_type = stored.decode("ascii", "replace")
            if is_media_type(media_type):
                return media_type
        # As CNCF Distribution reads a document without a media type.
        return guess_media_type(content) or OCI_IMAGE


def _referenced_digests(manifest: Manifest) -> list[Digest]:
    """Return the digests of all blobs and manifests that a manifest refers to."""
    return [part.digest for part in (*manifest.blobs, *manifest.manifests)]


def _manifest_unknown(digest: Digest) -> RegistryError:
    return RegistryError(ErrorCode.MANIFEST_UNKNOWN, detail={"digest": str(digest)})


def _blobs_unknown(digests: Sequence[Digest]) -> RegistryError:
    detail = {"digests": [str(digest) for digest in digests]}
    return RegistryError(ErrorCode.MANIFEST_BLOB_UNKNOWN, detail=detail)


def _precondition_failed(tag: str) -> RegistryError:
    return RegistryError(ErrorCode.PRECONDITION_FAILED, detail={"tag": tag})
