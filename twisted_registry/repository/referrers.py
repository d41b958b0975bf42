"""Referrers: the manifests that name another as their subject.

(Distribution specification, "Listing Referrers".)

A push of a manifest with a subject writes a link below the repository's ``_referrers``. A store
that another registry has served contains manifests without such links, for example those of the
referrers tag schema. So each answer compares the existing revisions with those that were searched
for a subject, and reads the new ones. The digests of the searched revisions are stored in a file,
so that no restart reads a manifest twice. The caller checks every link against its manifest.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from attrs import define

from twisted_registry.oci.digest import Digest, DigestInvalid
from twisted_registry.oci.manifest import ManifestInvalid, parse_manifest
from twisted_registry.repository import layout
from twisted_registry.repository.concurrency import map_concurrently
from twisted_registry.repository.errors import translate_storage_errors
from twisted_registry.repository.inventory import iterate_digests
from twisted_registry.repository.links import write_link
from twisted_registry.storage.interfaces import PathNotFound, StorageError

if TYPE_CHECKING:
    from twisted_registry.repository.context import StoreContext

#: Digests of searched revisions that a process caches, of all repositories.
MAX_SCANNED_DIGESTS = 200_000
#: Bytes of the list of searched revisions that are read, at most.
_MAX_SCANNED_BYTES = 64 * 1024 * 1024


@define(eq=False)
class Referrers:
    """The referrers of one repository."""

    store: StoreContext
    name: str

    @translate_storage_errors
    async def add(self, subject: Digest, digest: Digest) -> None:
        """Store that a manifest names a subject."""
        link = layout.referrer_link(self.name, subject, digest)
        await write_link(self.store.driver, link, digest)

    @translate_storage_errors
    async def remove(self, subject: Digest, digest: Digest) -> None:
        """Remove the link of a deleted manifest.

        The manifest leaves the list of searched revisions too: if another registry stores it again,
        it is searched again.
        """
        async with self.store.locks.lock(("referrers", self.name)):
            scanned = await self._load_scanned()
            if digest in scanned:
                await self._save_scanned(scanned - {digest})
            with suppress(PathNotFound):
                path = layout.referrer_link(self.name, subject, digest)
                await self.store.driver.delete(path.rpartition("/")[0])

    @translate_storage_errors
    async def list_referrers(self, subject: Digest, after: str = "") -> list[Digest]:
        """Return the manifests that name ``subject``, in the order of the digests' text.

        A manifest may have been deleted: the caller checks each.

        :param after: return only digests greater than this.
        """
        await self._scan_new_revisions()
        found: list[Digest] = []
        folder = layout.subject_folder(self.name, subject)
        async for digests in iterate_digests(self.store.bulk, folder):
            found += digests
        return [digest for digest in found if str(digest) > after]

    async def _scan_new_revisions(self) -> None:
        async with self.store.locks.lock(("referrers", self.name)):
            scanned = await self._load_scanned()
            present: set[Digest] = set()
            folder = layout.revisions_folder(self.name)
            async for digests in iterate_digests(self.store.bulk, folder):
                present.update(digests)
            if present == scanned:
                return
            failed = await map_concurrently(self._scan_revision, sorted(present - scanned))
            await self._save_scanned(present.difference(digest for digest in failed if digest))

    async def _scan_revision(self, digest: Digest) -> Digest | None:
        """Link a manifest to its subject; return its digest if it has to be read again."""
        try:
            content = await self.store.driver.get(
                layout.blob_data(digest), layout.MAX_MANIFEST_READ_BYTES
            )
        except StorageError:
            # It is missing or unreadable now.
            return digest
        if not digest.matches(content):
            # It is damaged. The push that repairs it may reach a registry that writes no link.
            return digest
        with suppress(ManifestInvalid):
            subject = parse_manifest(content, None).subject
            if subject is not None:
                await self.add(subject.digest, digest)
        return None

    async def _load_scanned(self) -> set[Digest]:
        cached = self.store.scanned_revisions.get(self.name)
        if cached is not None:
            return cached
        try:
            content = await self.store.driver.get(
                layout.referrers_scanned(self.name), _MAX_SCANNED_BYTES
            )
        except PathNotFound:
            return set()
        digests = set()
        for line in content.decode("ascii", "replace").splitlines():
            with suppress(DigestInvalid):
                digests.add(Digest.parse(line))
        return digests

    async def _save_scanned(self, digests: set[Digest]) -> None:
        self.store.scanned_revisions.put(self.name, digests)
        await self.store.driver.put(
            layout.referrers_scanned(self.name),
            "\n".join(str(digest) for digest in sorted(digests)).encode("ascii"),
            durable=False,
        )
