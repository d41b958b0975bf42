"""The manifests of a repository, and the pushes that make tags name them.

The order of writes is such that a crash leaves garbage at worst, never a tag of a missing manifest:
bytes, media type, revision link, link and record of a referrer, and the link of the tag last. After
that the revision link is read once more, because a DELETE, or a collector that was slow, may have
removed it meanwhile.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from attrs import define, evolve, frozen
from twisted.internet.task import deferLater

from twisted_registry.oci.digest import Digest
from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.oci.manifest import (
    Manifest,
    ManifestInvalid,
    parse_manifest,
    parse_pushed,
)
from twisted_registry.oci.media_types import is_active, is_media_type
from twisted_registry.repository import catalog, layout
from twisted_registry.repository.concurrency import map_concurrently
from twisted_registry.repository.errors import translate_storage_errors
from twisted_registry.repository.links import read_link, write_link
from twisted_registry.repository.referrers import Referrers
from twisted_registry.repository.tags import Tags
from twisted_registry.repository.trash import TrashReason
from twisted_registry.storage.interfaces import PathNotFound

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence

    from twisted.internet.defer import Deferred

    from twisted_registry.repository.cache import StoredManifest
    from twisted_registry.repository.context import StoreContext
    from twisted_registry.repository.interfaces import EventPublisher
    from twisted_registry.repository.policy import Policy

_T = TypeVar("_T")

#: Missing digests after which a push is refused, and that its error lists.
_MAX_MISSING = 100
#: References that are checked before other requests get their turn.
_REFERENCES_PER_TURN = 128


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


@define(eq=False, repr=False)
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
            damaged: the next push repairs it. UNAVAILABLE if a link is damaged, unless it is a
            query by digest; or if it is a query, and a collector may be about to remove the
            manifest for more than 20 seconds.
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
            content=stored.content,
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
        content = stored.content
        try:
            manifest = await self.store.worker.run(
                len(content), parse_manifest, content, stored.media_type
            )
        except ManifestInvalid:
            return None
        return stored, manifest

    @translate_storage_errors
    async def find_in(
        self, reference: Digest, search: Callable[[bytes], _T]
    ) -> tuple[StoredManifest, _T] | None:
        """Return a manifest, also what a function finds in its bytes; None without a manifest.

        :param search: as for :meth:`~.parsing.ManifestWorker.find`.
        """
        stored = await self.store.presence.manifest_content(self.name, reference)
        if stored is None:
            return None
        stored = await self._with_media_type(stored)
        found = await self.store.worker.find(reference, stored.content, search)
        return None if found is None else (stored, found)

    async def digest_of(self, content: bytes) -> Digest:
        """Return the canonical digest of a manifest that is pushed."""
        return await self.store.worker.run(len(content), Digest.of, content)

    @translate_storage_errors
    async def is_linked(self, digest: Digest) -> bool:
        """Return whether the repository links a manifest, which the store need not have."""
        link = layout.revision_link(self.name, digest)
        return await self.store.cache.read_link(link) == digest

    @translate_storage_errors
    async def put(
        self,
        digest: Digest,
        content: bytes,
        media_type: str | None,
        tags: Sequence[str] = (),
        precondition: Precondition | None = None,
        *,
        is_restored: bool = False,
    ) -> Manifest:
        """Store a manifest, and make tags name it.

        :param digest: the digest that the content must have.
        :param media_type: the Content-Type, or None if there was none.
        :param precondition: a condition on every tag.
        :param is_restored: whether an earlier push of it was accepted, by the rules of its time.
        :raises RegistryError: DIGEST_INVALID, MANIFEST_INVALID, MANIFEST_BLOB_UNKNOWN with at most
            100 of the missing digests, DENIED, PRECONDITION_FAILED.
        """
        policy = self.store.policy
        parse = partial(_parse, digest, content, media_type, policy, is_restored=is_restored)
        manifest = await self.store.worker.run(len(content), parse)
        if policy.check_references:
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
                content=content,
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
        if isinstance(reference, Digest):
            digest = reference
        else:
            named = await self.tags.resolve(reference, is_pull=True)
            if named is None:
                raise RegistryError(ErrorCode.MANIFEST_UNKNOWN, detail={"tag": reference})
            digest = named
        manifest = await self.store.presence.manifest_content(
            self.name, digest, is_query=is_query, is_pull=not is_query
        )
        if manifest is None:
            raise _manifest_unknown(digest)
        return manifest

    async def _with_media_type(self, manifest: StoredManifest) -> StoredManifest:
        """Return the manifest, with the stored media type if the document declares none."""
        if manifest.media_type:
            return manifest
        media_type = await self._read_media_type(manifest.digest) or manifest.fallback_type
        return evolve(manifest, media_type=media_type)

    async def _store(self, digest: Digest, content: bytes, manifest: Manifest) -> None:
        if await self.store.cache.read_manifest(digest) is None:
            await self.store.driver.put(layout.blob_data(digest), content)
        is_declared = manifest.document_type.declared is not None
        if not is_declared:
            await self._store_media_type(digest, manifest)
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

    async def _store_media_type(self, digest: Digest, manifest: Manifest) -> None:
        path = layout.revision_media_type(self.name, digest)
        if manifest.media_type != manifest.document_type.fallback:
            await self.store.driver.put(path, manifest.media_type.encode("ascii"))
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
        presence = self.store.presence

        async def is_blob(digest: Digest) -> bool:
            return await presence.blob_size(self.name, digest) is not None

        async def is_child(digest: Digest) -> bool:
            # An index may list blobs too.
            size = await presence.manifest_size(self.name, digest)
            return size is not None or await is_blob(digest)

        # Only layers may be stored elsewhere. The URLs of a config are ignored.
        blobs = [layer.digest for layer in manifest.layers if not layer.is_foreign]
        if manifest.config is not None:
            blobs.insert(0, manifest.config.digest)
        children = [
            child.digest for child in manifest.manifests if self.store.policy.requires_child(child)
        ]
        restored = restore and presence.trash is not None
        missing = await self._missing(blobs, is_blob, self._restore_blob if restored else None)
        missing += await self._missing(
            children, is_child, self._restore_manifest if restored else None
        )
        if missing:
            raise _blobs_unknown(missing)

    async def _missing(
        self,
        digests: Iterable[Digest],
        is_present: Callable[[Digest], Coroutine[Deferred[object], object, bool]],
        restore: Callable[[Digest], Awaitable[bool]] | None,
    ) -> list[Digest]:
        """Return missing digests; the search ends when there are many.

        :param restore: restores a missing digest, and returns whether it is there now.
        """
        unique, missing = list(dict.fromkeys(digests)), []
        for start in range(0, len(unique), _REFERENCES_PER_TURN):
            if start:
                # What is cached is found without waiting: let others have their turn.
                await deferLater(self.store.clock, 0)
            batch = unique[start : start + _REFERENCES_PER_TURN]
            found = await map_concurrently(is_present, batch)
            for digest, present in zip(batch, found, strict=True):
                if not present and (restore is None or not await restore(digest)):
                    missing.append(digest)
            if len(missing) >= _MAX_MISSING:
                break
        return missing

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
            await self.put(digest, manifest.content, manifest.media_type, is_restored=True)
        except RegistryError as error:
            if error.code is not ErrorCode.MANIFEST_BLOB_UNKNOWN:
                raise
            return False
        await trash.discard_restored(self.name, digest)
        return True

    async def _read_media_type(self, digest: Digest) -> str | None:
        """Return the media type that the repository has stored for a manifest, or None."""
        with suppress(PathNotFound):
            stored = await self.store.driver.get(
                layout.revision_media_type(self.name, digest), layout.MAX_MEDIA_TYPE_BYTES
            )
            media_type = stored.decode("ascii", "replace")
            if is_media_type(media_type):
                return media_type
        return None


def _parse(
    digest: Digest, content: bytes, media_type: str | None, policy: Policy, *, is_restored: bool
) -> Manifest:
    """Check and parse what is stored by :meth:`Manifests.put`, which describes the errors."""
    if not digest.matches(content):
        raise RegistryError(ErrorCode.DIGEST_INVALID, detail={"digest": str(digest)})
    try:
        if is_restored:
            manifest = parse_manifest(content, media_type)
        else:
            manifest = parse_pushed(content, media_type, policy.document_limits)
    except ManifestInvalid as error:
        raise RegistryError(
            ErrorCode.MANIFEST_INVALID, detail=str(error), limit=error.limit
        ) from error
    if is_active(manifest.media_type) and not is_restored:
        raise RegistryError(
            ErrorCode.MANIFEST_INVALID,
            message="a manifest cannot have a media type that browsers run",
            detail={"mediaType": manifest.media_type},
        )
    policy.check_manifest(manifest)
    return manifest


def _referenced_digests(manifest: Manifest) -> list[Digest]:
    """Return the digests of all blobs and manifests that a manifest refers to, each once."""
    return list(dict.fromkeys(part.digest for part in (*manifest.blobs, *manifest.manifests)))


def _manifest_unknown(digest: Digest) -> RegistryError:
    return RegistryError(ErrorCode.MANIFEST_UNKNOWN, detail={"digest": str(digest)})


def _blobs_unknown(digests: Sequence[Digest]) -> RegistryError:
    detail = {"digests": [str(digest) for digest in digests[:_MAX_MISSING]]}
    return RegistryError(ErrorCode.MANIFEST_BLOB_UNKNOWN, detail=detail)


def _precondition_failed(tag: str) -> RegistryError:
    return RegistryError(ErrorCode.PRECONDITION_FAILED, detail={"tag": tag})
