"""When and why something was put into the trash: the names of the files there.

Such a name begins with the time, so that names sort by it, then says why, then ends with some
letters that make it unique. Nothing else need be kept of a blob, and nothing is opened to tell
whether its time has come.

What is kept of one change of a tag: what it named before, and what it named then.

A text file of two lines, the later one first, each a digest, or ``-`` for no tag. Both are there,
so that one record that is left tells the state on both of its sides.

How things are taken out of a store: for good, or into the trash.

Whoever removes a blob, a link or a tag does it through one of these. Neither decides what may go.

Nothing is ever gone from its place before it is in the trash, power cuts included: a blob and the
link to one are moved there; of a manifest and of a tag, which are links as well, a record is
written there first, and lasts, before they are removed. So a crash leaves at worst something that
is in both places.

What is in the trash of a store, and how it goes for good.

What a tag named when, as far as the trash knows.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, ClassVar
from uuid import uuid4

from attrs import define, frozen

from twisted_registry.oci.digest import Digest, DigestInvalid
from twisted_registry.oci.names import is_name, is_tag
from twisted_registry.repository import layout
from twisted_registry.repository.errors import translate_storage_errors
from twisted_registry.repository.links import read_link
from twisted_registry.storage.fallbacks import bulk_lookup, folders
from twisted_registry.storage.interfaces import MoveRefused, PathNotFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.storage.interfaces import Entry, IStorageDriver

_TIME_FORMAT = "%Y%m%dT%H%M%S.%fZ"


class TrashReason(Enum):
    """Why it was put there.

    COLLECTED: a collector found that nothing needs it. DELETED: somebody asked for it. MOVED: a tag
    names something else.
    """

    COLLECTED = "collected"
    DELETED = "deleted"
    MOVED = "moved"


@frozen
class TrashEntry:
    """The name of a file in the trash.

    :ivar seconds: when it was put there, in seconds since the epoch.
    """

    seconds: float
    reason: TrashReason
    unique: str

    @classmethod
    def make(cls, seconds: float, reason: TrashReason) -> TrashEntry:
        """A new one, unlike all others."""
        return cls(seconds, reason, uuid4().hex[:8])

    @classmethod
    def parse(cls, name: str) -> TrashEntry:
        """Read a name.

        :raises ValueError: if it is none of ours.
        """
        time, reason, unique = name.split("-")
        return cls(_seconds(time), TrashReason(reason), unique)

    def __str__(self) -> str:
        """The name."""
        moment = datetime.fromtimestamp(self.seconds, UTC)
        return f"{moment.strftime(_TIME_FORMAT)}-{self.reason.value}-{self.unique}"


def _seconds(time: str) -> float:
    return datetime.strptime(time, _TIME_FORMAT).replace(tzinfo=UTC).timestamp()


_NOTHING = "-"


@frozen
class TagChangeRecord:
    """One change.

    :ivar now: what the tag named from then on; None if it was removed.
    :ivar before: what it named until then; None if there was none.
    """

    now: Digest | None
    before: Digest | None

    def to_bytes(self) -> bytes:
        """The content of the file."""
        return f"{self.now or _NOTHING}\n{self.before or _NOTHING}\n".encode("ascii")

    @classmethod
    def from_bytes(cls, content: bytes) -> TagChangeRecord | None:
        """Read the file; None if it is torn."""
        try:
            now, before, rest = content.decode("ascii").split("\n")
            return None if rest else cls(_parse(now), _parse(before))
        except (ValueError, DigestInvalid):
            return None


def _parse(text: str) -> Digest | None:
    return None if text == _NOTHING else Digest.parse(text)


#: Bytes of a media type.
_MAX_MEDIA_TYPE_BYTES = 1024


class Deleter:
    """Removes for good. All methods raise the storage's errors."""

    #: whether :meth:`record_tag_change` wants to hear of tags
    keeps_deleted: ClassVar[bool] = False

    def __init__(self, driver: IStorageDriver) -> None:
        self.driver = driver

    async def delete_blob(self, digest: Digest, still: Callable[[], bool]) -> bool:
        """Remove the bytes of a blob or manifest, and return whether they are gone.

        :param still: whether they may go, asked at the last moment, on whatever thread.
        :raises PathNotFound: if there are none.
        """
        if not still():
            return False
        # What a power cut brings back is garbage, and goes with the next collection.
        await self.driver.delete(layout.blob_folder(digest), durable=False)
        return True

    async def delete_layer(self, name: str, digest: Digest, reason: TrashReason) -> None:
        """Remove the link of a repository to a blob; one that is not there is passed over."""
        with suppress(PathNotFound):
            await self.driver.delete(
                layout.layer(name, digest), durable=reason is not TrashReason.COLLECTED
            )

    async def delete_revision(self, name: str, digest: Digest, reason: TrashReason) -> None:  # noqa: ARG002
        """Take a manifest out of a repository.

        :raises PathNotFound: if it does not hold it.
        """
        await self.driver.delete(layout.revision(name, digest))

    async def delete_tag(self, name: str, tag: str) -> None:
        """Remove a tag.

        :raises PathNotFound: if there is no such tag.
        """
        await self.driver.delete(layout.tag(name, tag))

    async def record_tag_change(
        self, name: str, tag: str, before: Digest | None, now: Digest
    ) -> None:
        """Hear that a tag names a manifest now.

        :param before: what it named before; None if it was not there.
        """


class Trash(Deleter):
    """Keeps what is removed, below ``twisted-registry/trash`` in the store.

    :ivar clock: tells when something was put there.
    """

    keeps_deleted: ClassVar[bool] = True

    def __init__(self, driver: IStorageDriver, clock: IReactorTime) -> None:
        super().__init__(driver)
        self.folders = folders(driver)
        self.clock = clock

    async def delete_blob(self, digest: Digest, still: Callable[[], bool]) -> bool:
        """Move the bytes; where that takes time, ``still`` is asked when they are there."""
        path = f"{layout.trashed_blob(digest)}/{self._new_entry(TrashReason.COLLECTED)}"
        try:
            await self.driver.move(layout.blob(digest), path, still=still)
        except MoveRefused:
            return False
        await self.folders.prune([layout.blob_folder(digest)])
        return True

    async def delete_layer(self, name: str, digest: Digest, reason: TrashReason) -> None:
        """Move the link."""
        path = f"{layout.trashed_layer(name, digest)}/{self._new_entry(reason)}"
        with suppress(PathNotFound):
            await self.driver.move(layout.layer_link(name, digest), path)
        await self.folders.prune([layout.layer(name, digest)])

    async def delete_revision(self, name: str, digest: Digest, reason: TrashReason) -> None:
        """Keep the media type, if the manifest does not tell its own, and that it was there."""
        media_type = b""
        with suppress(PathNotFound):
            media_type = await self.driver.get(
                layout.revision_media_type(name, digest), _MAX_MEDIA_TYPE_BYTES
            )
        path = f"{layout.trashed_revision(name, digest)}/{self._new_entry(reason)}"
        await self.driver.put(path, media_type)
        await super().delete_revision(name, digest, reason)

    async def delete_tag(self, name: str, tag: str) -> None:
        """Keep what it named."""
        before = await read_link(self.driver, layout.tag_current(name, tag))
        if before is not None:
            record = TagChangeRecord(None, before)
            await self.driver.put(
                self._tag_entry_path(name, tag, TrashReason.DELETED), record.to_bytes()
            )
        await super().delete_tag(name, tag)

    async def record_tag_change(
        self, name: str, tag: str, before: Digest | None, now: Digest
    ) -> None:
        """Keep what it named and names. It is not synced: a power cut may cost the record."""
        record = TagChangeRecord(now, before)
        path = self._tag_entry_path(name, tag, TrashReason.MOVED)
        await self.driver.put(path, record.to_bytes(), durable=False)

    def _tag_entry_path(self, name: str, tag: str, reason: TrashReason) -> str:
        return f"{layout.trashed_tag(name, tag)}/{self._new_entry(reason)}"

    def _new_entry(self, reason: TrashReason) -> TrashEntry:
        return TrashEntry.make(self.clock.seconds(), reason)


_PAGE_ENTRIES = 1000


class TrashedKind(Enum):
    """What was removed: bytes, a repository's link to them, a manifest of it, a tag of it."""

    BLOB = "blob"
    LAYER = "layer"
    MANIFEST = "manifest"
    TAG = "tag"


_KINDS = {
    "_layers": TrashedKind.LAYER,
    "_revisions": TrashedKind.MANIFEST,
    "_tags": TrashedKind.TAG,
}


@frozen
class TrashedItem:
    """One thing in the trash.

    :ivar path: of its file.
    :ivar repository: out of which it was taken; empty for a blob.
    :ivar tag: its name, if it is one; else empty.
    :ivar digest: None for a tag.
    :ivar size: bytes of the file.
    """

    path: str
    kind: TrashedKind
    entry_name: TrashEntry
    repository: str = ""
    tag: str = ""
    digest: Digest | None = None
    size: int = 0


@define(eq=False, repr=False)
class TrashContents:
    """The trash of one store."""

    driver: IStorageDriver

    async def pages(self, below: str = layout.TRASH) -> AsyncIterator[list[TrashedItem]]:
        """Yield all that is there, in batches: what lies in one folder in the order of time.

        :param below: only what is in this folder.
        """
        last = ""
        while True:
            entries = await self._walk(below, last)
            found = (parse_trash_path(entry) for entry in entries)
            yield [item for item in found if item is not None]
            if len(entries) < _PAGE_ENTRIES:
                return
            last = entries[-1].path

    async def folder(self, path: str) -> list[TrashedItem]:
        """What lies in one folder of the trash, in the order of time."""
        return [item async for page in self.pages(path) for item in page]

    @translate_storage_errors
    async def remove(self, items: Sequence[TrashedItem]) -> None:
        """Remove things for good; those that are gone are passed over."""
        paths = [item.path for item in items]
        await bulk_lookup(self.driver).delete_many(paths)
        parents = {folder for path in paths for folder in _parent_folders(path)}
        await folders(self.driver).prune(sorted(parents, key=len, reverse=True))

    @translate_storage_errors
    async def content(self, item: TrashedItem, limit: int) -> bytes | None:
        """The bytes of a file in the trash, or None if it is gone.

        :param limit: bytes.
        """
        try:
            return await self.driver.get(item.path, limit)
        except PathNotFound:
            return None

    @translate_storage_errors
    async def _walk(self, below: str, after: str) -> Sequence[Entry]:
        return await self.driver.walk(below, after, _PAGE_ENTRIES)


def _parent_folders(path: str) -> Iterable[str]:
    """The folders of the trash that a file lies in."""
    while (path := path.rpartition("/")[0]) != layout.TRASH:
        yield path


def parse_trash_path(entry: Entry) -> TrashedItem | None:
    """Tell what a file in the trash is by its path; None if it is none of ours."""
    *parts, name = entry.path.removeprefix(f"{layout.TRASH}/").split("/")
    try:
        entry_name = TrashEntry.parse(name)
        if parts[0] == "blobs":
            digest = Digest.parse(f"{parts[1]}:{parts[3]}")
            return TrashedItem(
                entry.path, TrashedKind.BLOB, entry_name, digest=digest, size=entry.size or 0
            )
        where = next(place for place, part in enumerate(parts) if part in _KINDS)
        kind, repository, rest = _KINDS[parts[where]], "/".join(parts[1:where]), parts[where + 1 :]
        tag = rest[0] if kind is TrashedKind.TAG else ""
        held = None if tag else Digest.parse(":".join(rest))
    except (ValueError, IndexError, StopIteration, DigestInvalid):
        return None
    if not is_name(repository) or (tag and not is_tag(tag)):
        return None
    return TrashedItem(entry.path, kind, entry_name, repository, tag, held, entry.size or 0)


#: Bytes of a record.
_MAX_RECORD_BYTES = 1024


@frozen
class TagChange:
    """One change of a tag.

    :ivar seconds: when it was, in seconds since the epoch.
    :ivar before: what it named until then; None if there was none.
    :ivar now: what it named from then on; None if it was removed.
    """

    seconds: float
    before: Digest | None
    now: Digest | None


@define(eq=False)
class TagHistory:
    """The histories of all tags of a store."""

    driver: IStorageDriver

    async def changes(self, name: str, tag: str) -> Sequence[TagChange]:
        """What is known of a tag, in the order of time; torn records are passed over."""
        contents = TrashContents(self.driver)
        found = []
        for item in await contents.folder(layout.trashed_tag(name, tag)):
            record = TagChangeRecord.from_bytes(
                await contents.content(item, _MAX_RECORD_BYTES) or b""
            )
            if record is not None:
                found.append(TagChange(item.entry_name.seconds, record.before, record.now))
        return found

    @translate_storage_errors
    async def tag_at(self, name: str, tag: str, seconds: float | None) -> Digest | None:
        """What a tag named at some time, or None if it was not there.

        :param seconds: since the epoch; None means before the latest change.
        """
        changes = await self.changes(name, tag)
        if seconds is None:
            return changes[-1].before if changes else None
        # What the next change replaced is what was there, also if a record before it is lost.
        for change in changes:
            if change.seconds > seconds:
                return change.before
        return await read_link(self.driver, layout.tag_current(name, tag))
