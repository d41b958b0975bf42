"""What is in the trash of a store, and how it goes for good."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from attrs import define, frozen

from twisted_registry.digest import Digest, DigestInvalid
from twisted_registry.reference import is_name, is_tag
from twisted_registry.repository import layout
from twisted_registry.repository.failures import translate_storage_errors
from twisted_registry.repository.stamps import TrashEntry
from twisted_registry.storage.interfaces import PathNotFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from twisted_registry.storage.interfaces import Entry, IStorageDriver

_PAGE_ENTRIES = 1000


class TrashedKind(Enum):
    """What was removed: bytes, a repository's link to them, a manifest of it, a tag of it."""

    BLOB = "blob"
    LAYER = "layer"
    MANIFEST = "manifest"
    TAG = "tag"


_KINDS = {"_layers": TrashedKind.LAYER, "_revisions": TrashedKind.MANIFEST, "_tags": TrashedKind.TAG}


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
        await self.driver.delete_many(paths)
        folders = {folder for path in paths for folder in _parent_folders(path)}
        await self.driver.prune(sorted(folders, key=len, reverse=True))

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
            return TrashedItem(entry.path, TrashedKind.BLOB, entry_name, digest=digest, size=entry.size or 0)
        where = next(place for place, part in enumerate(parts) if part in _KINDS)
        kind, repository, rest = _KINDS[parts[where]], "/".join(parts[1:where]), parts[where + 1 :]
        tag = rest[0] if kind is TrashedKind.TAG else ""
        held = None if tag else Digest.parse(":".join(rest))
    except (ValueError, IndexError, StopIteration, DigestInvalid):
        return None
    if not is_name(repository) or (tag and not is_tag(tag)):
        return None
    return TrashedItem(entry.path, kind, entry_name, repository, tag, held, entry.size or 0)
