"""Referrers: the manifests that name another as their subject.

(Distribution specification, "Listing Referrers".)

A push of a manifest with a subject writes a link below the repository's ``_referrers``, and a
record with its descriptor (:mod:`~twisted_registry.repository.subject_records`), so that a list
parses no manifest. A store that another registry has served contains manifests without either, for
example those of the referrers tag schema. So each list compares the existing revisions with those
that were searched for a subject, and searches the new ones. The digests of the searched revisions
are stored in a file, so that a restart does not search them again.

All of that can be rebuilt from the manifests. Where a list finds that some is missing, it writes
it, unless the registry is read-only; if that fails, the list is complete all the same, and what
could not be stored is kept in memory.
"""

from __future__ import annotations

import re
from contextlib import suppress
from functools import partial
from itertools import compress
from typing import TYPE_CHECKING

from attrs import define, field, frozen
from twisted.logger import Logger

from twisted_registry.oci.digest import ALGORITHMS, Digest, DigestInvalid
from twisted_registry.repository import layout
from twisted_registry.repository.cache import LRUCache
from twisted_registry.repository.concurrency import MAX_CONCURRENT, map_concurrently
from twisted_registry.repository.errors import translate_storage_errors
from twisted_registry.repository.inventory import iterate_folders
from twisted_registry.repository.links import parse_link, put_link, write_link
from twisted_registry.repository.subject_records import (
    MAX_RECORD_BYTES,
    SubjectRecord,
    make_record,
)
from twisted_registry.storage.fallbacks import folders
from twisted_registry.storage.interfaces import PathNotFound, StorageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.oci.manifest import Manifest
    from twisted_registry.repository.cache import StoredManifest
    from twisted_registry.repository.context import StoreContext
    from twisted_registry.storage.interfaces import IStorageDriver

    ManifestParser = Callable[[StoredManifest], Awaitable[tuple[StoredManifest, Manifest] | None]]

log = Logger()

#: Digests of searched revisions that a process caches, of all repositories.
MAX_SEARCHED_DIGESTS = 200_000
#: Bytes of records that a process caches, of all repositories.
MAX_CACHED_RECORD_BYTES = 16 * 1024 * 1024
#: Memory that each cached record takes beside its descriptor, about.
_RECORD_OVERHEAD_BYTES = 1024
#: Bytes of the list of searched revisions that are read, at most.
_MAX_SEARCHED_BYTES = 64 * 1024 * 1024
#: Revisions that are searched, or referrers that are looked up, at a time.
_BATCH_ENTRIES = 256
#: Referrers that one page looks at.
MAX_PAGE_REFERRERS = 1000
#: Bytes of manifests that one page parses, at most: those without a record.
_MAX_PARSED_BYTES = 64 * 1024 * 1024
#: Bytes of a manifest from which on its push stores that it has no subject.
_MIN_RECORDED_BYTES = 64 * 1024
#: The list of searched revisions is stored when one of so many is new.
_SAVE_DIVISOR = 16
#: Seconds without optional writes after one has failed.
_WRITE_PAUSE_S = 60.0
_HEX_RE = re.compile(r"[0-9a-f]{1,128}", re.ASCII)


@define(eq=False, repr=False)
class OptionalWrites:
    """Writes files that can be rebuilt, for requests that only read.

    A failure is logged and otherwise ignored, and nothing is written for a minute.

    :ivar allowed: false if the registry is read-only.
    """

    driver: IStorageDriver
    clock: IReactorTime
    allowed: bool = True
    _paused_until_s: float = field(init=False, default=0.0)

    @property
    def are_possible(self) -> bool:
        """Whether :meth:`put` tries to write."""
        return self.allowed and self.clock.seconds() >= self._paused_until_s

    async def put(self, path: str, content: bytes, *, durable: bool = False) -> bool:
        """Store a small file; return whether it is stored.

        :param durable: see :meth:`~twisted_registry.storage.interfaces.IStorageDriver.put`.
        """
        if not self.are_possible:
            return False
        try:
            await self.driver.put(path, content, durable=durable)
        except StorageError as error:
            if self.are_possible:
                log.warn(
                    "records of referrers cannot be stored, retry in {seconds:.0f} s: {error}",
                    seconds=_WRITE_PAUSE_S,
                    error=str(error),
                )
                self._paused_until_s = self.clock.seconds() + _WRITE_PAUSE_S
            return False
        return True


@define(eq=False, repr=False)
class SearchedRevisions:
    """The revisions of one repository that were searched for a subject, as this process knows.

    :ivar names: by algorithm, the names of the folders of the revisions.
    :ivar unlinked: by subject, the referrers that were found and whose links are not stored.
    :ivar unsaved: revisions that were searched since the list was stored.
    :ivar weight: the number of digests when it was cached.
    """

    names: dict[str, set[str]] = field(factory=lambda: {name: set() for name in ALGORITHMS})
    unlinked: dict[Digest, set[Digest]] = field(factory=dict)
    unsaved: int = 0
    weight: int = 0

    @property
    def count(self) -> int:
        """The number of searched revisions."""
        return sum(map(len, self.names.values()))

    def contains(self, digest: Digest) -> bool:
        """Return whether a revision was searched."""
        return digest.hex in self.names[digest.algorithm]

    def add(self, digest: Digest) -> None:
        """Add a revision that was searched."""
        if not self.contains(digest):
            self.names[digest.algorithm].add(digest.hex)
            self.unsaved += 1

    def add_unlinked(self, subject: Digest, digest: Digest) -> None:
        """Add a revision that was searched and has a subject, and whose link is not stored."""
        self.add(digest)
        self.unlinked.setdefault(subject, set()).add(digest)

    def compare(self, present: Mapping[str, Sequence[Sequence[str]]]) -> tuple[list[Digest], bool]:
        """Compare with the revisions that exist, and forget the others.

        :param present: by algorithm, pages of the names of folders.
        :returns: the revisions to be searched, and whether one was forgotten.
        """
        new: list[tuple[str, str]] = []
        total = 0
        for algorithm, pages in present.items():
            known = self.names[algorithm]
            for names in pages:
                total += len(names)
                new += [(algorithm, name) for name in names if name not in known]
        has_removed = total - len(new) != self.count
        if has_removed:
            for algorithm, pages in present.items():
                self.names[algorithm].intersection_update(set().union(*pages))
        digests = []
        for algorithm, name in new:
            try:
                digests.append(Digest.parse(f"{algorithm}:{name}"))
            except DigestInvalid:
                # A folder that is no revision is not searched.
                self.names[algorithm].add(name)
        return digests, has_removed

    def discard(self, digest: Digest) -> None:
        """Remove a revision that was deleted."""
        self.names[digest.algorithm].discard(digest.hex)
        for referrers in self.unlinked.values():
            referrers.discard(digest)

    def to_bytes(self) -> bytes:
        """Return the list to be stored: a digest in each line."""
        unlinked = {digest for digests in self.unlinked.values() for digest in digests}
        lines = (
            f"{algorithm}:{name}"
            for algorithm, names in sorted(self.names.items())
            for name in sorted(names)
        )
        if unlinked:
            texts = set(map(str, unlinked))
            lines = (line for line in lines if line not in texts)
        return "\n".join(lines).encode("utf-8")

    @classmethod
    def from_bytes(cls, content: bytes) -> SearchedRevisions:
        """Parse the stored list; lines that are torn are ignored."""
        found = cls()
        for line in content.decode("utf-8", "replace").splitlines():
            algorithm, _, name = line.partition(":")
            # A torn line is shorter than a digest.
            if len(name) == ALGORITHMS.get(algorithm):
                found.names[algorithm].add(name)
        return found


def make_searched_cache() -> LRUCache[str, SearchedRevisions]:
    """Return an empty cache of searched revisions, by repository."""
    return LRUCache(MAX_SEARCHED_DIGESTS, lambda searched: searched.weight)


def make_records_cache() -> LRUCache[Digest, SubjectRecord]:
    """Return an empty cache of records that are the same in each repository."""
    return LRUCache(
        MAX_CACHED_RECORD_BYTES, lambda record: len(record.descriptor) + _RECORD_OVERHEAD_BYTES
    )


@frozen
class ReferrersPage:
    """A page of a list of referrers.

    :ivar descriptors: as JSON.
    :ivar last: the position of its end, for the next page; None if it is the last page.
    """

    descriptors: Sequence[bytes]
    last: str | None


@define(eq=False, repr=False)
class Referrers:
    """The referrers of one repository.

    :ivar parse: parses a manifest of the repository; see :meth:`.manifests.Manifests.parse`.
    """

    store: StoreContext
    name: str
    parse: ManifestParser

    @translate_storage_errors
    async def record_push(
        self, digest: Digest, manifest: Manifest, size: int, *, is_declared: bool
    ) -> None:
        """Store what lists need of a manifest whose revision has just been linked.

        :param size: of the manifest in bytes.
        :param is_declared: whether the manifest declares its media type.
        """
        if manifest.subject is not None:
            link = layout.referrer_link(self.name, manifest.subject.digest, digest)
            await write_link(self.store.driver, link, digest)
        if manifest.subject is not None or size >= _MIN_RECORDED_BYTES:
            record, descriptor = await self._make_record(
                digest, manifest, size, is_declared=is_declared
            )
            if not record.is_inline:
                path = layout.revision_descriptor(self.name, digest)
                await self.store.driver.put(path, descriptor, durable=False)
            path = layout.revision_subject(self.name, digest)
            await self.store.driver.put(path, record.to_bytes(), durable=False)
            self._cache_record(record)
        searched = self.store.searched_revisions.pop(self.name)
        if searched is not None:
            searched.add(digest)
            self._cache_searched(searched)

    @translate_storage_errors
    async def remove(self, subject: Digest, digest: Digest) -> None:
        """Remove the link of a deleted manifest.

        The manifest leaves the list of searched revisions too: if another registry stores it again,
        it is searched again.
        """
        async with self.store.locks.lock(("referrers", self.name)):
            searched = await self._load_searched()
            if searched.contains(digest):
                searched.discard(digest)
                if not await self._save_searched(searched):
                    # Without the list, all is searched again.
                    with suppress(StorageError):
                        await self.store.driver.delete(layout.referrers_scanned(self.name))
            with suppress(PathNotFound):
                path = layout.referrer_link(self.name, subject, digest)
                await self.store.driver.delete(path.rpartition("/")[0])
            # The link of a push that came meanwhile is deleted too, and has to be found again.
            searched.discard(digest)

    @translate_storage_errors
    async def page(
        self,
        subject: Digest,
        after: str = "",
        artifact_type: str | None = None,
        *,
        max_bytes: int,
    ) -> ReferrersPage:
        """Return the descriptors of manifests that name ``subject``, in the order of the digests.

        A page ends after :data:`MAX_PAGE_REFERRERS` links, when it is full, or when many manifests
        without a record had to be parsed. A descriptor that fits into no page is one by itself.

        :param after: return only those with a digest greater than this text.
        :param artifact_type: return only descriptors with this artifact type.
        :param max_bytes: bytes of all descriptors, and one more for each.
        """
        unlinked = await self._search_new_revisions(subject)
        digests = await self._linked_after(subject, after)
        if unlinked:
            more = (digest for digest in unlinked if str(digest) > after)
            digests = sorted({*digests, *more}, key=str)
        listing = _Listing(self, subject, artifact_type, max_bytes)
        for start in range(0, min(len(digests), MAX_PAGE_REFERRERS), _BATCH_ENTRIES):
            end = min(start + _BATCH_ENTRIES, MAX_PAGE_REFERRERS)
            await listing.add(digests[start:end])
            if listing.is_full:
                return ReferrersPage(listing.found, listing.last)
        is_last = len(digests) <= MAX_PAGE_REFERRERS
        return ReferrersPage(listing.found, None if is_last else listing.last)

    async def read_records(self, digests: Sequence[Digest]) -> dict[Digest, SubjectRecord]:
        """Return the records of manifests, as far as the repository has them."""
        cached = {digest: self.store.subject_records.get(digest) for digest in digests}
        found = {digest: record for digest, record in cached.items() if record is not None}
        missing = [digest for digest in digests if digest not in found]
        paths = [layout.revision_subject(self.name, digest) for digest in missing]
        for digest, content in zip(missing, await self._read_many(paths), strict=True):
            record = None if content is None else SubjectRecord.from_bytes(digest, content)
            if record is not None:
                found[digest] = record
                self._cache_record(record)
        return found

    async def read_descriptor(self, record: SubjectRecord) -> bytes | None:
        """Return the descriptor of a record, or None if it is missing or damaged."""
        if record.is_inline:
            return record.descriptor
        path = layout.revision_descriptor(self.name, record.manifest)
        try:
            content: bytes = await self.store.driver.get(path, layout.MAX_MANIFEST_READ_BYTES)
        except StorageError:
            return None
        return content if record.matches(content) else None

    async def rebuild_record(self, digest: Digest) -> RebuiltRecord | None:
        """Make the record of a manifest from the manifest, and store it if that is possible.

        A record that another request has just made is used.

        :returns: None if the manifest is missing, damaged or invalid.
        """
        async with self.store.locks.lock(("subject record", self.name, digest)):
            found = (await self.read_records([digest])).get(digest)
            descriptor = None if found is None else await self.read_descriptor(found)
            if found is not None and descriptor is not None:
                return RebuiltRecord(found, descriptor, 0)
            stored = await self.store.cache.read_manifest(digest)
            parsed = None if stored is None else await self.parse(stored)
            if stored is None or parsed is None:
                return None
            size, is_declared = len(stored.content), bool(stored.media_type)
            record, descriptor = await self._make_record(
                digest, parsed[1], size, is_declared=is_declared
            )
            self._cache_record(record)
            await self._store_record(record, descriptor)
            return RebuiltRecord(record, descriptor, size)

    async def _make_record(
        self, digest: Digest, manifest: Manifest, size: int, *, is_declared: bool
    ) -> tuple[SubjectRecord, bytes]:
        # Annotations may be as large as the manifest.
        make = partial(make_record, digest, manifest, size, is_declared=is_declared)
        return await self.store.worker.run(size, make)

    async def _store_record(self, record: SubjectRecord, descriptor: bytes) -> None:
        writes, digest = self.store.optional_writes, record.manifest
        if not writes.are_possible:
            return
        record_path = layout.revision_subject(self.name, digest)
        descriptor_path = layout.revision_descriptor(self.name, digest)
        if not record.is_inline:
            await writes.put(descriptor_path, descriptor)
        await writes.put(record_path, record.to_bytes())
        (exists,) = await self.store.presence.manifests_exist(self.name, [digest])
        if not exists:
            # It was deleted meanwhile. A folder without a link would count as a revision.
            with suppress(StorageError):
                await self.store.bulk.delete_many([record_path, descriptor_path])
                revision = layout.revision_folder(self.name, digest)
                await folders(self.store.driver).prune([revision])

    def _cache_record(self, record: SubjectRecord) -> None:
        if record.is_declared:
            self.store.subject_records.put(record.manifest, record)

    async def _read_many(self, paths: Sequence[str]) -> Sequence[bytes | None]:
        """Read records; one that cannot be read counts as missing."""
        try:
            return await self.store.bulk.get_many(paths, MAX_RECORD_BYTES) if paths else ()
        except StorageError:
            return await map_concurrently(self._read_record, paths)

    async def _read_record(self, path: str) -> bytes | None:
        try:
            content: bytes = await self.store.driver.get(path, MAX_RECORD_BYTES)
        except StorageError:
            return None
        return content

    async def _linked_after(self, subject: Digest, after: str) -> list[Digest]:
        """Return the linked referrers of one page, and one more if there are more."""
        found: list[Digest] = []
        folder = layout.subject_folder(self.name, subject)
        for algorithm in await self._algorithms(folder):
            prefix = f"{algorithm}:"
            if after > prefix and not after.startswith(prefix):
                continue
            start = after.removeprefix(prefix) if after.startswith(prefix) else ""
            # A store need not accept other text as a position.
            first = start if _HEX_RE.fullmatch(start) else ""
            async for names in iterate_folders(self.store.bulk, f"{folder}/{algorithm}", first):
                for name in names:
                    if name <= start:
                        continue
                    with suppress(DigestInvalid):
                        found.append(Digest.parse(prefix + name))
                    if len(found) > MAX_PAGE_REFERRERS:
                        return found
        return found

    async def _algorithms(self, folder: str) -> list[str]:
        """Return the algorithms of the digests in a folder, in order."""
        found: list[str] = []
        async for names in iterate_folders(self.store.bulk, folder):
            found += [name for name in names if name in ALGORITHMS]
        return found

    async def _search_new_revisions(self, subject: Digest) -> Sequence[Digest]:
        """Search the revisions that were not searched before, and link those with a subject.

        :returns: the referrers of ``subject`` whose links could not be stored.
        """
        async with self.store.locks.lock(("referrers", self.name)):
            searched = await self._load_searched()
            await self._store_links(searched)
            if await self._search(searched):
                await self._save_searched(searched)
            return tuple(searched.unlinked.get(subject, ()))

    async def _search(self, searched: SearchedRevisions) -> bool:
        """Update ``searched``; return whether it should be stored."""
        present: dict[str, list[Sequence[str]]] = {algorithm: [] for algorithm in ALGORITHMS}
        folder = layout.revisions_folder(self.name)
        for algorithm in await self._algorithms(folder):
            async for names in iterate_folders(self.store.bulk, f"{folder}/{algorithm}"):
                present[algorithm].append(names)
        new, has_removed = searched.compare(present)
        for start in range(0, len(new), _BATCH_ENTRIES):
            await self._search_batch(searched, new[start : start + _BATCH_ENTRIES])
            # It stays done if the client disconnects.
            self._cache_searched(searched)
        return has_removed or searched.unsaved * _SAVE_DIVISOR > searched.count

    async def _search_batch(self, searched: SearchedRevisions, digests: Sequence[Digest]) -> None:
        async def search(digest: Digest) -> None:
            await self._search_revision(searched, digest)

        records = await self.read_records(digests)
        subjects = {
            digest: record.subject
            for digest, record in records.items()
            if record.subject is not None
        }
        linked = await self._linked(subjects)
        for digest in records:
            if digest not in subjects or digest in linked:
                searched.add(digest)
            else:
                await self._link(searched, subjects[digest], digest)
        await map_concurrently(search, (digest for digest in digests if digest not in records))

    async def _search_revision(self, searched: SearchedRevisions, digest: Digest) -> None:
        """Search a manifest without a record, unless it is missing, unreadable or damaged now."""
        try:
            content: bytes = await self.store.driver.get(
                layout.blob_data(digest), layout.MAX_MANIFEST_READ_BYTES
            )
        except StorageError:
            return
        may_have_subject = await self.store.worker.run(
            len(content), _may_have_subject, digest, content
        )
        if may_have_subject is None:
            # The push that repairs it may reach a registry that writes no link.
            return
        if not may_have_subject:
            searched.add(digest)
            return
        rebuilt = await self.rebuild_record(digest)
        if rebuilt is None or rebuilt.record.subject is None:
            searched.add(digest)
        else:
            await self._link(searched, rebuilt.record.subject, digest)

    async def _linked(self, subjects: Mapping[Digest, Digest]) -> set[Digest]:
        """Return which manifests, given with their subjects, are linked."""
        digests = list(subjects)
        paths = [
            layout.referrer_link(self.name, subject, digest) for digest, subject in subjects.items()
        ]
        contents = await self.store.bulk.get_many(paths, layout.MAX_LINK_BYTES) if paths else ()
        return {
            digest
            for digest, content in zip(digests, contents, strict=True)
            if content is not None and parse_link(content) == digest
        }

    async def _link(self, searched: SearchedRevisions, subject: Digest, digest: Digest) -> None:
        """Link a referrer that was found; keep it in memory if the link cannot be stored."""
        link = put_link(layout.referrer_link(self.name, subject, digest), digest)
        if await self.store.optional_writes.put(link.path, link.content, durable=True):
            searched.add(digest)
        else:
            searched.add_unlinked(subject, digest)

    async def _store_links(self, searched: SearchedRevisions) -> None:
        """Store the links that could not be stored before, if that is possible now."""
        pending = searched.unlinked if self.store.optional_writes.are_possible else {}
        for subject, digests in list(pending.items()):
            searched.unlinked.pop(subject)
            for digest in digests:
                await self._link(searched, subject, digest)

    async def _load_searched(self) -> SearchedRevisions:
        cached = self.store.searched_revisions.get(self.name)
        if cached is not None:
            return cached
        try:
            content = await self.store.driver.get(
                layout.referrers_scanned(self.name), _MAX_SEARCHED_BYTES
            )
        except PathNotFound:
            return SearchedRevisions()
        return SearchedRevisions.from_bytes(content)

    async def _save_searched(self, searched: SearchedRevisions) -> bool:
        """Cache and store the list of searched revisions; return whether it is stored."""
        self._cache_searched(searched)
        path = layout.referrers_scanned(self.name)
        if not await self.store.optional_writes.put(path, searched.to_bytes()):
            return False
        searched.unsaved = 0
        return True

    def _cache_searched(self, searched: SearchedRevisions) -> None:
        # Removed before its weight changes.
        self.store.searched_revisions.pop(self.name)
        searched.weight = max(1, searched.count)
        self.store.searched_revisions.put(self.name, searched)


@frozen
class RebuiltRecord:
    """A record that was made from its manifest.

    :ivar descriptor: as JSON.
    :ivar parsed_bytes: bytes of the manifest.
    """

    record: SubjectRecord
    descriptor: bytes
    parsed_bytes: int


@define(eq=False, repr=False)
class _Listing:
    """A page that is being made.

    :ivar found: the descriptors, as JSON.
    :ivar last: the last digest that was looked at, as text.
    :ivar is_full: whether the page ends although there may be more.
    """

    referrers: Referrers
    subject: Digest
    artifact_type: str | None
    max_bytes: int
    found: list[bytes] = field(init=False, factory=list)
    last: str | None = field(init=False, default=None)
    is_full: bool = field(init=False, default=False)
    _size: int = field(init=False, default=0)
    _parsed_bytes: int = field(init=False, default=0)

    async def add(self, digests: Sequence[Digest]) -> None:
        """Add the descriptors of linked manifests that exist, until the page is full."""
        referrers = self.referrers
        exist = await referrers.store.presence.manifests_exist(referrers.name, digests)
        existing = list(compress(digests, exist))
        records = await referrers.read_records(existing)
        missing = [digest for digest in existing if digest not in records]
        rebuilt: dict[Digest, RebuiltRecord] = {}
        for digest in digests:
            if missing and missing[0] == digest:
                if self._parsed_bytes > _MAX_PARSED_BYTES:
                    self.is_full = True
                    return
                await self._rebuild(missing[:MAX_CONCURRENT], rebuilt)
                del missing[:MAX_CONCURRENT]
            record = rebuilt[digest].record if digest in rebuilt else records.get(digest)
            if record is not None and self._is_wanted(record):
                if self.found and self._size + record.size + 1 > self.max_bytes:
                    self.is_full = True
                    return
                await self._add_descriptor(record, rebuilt.get(digest))
            self.last = str(digest)

    async def _rebuild(
        self, digests: Sequence[Digest], rebuilt: dict[Digest, RebuiltRecord]
    ) -> None:
        results = await map_concurrently(self.referrers.rebuild_record, digests)
        for digest, result in zip(digests, results, strict=True):
            if result is not None:
                rebuilt[digest] = result
                self._parsed_bytes += result.parsed_bytes

    def _is_wanted(self, record: SubjectRecord) -> bool:
        # A link may name a subject that the manifest does not name.
        return record.subject == self.subject and (
            self.artifact_type is None or record.has_artifact_type(self.artifact_type)
        )

    async def _add_descriptor(self, record: SubjectRecord, rebuilt: RebuiltRecord | None) -> None:
        if rebuilt is not None:
            descriptor: bytes | None = rebuilt.descriptor
        else:
            descriptor = await self.referrers.read_descriptor(record)
        if descriptor is None:
            # The separate file is missing or damaged.
            again: dict[Digest, RebuiltRecord] = {}
            await self._rebuild([record.manifest], again)
            descriptor = again[record.manifest].descriptor if again else None
        if descriptor is not None:
            self.found.append(descriptor)
            self._size += len(descriptor) + 1


def _may_have_subject(digest: Digest, content: bytes) -> bool | None:
    """Return whether a document can have the key "subject", without parsing it.

    :returns: None if it is damaged.
    """
    if not digest.matches(content):
        return None
    # In a key, letters may be written as escapes.
    return b'"subject"' in content or b"\\u" in content
