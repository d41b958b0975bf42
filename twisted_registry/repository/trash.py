"""Deleters, which remove content from a store, and the trash.

:class:`Deleter` removes for good. :class:`TrashDeleter` puts what it removes into the trash, below
``twisted-registry/trash``. Neither decides what to remove. :class:`Trash` lists and expires the
trash, and restores from it.

Content is never removed from its place before it is in the trash, power cuts included. Blobs and
links to blobs are moved there. Of a manifest and of a tag, which are links, a record is stored
durably in the trash before they are deleted. So a crash leaves at worst content that is in both
places.

Restored bytes are copied, not moved: there is no moment at which they are in neither place, and
they get a new time of modification, so that a collector that found them old before keeps them.
Restoring for a push takes place while the gate protects the digest, as for any push.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING
from uuid import uuid4

from attrs import field, frozen
from zope.interface import Attribute, Interface, implementer

from twisted_registry.oci.digest import Digest, DigestInvalid
from twisted_registry.oci.media_types import is_media_type
from twisted_registry.oci.names import is_name, is_tag
from twisted_registry.repository import layout
from twisted_registry.repository.concurrency import map_concurrently
from twisted_registry.repository.errors import translate_storage_errors
from twisted_registry.repository.inventory import iterate_files
from twisted_registry.repository.links import read_link, write_link
from twisted_registry.storage.fallbacks import bulk_lookup, folders
from twisted_registry.storage.interfaces import MoveRefused, PathNotFound, StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.storage.interfaces import Entry, IStorageDriver

# zope's methods have no self, and their bodies are their docstrings.
# ruff: noqa: N805
# mypy: disable-error-code="empty-body"

_TIME_FORMAT = "%Y%m%dT%H%M%S.%fZ"
#: Bytes of the record of a change of a tag that are read, at most.
MAX_TAG_RECORD_BYTES = 1024
#: The digest of a missing tag in such a record.
_NO_DIGEST = "-"


class TrashReason(Enum):
    """Why an entry was put into the trash.

    COLLECTED: a collector found that nothing needs it. DELETED: a client deleted it. MOVED: a tag
    names another manifest.
    """

    COLLECTED = "collected"
    DELETED = "deleted"
    MOVED = "moved"


class TrashedKind(Enum):
    """The kind of an entry: bytes, a repository's link to them, a manifest of it, a tag of it."""

    BLOB = "blob"
    LAYER = "layer"
    MANIFEST = "manifest"
    TAG = "tag"


_KIND_BY_FOLDER = {
    "_layers": TrashedKind.LAYER,
    "_revisions": TrashedKind.MANIFEST,
    "_tags": TrashedKind.TAG,
}


@frozen
class TrashEntryName:
    """The name of a file in the trash: time, reason, and a unique part.

    Names sort by time.

    :ivar seconds: when it was put there, in seconds since the epoch.
    """

    seconds: float
    reason: TrashReason
    unique: str

    @classmethod
    def make(cls, seconds: float, reason: TrashReason) -> TrashEntryName:
        """Return a new, unique name."""
        return cls(seconds, reason, uuid4().hex[:8])

    @classmethod
    def parse(cls, name: str) -> TrashEntryName:
        """Parse a name.

        :raises ValueError: if it is not valid.
        """
        time, reason, unique = name.split("-")
        moment = datetime.strptime(time, _TIME_FORMAT).replace(tzinfo=UTC)
        return cls(moment.timestamp(), TrashReason(reason), unique)

    def __str__(self) -> str:
        """Return the name."""
        moment = datetime.fromtimestamp(self.seconds, UTC)
        return f"{moment.strftime(_TIME_FORMAT)}-{self.reason.value}-{self.unique}"


@frozen
class TrashEntry:
    """One entry of the trash.

    :ivar path: the path of its file.
    :ivar repository: the repository from which it was removed; empty for a blob.
    :ivar tag: the name of the tag, if it is one; else empty.
    :ivar digest: None for a tag.
    :ivar size: the size of the file in bytes.
    :ivar modified: when the file was written, by the store's clock, in seconds since the epoch.
        A file that was moved keeps its time.
    """

    path: str
    kind: TrashedKind
    entry_name: TrashEntryName
    repository: str = ""
    tag: str = ""
    digest: Digest | None = None
    size: int = 0
    modified: float = 0.0

    @property
    def since(self) -> float:
        """When it was put into the trash, in seconds since the epoch, at the latest.

        Its name has the clock of a process, which may have been slow.
        """
        return max(self.entry_name.seconds, self.modified)

    @classmethod
    def parse(cls, entry: Entry) -> TrashEntry | None:
        """Parse the path of a file in the trash; return None if it is not an entry."""
        *parts, name = entry.path.removeprefix(f"{layout.TRASH}/").split("/")
        size, modified = entry.size or 0, entry.modified_s or 0.0
        try:
            entry_name = TrashEntryName.parse(name)
            if parts[0] == "blobs":
                digest = Digest.parse(f"{parts[1]}:{parts[3]}")
                return cls(
                    entry.path,
                    TrashedKind.BLOB,
                    entry_name,
                    digest=digest,
                    size=size,
                    modified=modified,
                )
            where = next(place for place, part in enumerate(parts) if part in _KIND_BY_FOLDER)
            kind, rest = _KIND_BY_FOLDER[parts[where]], parts[where + 1 :]
            repository = "/".join(parts[1:where])
            tag = rest[0] if kind is TrashedKind.TAG else ""
            linked = None if tag else Digest.parse(":".join(rest))
        except (ValueError, IndexError, StopIteration, DigestInvalid):
            return None
        if not is_name(repository) or (tag and not is_tag(tag)):
            return None
        return cls(entry.path, kind, entry_name, repository, tag, linked, size, modified)


@frozen
class TagChange:
    """One change of a tag.

    Its record in the trash has two lines: the new and the old digest, or ``-`` for no tag. It has
    both so that a record tells the state before and after it, even if its neighbours are lost.

    :ivar now: the digest that the tag names from then on; None if the tag was deleted.
    :ivar before: the digest that it named until then; None if there was no tag.
    :ivar seconds: the time of the change, in seconds since the epoch; it is not in the record.
    """

    now: Digest | None
    before: Digest | None
    seconds: float = 0.0

    def to_bytes(self) -> bytes:
        """Return the content of the record."""
        return f"{self.now or _NO_DIGEST}\n{self.before or _NO_DIGEST}\n".encode("ascii")

    @classmethod
    def from_bytes(cls, content: bytes, seconds: float = 0.0) -> TagChange | None:
        """Parse a record; return None if it is torn."""
        try:
            now, before, rest = content.decode("ascii").split("\n")
            if rest:
                return None
            return cls(_parse_optional_digest(now), _parse_optional_digest(before), seconds)
        except (ValueError, DigestInvalid):
            return None


def _parse_optional_digest(text: str) -> Digest | None:
    return None if text == _NO_DIGEST else Digest.parse(text)


class IDeleter(Interface):
    """Removes content from a store. Methods raise the errors of the storage driver."""

    keeps_deleted: bool = Attribute("Whether removed content, and changes of tags, are kept.")

    def delete_blob(digest: Digest, may_delete: Callable[[], bool]) -> Awaitable[bool]:
        """Remove the bytes of a blob or manifest, and return whether they were removed.

        :param may_delete: called right before the removal, on any thread; False keeps the bytes.
        :raises PathNotFound: if there are none.
        """

    def delete_layer(name: str, digest: Digest, reason: TrashReason) -> Awaitable[bool]:
        """Remove the link of a repository to a blob, and return whether there was one."""

    def delete_revision(name: str, digest: Digest, reason: TrashReason) -> Awaitable[bool]:
        """Remove a manifest from a repository, and return whether there was one."""

    def delete_tag(name: str, tag: str) -> Awaitable[bool]:
        """Remove a tag, and return whether there was one."""

    def record_tag_change(
        name: str, tag: str, before: Digest | None, now: Digest
    ) -> Awaitable[None]:
        """Record that a tag names a manifest now.

        :param before: the digest that it named before; None if there was no tag.
        """


@implementer(IDeleter)
@frozen(eq=False)
class Deleter:
    """Removes content for good."""

    keeps_deleted = False

    driver: IStorageDriver

    async def delete_blob(self, digest: Digest, may_delete: Callable[[], bool]) -> bool:
        """Delete the bytes."""
        if not may_delete():
            return False
        # Bytes that a power cut restores are removed by the next collection.
        await self.driver.delete(layout.blob_folder(digest), durable=False)
        return True

    async def delete_layer(self, name: str, digest: Digest, reason: TrashReason) -> bool:
        """Delete the link."""
        durable = reason is not TrashReason.COLLECTED
        return await _delete_existing(
            self.driver, layout.layer_folder(name, digest), durable=durable
        )

    async def delete_revision(self, name: str, digest: Digest, reason: TrashReason) -> bool:  # noqa: ARG002
        """Delete the link and the media type."""
        return await _delete_existing(self.driver, layout.revision_folder(name, digest))

    async def delete_tag(self, name: str, tag: str) -> bool:
        """Delete the tag."""
        return await _delete_existing(self.driver, layout.tag_folder(name, tag))

    async def record_tag_change(
        self, name: str, tag: str, before: Digest | None, now: Digest
    ) -> None:
        """Do nothing."""


@implementer(IDeleter)
@frozen(eq=False)
class TrashDeleter:
    """Moves removed content into the trash.

    :ivar clock: the time of new entries.
    """

    keeps_deleted = True

    driver: IStorageDriver
    clock: IReactorTime

    async def delete_blob(self, digest: Digest, may_delete: Callable[[], bool]) -> bool:
        """Move the bytes. If the driver copies them, ``may_delete`` is called after the copy."""
        path = self._new_path(layout.trashed_blob_folder(digest), TrashReason.COLLECTED)
        try:
            await self.driver.move(layout.blob_data(digest), path, still=may_delete)
        except MoveRefused:
            return False
        await folders(self.driver).prune([layout.blob_folder(digest)])
        return True

    async def delete_layer(self, name: str, digest: Digest, reason: TrashReason) -> bool:
        """Move the link."""
        path = self._new_path(layout.trashed_layer_folder(name, digest), reason)
        deleted = True
        try:
            await self.driver.move(layout.layer_link(name, digest), path)
        except PathNotFound:
            deleted = False
        await folders(self.driver).prune([layout.layer_folder(name, digest)])
        return deleted

    async def delete_revision(self, name: str, digest: Digest, reason: TrashReason) -> bool:
        """Record the media type, if the manifest declares none, and delete the manifest."""
        media_type = b""
        with suppress(PathNotFound):
            media_type = await self.driver.get(
                layout.revision_media_type(name, digest), layout.MAX_MEDIA_TYPE_BYTES
            )
        path = self._new_path(layout.trashed_revision_folder(name, digest), reason)
        await self.driver.put(path, media_type)
        return await _delete_existing(self.driver, layout.revision_folder(name, digest))

    async def delete_tag(self, name: str, tag: str) -> bool:
        """Record the digest that the tag names, and delete the tag."""
        before = await read_link(self.driver, layout.tag_current_link(name, tag))
        if before is not None:
            path = self._new_path(layout.trashed_tag_folder(name, tag), TrashReason.DELETED)
            await self.driver.put(path, TagChange(None, before).to_bytes())
        return await _delete_existing(self.driver, layout.tag_folder(name, tag))

    async def record_tag_change(
        self, name: str, tag: str, before: Digest | None, now: Digest
    ) -> None:
        """Store a record. It is not synced: a power cut may lose it."""
        path = self._new_path(layout.trashed_tag_folder(name, tag), TrashReason.MOVED)
        await self.driver.put(path, TagChange(now, before).to_bytes(), durable=False)

    def _new_path(self, folder: str, reason: TrashReason) -> str:
        return f"{folder}/{TrashEntryName.make(self.clock.seconds(), reason)}"


async def _delete_existing(driver: IStorageDriver, path: str, *, durable: bool = True) -> bool:
    try:
        await driver.delete(path, durable=durable)
    except PathNotFound:
        return False
    return True


@frozen
class RecoverableManifest:
    """A manifest that can be restored.

    :ivar media_type: None if the manifest declares it, or if it is unknown.
    """

    content: bytes = field(repr=False)
    media_type: str | None


@frozen(eq=False)
class Trash:
    """The trash of one store. All methods raise :class:`RegistryError` if the store fails."""

    driver: IStorageDriver

    async def pages(self, folder: str = layout.TRASH) -> AsyncIterator[list[TrashEntry]]:
        """Yield all entries in batches; those of the same content in the order of time.

        :param folder: only entries below this folder.
        """
        async for files in iterate_files(self.driver, folder):
            entries = map(TrashEntry.parse, files)
            yield [entry for entry in entries if entry is not None]

    async def list_folder(self, folder: str) -> list[TrashEntry]:
        """Return the entries below a folder, in the order of time."""
        return [entry async for page in self.pages(folder) for entry in page]

    @translate_storage_errors
    async def read_entry(self, entry: TrashEntry, limit: int) -> bytes | None:
        """Return the bytes of an entry, or None if it no longer exists.

        :param limit: the most bytes to read.
        """
        try:
            return await self.driver.get(entry.path, limit)
        except PathNotFound:
            return None

    @translate_storage_errors
    async def remove_entries(self, entries: Sequence[TrashEntry]) -> None:
        """Remove entries for good; those that no longer exist are skipped."""
        paths = [entry.path for entry in entries]
        await bulk_lookup(self.driver).delete_many(paths)
        parents = {folder for path in paths for folder in _parent_folders(path)}
        await folders(self.driver).prune(sorted(parents, key=len, reverse=True))

    async def remaining_entries(self, entries: Sequence[TrashEntry]) -> set[TrashEntry]:
        """Return the entries that exist, or may exist because the store does not tell."""

        async def exists(entry: TrashEntry) -> bool:
            try:
                await self.driver.stat(entry.path)
            except PathNotFound:
                return False
            except StorageError:
                return True
            return True

        found = await map_concurrently(exists, entries)
        return {entry for entry, remains in zip(entries, found, strict=True) if remains}

    @translate_storage_errors
    async def blob_size(self, digest: Digest) -> int | None:
        """Return the size of a blob or manifest in the store, in bytes, or None if there is none.

        An empty file counts as missing, unless the digest is that of empty content.
        """
        try:
            size = (await self.driver.stat(layout.blob_data(digest))).size
        except PathNotFound:
            return None
        return None if not size and not digest.is_of_empty_content else size

    async def has_blob(self, digest: Digest) -> bool:
        """Return whether the trash has the bytes of a digest."""
        return bool(await self.list_folder(layout.trashed_blob_folder(digest)))

    @translate_storage_errors
    async def restore_blob(self, digest: Digest) -> int | None:
        """Restore the bytes of a blob or manifest, unless the store has them.

        :returns: the size in bytes; None if the trash has none either.
        """
        size = await self.blob_size(digest)
        if size is not None:
            return size
        entries = await self.list_folder(layout.trashed_blob_folder(digest))
        for entry in reversed(entries):
            try:
                await self.driver.copy(entry.path, layout.blob_data(digest))
            except PathNotFound:
                # It was removed or restored meanwhile.
                continue
            await self.remove_entries(entries)
            return entry.size
        return await self.blob_size(digest)

    @translate_storage_errors
    async def restore_layer(self, name: str, digest: Digest) -> bool:
        """Restore a blob that a collector has removed from a repository.

        A blob that a client has deleted is not restored.

        :returns: whether it was restored.
        """
        entries = await self.collected_layer_entries(name, digest)
        if not entries or await self.restore_blob(digest) is None:
            return False
        await write_link(self.driver, layout.layer_link(name, digest), digest)
        await self.remove_entries(entries)
        return True

    async def collected_layer_entries(self, name: str, digest: Digest) -> list[TrashEntry]:
        """Return the entries of a repository's link to a blob that a collector has removed.

        :returns: an empty list if a client has deleted it since.
        """
        return _if_collected(await self.list_folder(layout.trashed_layer_folder(name, digest)))

    async def find_collected_manifest(
        self, name: str, digest: Digest
    ) -> RecoverableManifest | None:
        """Return a manifest that a collector has removed from a repository, or None."""
        entries = _if_collected(
            await self.list_folder(layout.trashed_revision_folder(name, digest))
        )
        return await self.find_manifest(digest, entries[-1]) if entries else None

    @translate_storage_errors
    async def find_manifest(
        self, digest: Digest, record: TrashEntry | None
    ) -> RecoverableManifest | None:
        """Return a manifest from the store or the trash, or None if it is missing or damaged.

        :param record: the record of its removal from its repository.
        """
        content = await self._find_content(digest)
        if content is None or not digest.matches(content):
            return None
        stored = None
        if record is not None:
            stored = await self.read_entry(record, layout.MAX_MEDIA_TYPE_BYTES)
        media_type = (stored or b"").decode("ascii", "replace")
        return RecoverableManifest(content, media_type if is_media_type(media_type) else None)

    async def discard_restored(self, name: str, digest: Digest) -> None:
        """Remove the entries of a manifest that is in its repository again."""
        for folder in (
            layout.trashed_revision_folder(name, digest),
            layout.trashed_blob_folder(digest),
        ):
            entries = await self.list_folder(folder)
            if entries:
                await self.remove_entries(entries)

    async def tag_changes(self, name: str, tag: str) -> list[TagChange]:
        """Return the recorded changes of a tag in the order of time, without torn records."""
        changes = []
        for entry in await self.list_folder(layout.trashed_tag_folder(name, tag)):
            content = await self.read_entry(entry, MAX_TAG_RECORD_BYTES)
            change = TagChange.from_bytes(content or b"", entry.entry_name.seconds)
            if change is not None:
                changes.append(change)
        return changes

    @translate_storage_errors
    async def tag_at(self, name: str, tag: str, seconds: float | None) -> Digest | None:
        """Return the digest that a tag named at some time, or None if there was no tag.

        :param seconds: since the epoch; None means before the latest change.
        """
        changes = await self.tag_changes(name, tag)
        if seconds is None:
            return changes[-1].before if changes else None
        # The next change tells the digest before it, also if the record of an earlier one is lost.
        for change in changes:
            if change.seconds > seconds:
                return change.before
        return await read_link(self.driver, layout.tag_current_link(name, tag))

    async def _find_content(self, digest: Digest) -> bytes | None:
        try:
            return await self.driver.get(layout.blob_data(digest), layout.MAX_MANIFEST_READ_BYTES)
        except PathNotFound:
            for entry in reversed(await self.list_folder(layout.trashed_blob_folder(digest))):
                content = await self.read_entry(entry, layout.MAX_MANIFEST_READ_BYTES)
                if content is not None:
                    return content
        return None


def _parent_folders(path: str) -> Iterator[str]:
    """Yield the folders of the trash that contain a file."""
    while (path := path.rpartition("/")[0]) != layout.TRASH:
        yield path


def _if_collected(entries: list[TrashEntry]) -> list[TrashEntry]:
    if entries and entries[-1].entry_name.reason is TrashReason.COLLECTED:
        return entries
    return []
