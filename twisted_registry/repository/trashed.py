"""What is in the trash of a store, and how it goes for good."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from attrs import define, frozen

from twisted_registry.digest import Digest, DigestInvalid
from twisted_registry.reference import is_name, is_tag
from twisted_registry.repository import layout
from twisted_registry.repository.failures import translated
from twisted_registry.repository.stamps import Stamp
from twisted_registry.storage.interfaces import PathNotFound
from twisted_registry.value import Value

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from twisted_registry.storage.interfaces import Entry, IStorageDriver

_PAGE = 1000


class Kind(Enum):
    """What was removed: bytes, a repository's link to them, a manifest of it, a tag of it."""

    BLOB = "blob"
    LAYER = "layer"
    MANIFEST = "manifest"
    TAG = "tag"


_KINDS = {"_layers": Kind.LAYER, "_revisions": Kind.MANIFEST, "_tags": Kind.TAG}


@frozen(eq=False, repr=False)
class Trashed(Value):
    """One thing in the trash.

    :ivar path: of its file.
    :ivar repository: out of which it was taken; empty for a blob.
    :ivar tag: its name, if it is one; else empty.
    :ivar digest: None for a tag.
    :ivar size: bytes of the file.
    """

    path: str
    kind: Kind
    stamp: Stamp
    repository: str = ""
    tag: str = ""
    digest: Digest | None = None
    size: int = 0


@define(eq=False, repr=False)
class TrashCan:
    """The trash of one store."""

    driver: IStorageDriver

    async def pages(self, below: str = layout.TRASH) -> AsyncIterator[list[Trashed]]:
        """Yield all that is there, in batches: what lies in one folder in the order of time.

        :param below: only what is in this folder.
        """
        last = ""
        while True:
            entries = await self._walk(below, last)
            found = (told_by_path(entry) for entry in entries)
            yield [item for item in found if item is not None]
            if len(entries) < _PAGE:
                return
            last = entries[-1].path

    async def folder(self, path: str) -> list[Trashed]:
        """What lies in one folder of the trash, in the order of time."""
        return [item async for page in self.pages(path) for item in page]

    @translated
    async def remove(self, items: Sequence[Trashed]) -> None:
        """Remove things for good; those that are gone are passed over."""
        paths = [item.path for item in items]
        await self.driver.delete_many(paths)
        folders = {folder for path in paths for folder in _above(path)}
        await self.driver.prune(sorted(folders, key=len, reverse=True))

    @translated
    async def content(self, item: Trashed, limit: int) -> bytes | None:
        """The bytes of a file in the trash, or None if it is gone.

        :param limit: bytes.
        """
        try:
            return await self.driver.get(item.path, limit)
        except PathNotFound:
            return None

    @translated
    async def _walk(self, below: str, after: str) -> Sequence[Entry]:
        return await self.driver.walk(below, after, _PAGE)


def _above(path: str) -> Iterable[str]:
    """The folders of the trash that a file lies in."""
    while (path := path.rpartition("/")[0]) != layout.TRASH:
        yield path


def told_by_path(entry: Entry) -> Trashed | None:
    """Tell what a file in the trash is by its path; None if it is none of ours."""
    *parts, name = entry.path.removeprefix(f"{layout.TRASH}/").split("/")
    try:
        stamp = Stamp.parse(name)
        if parts[0] == "blobs":
            digest = Digest.parse(f"{parts[1]}:{parts[3]}")
            return Trashed(entry.path, Kind.BLOB, stamp, digest=digest, size=entry.size or 0)
        where = next(place for place, part in enumerate(parts) if part in _KINDS)
        kind, repository, rest = _KINDS[parts[where]], "/".join(parts[1:where]), parts[where + 1 :]
        tag = rest[0] if kind is Kind.TAG else ""
        held = None if tag else Digest.parse(":".join(rest))
    except (ValueError, IndexError, StopIteration, DigestInvalid):
        return None
    if not is_name(repository) or (tag and not is_tag(tag)):
        return None
    return Trashed(entry.path, kind, stamp, repository, tag, held, entry.size or 0)
