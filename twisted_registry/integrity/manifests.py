"""Check that everything a manifest refers to is stored, with the sizes that it gives."""

from __future__ import annotations

import json
from itertools import compress
from typing import TYPE_CHECKING

from attrs import define

from twisted_registry.integrity.findings import Finding, FindingKind
from twisted_registry.oci.manifest import (
    ManifestInvalid,
    declared_media_type,
    guess_media_type,
    parse_manifest,
)
from twisted_registry.oci.media_types import is_media_type
from twisted_registry.repository import layout
from twisted_registry.repository.links import write_link

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterator

    from twisted_registry.integrity.blobs import BlobSizes
    from twisted_registry.integrity.links import LinkCheck
    from twisted_registry.oci.digest import Digest
    from twisted_registry.oci.manifest import Descriptor, Manifest
    from twisted_registry.repository.policy import Policy


@define(eq=False)
class ManifestCheck:
    """Checks what manifests refer to.

    :ivar corrupt: blobs that were reported as damaged or unreadable.
    """

    links: LinkCheck
    sizes: BlobSizes
    policy: Policy
    corrupt: Collection[Digest]

    async def examine(
        self, repository: str, digest: Digest, content: bytes
    ) -> AsyncIterator[tuple[Finding | None, Digest]]:
        """Yield the findings of a manifest with intact bytes, each with the digest at fault.

        A part that is damaged itself was reported before and is yielded without a finding.
        """
        path = layout.revision_link(repository, digest)

        def found(kind: FindingKind, detail: str) -> Finding:
            return Finding(kind, path, detail, digest, repository)

        try:
            manifest = await self._parsed(repository, digest, content)
        except ManifestInvalid as error:
            yield found(FindingKind.MANIFEST_INVALID, str(error)), digest
            return
        if manifest is None:
            return
        async for kind, detail, part in self._missing(repository, manifest):
            # A manifest that was deleted meanwhile needs nothing.
            if await self.links.is_link_to(path, digest):
                yield found(kind, detail) if kind is not None else None, part
        subject = None if manifest.subject is None else manifest.subject.digest
        if subject is not None:
            listed = layout.referrer_link(repository, subject, digest)
            if not await self.links.is_link_to(listed, digest):
                yield self._unlisted(repository, listed, digest, subject), digest

    async def _parsed(self, repository: str, digest: Digest, content: bytes) -> Manifest | None:
        """Parse a manifest; return None for one of an unknown type."""
        try:
            return parse_manifest(content, None)
        except ManifestInvalid:
            if declared_media_type(content) is not None:
                raise
        media_type = await self._media_type(repository, digest)
        if media_type is not None:
            return parse_manifest(content, media_type)
        if guess_media_type(content) is not None:
            # It looks like a known type: parse it, for the reason why it is not valid.
            return parse_manifest(content, guess_media_type(content))
        if not _is_object(content):
            raise ManifestInvalid("it is not a JSON object, and its media type is unknown")
        return None

    async def _media_type(self, repository: str, digest: Digest) -> str | None:
        path = layout.revision_media_type(repository, digest)
        kept = await self.links.content(path, layout.MAX_MEDIA_TYPE_BYTES)
        if not isinstance(kept, bytes):
            # It is missing, or was reported as unreadable.
            return None
        media_type = kept.decode("ascii", "replace")
        return media_type if is_media_type(media_type) else None

    async def _missing(
        self, repository: str, manifest: Manifest
    ) -> AsyncIterator[tuple[FindingKind | None, str, Digest]]:
        needed = list(_needed(manifest))
        digests = [part.digest for _, part in needed]
        sizes = await self.sizes.of(digests)
        children = [child.digest for child in manifest.manifests]
        paths = [layout.layer_link(repository, digest) for digest in digests]
        paths += [layout.revision_link(repository, digest) for digest in children]
        linked = [*digests, *children]
        held = set(compress(linked, await self.links.check_targets(paths, linked)))
        for name, part in needed:
            text = f"{name} {part.digest}"
            size = sizes[part.digest]
            if part.digest in self.corrupt:
                yield None, "", part.digest
            elif size is None or part.digest not in held:
                kind = FindingKind.PART_MISSING if size is None else FindingKind.PART_UNLINKED
                if name == "child" and not self.policy.requires_child(part):
                    kind = FindingKind.INDEX_SPARSE
                why = "is not in the store" if size is None else "is not in the repository"
                yield kind, f"{text} {why}", part.digest
            elif size != part.size:
                yield (
                    FindingKind.SIZE_WRONG,
                    f"{text} has {size} bytes, not {part.size}",
                    part.digest,
                )

    def _unlisted(self, repository: str, path: str, digest: Digest, subject: Digest) -> Finding:
        async def repair() -> bool:
            await write_link(self.links.driver, path, digest)
            return True

        return Finding(
            FindingKind.REFERRER_UNLISTED, path, f"its subject is {subject}", digest, repository,
            repair=repair,
        )  # fmt: skip


def _needed(manifest: Manifest) -> Iterator[tuple[str, Descriptor]]:
    if manifest.config is not None:
        yield "config", manifest.config
    for layer in manifest.layers:
        if not layer.is_foreign:
            yield "layer", layer
    for child in manifest.manifests:
        yield "child", child


def _is_object(content: bytes) -> bool:
    try:
        return isinstance(json.loads(content.decode("utf-8")), dict)
    except (ValueError, RecursionError):
        return False
