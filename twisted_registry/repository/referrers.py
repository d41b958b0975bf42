"""Who names a manifest as its subject (distribution specification, "Listing Referrers").

A push with a subject writes a link beside the repository's manifests. A store that another
registry served for a while holds manifests without such links, those of the referrers tag
schema among them; so each answer first compares the revisions that are there with those that
were searched, and reads the new ones. What was searched is kept in a file, so that a restart
reads no manifest twice. The answer checks every link against its manifest.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING

from twisted_registry.oci.digest import ALGORITHMS, Digest, DigestInvalid
from twisted_registry.oci.manifest import ManifestInvalid, parse_manifest
from twisted_registry.repository import layout
from twisted_registry.repository.concurrency import KeyedLock, map_concurrently
from twisted_registry.repository.errors import translate_storage_errors
from twisted_registry.repository.links import write_link
from twisted_registry.storage.interfaces import PathNotFound, StorageError

if TYPE_CHECKING:
    from twisted_registry.storage.interfaces import IBulkLookup, IStorageDriver

_PAGE_ENTRIES = 5000
#: Repositories whose list of searched manifests a process keeps in memory.
_MAX_REPOSITORIES = 64


class ScannedRevisions:
    """Which revisions were searched for a subject, by repository."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, set[Digest]] = OrderedDict()

    def get(self, name: str) -> set[Digest] | None:
        """The set, or None if this process has not read it."""
        return self._known.get(name)

    def keep(self, name: str, digests: set[Digest]) -> None:
        """Remember the set."""
        self._known[name] = digests
        self._known.move_to_end(name)
        if len(self._known) > _MAX_REPOSITORIES:
            self._known.popitem(last=False)


class Referrers:
    """The referrers of one repository."""

    def __init__(
        self,
        driver: IStorageDriver,
        bulk: IBulkLookup,
        scanned: ScannedRevisions,
        locks: KeyedLock,
        name: str,
    ) -> None:
        self.driver = driver
        self.bulk = bulk
        self.scanned = scanned
        self.locks = locks
        self.name = name

    @translate_storage_errors
    async def add(self, subject: Digest, digest: Digest) -> None:
        """Note that a manifest names a subject."""
        await write_link(self.driver, layout.referrer_link(self.name, subject, digest), digest)

    @translate_storage_errors
    async def remove(self, subject: Digest, digest: Digest) -> None:
        """Forget a manifest that is gone.

        It is taken off the list of the searched as well: if another registry takes it in again,
        it is new.
        """
        async with self.locks.lock(("referrers", self.name)):
            known = await self._load_scanned()
            if digest in known:
                await self._save_scanned(known - {digest})
            with suppress(PathNotFound):
                path = layout.referrer_link(self.name, subject, digest)
                await self.driver.delete(path.rpartition("/")[0])

    @translate_storage_errors
    async def list_referrers(self, subject: Digest, after: str = "") -> list[Digest]:
        """What names ``subject``, in the order of the digests' text.

        A digest may be of a manifest that is gone: whoever asks looks at each.

        :param after: only digests greater than this.
        """
        await self._scan_new_revisions()
        found: list[Digest] = []
        folder = layout.referrers(self.name, subject)
        for algorithm in sorted(ALGORITHMS):
            found += await self._digests_in(f"{folder}/{algorithm}", algorithm)
        return [digest for digest in found if str(digest) > after]

    async def _scan_new_revisions(self) -> None:
        async with self.locks.lock(("referrers", self.name)):
            known = await self._load_scanned()
            present: set[Digest] = set()
            for algorithm in ALGORITHMS:
                folder = layout.revisions(self.name, algorithm)
                present.update(await self._digests_in(folder, algorithm))
            if present == known:
                return
            unread = await map_concurrently(self._scan_revision, sorted(present - known))
            await self._save_scanned(present.difference(digest for digest in unread if digest))

    async def _scan_revision(self, digest: Digest) -> Digest | None:
        """Read one manifest and link its subject; return the digest if it has to be read again."""
        try:
            content = await self.driver.get(layout.blob(digest), layout.MAX_MANIFEST_READ_BYTES)
        except StorageError:
            # Gone or unreadable: the next listing tries again.
            return digest
        if not digest.matches(content):
            # Damaged: the next push of it may be to a registry that writes no link.
            return digest
        with suppress(ManifestInvalid):
            subject = parse_manifest(content, None).subject
            if subject is not None:
                await self.add(subject.digest, digest)
        return None

    async def _load_scanned(self) -> set[Digest]:
        known = self.scanned.get(self.name)
        if known is not None:
            return known
        try:
            content = await self.driver.get(
                layout.referrers_scanned(self.name), layout.MAX_MANIFEST_READ_BYTES
            )
        except PathNotFound:
            return set()
        digests = set()
        for line in content.decode("ascii", "replace").splitlines():
            with suppress(DigestInvalid):
                digests.add(Digest.parse(line))
        return digests

    async def _save_scanned(self, digests: set[Digest]) -> None:
        self.scanned.keep(self.name, digests)
        await self.driver.put(
            layout.referrers_scanned(self.name),
            "\n".join(str(digest) for digest in sorted(digests)).encode("ascii"),
            durable=False,
        )

    async def _digests_in(self, folder: str, algorithm: str) -> list[Digest]:
        digests: list[Digest] = []
        after = ""
        while True:
            try:
                names = await self.bulk.list_folders(folder, after, _PAGE_ENTRIES)
            except PathNotFound:
                return digests
            for name in names:
                with suppress(DigestInvalid):
                    digests.append(Digest.parse(f"{algorithm}:{name}"))
            if len(names) < _PAGE_ENTRIES:
                return digests
            after = names[-1]
