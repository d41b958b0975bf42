"""Links, read many at a time: which are whole, and how those can be mended that are not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define

from twisted_registry.digest import Digest, DigestInvalid
from twisted_registry.repository import layout
from twisted_registry.repository.checking.damage import Finding, Kind, Severity
from twisted_registry.repository.links import read_link, write_link
from twisted_registry.storage.interfaces import PathNotFound, StorageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from twisted_registry.repository.checking.placing import Place
    from twisted_registry.repository.checking.shelf import Shelf
    from twisted_registry.storage.interfaces import IStorageDriver

#: Bytes of a link.
_LIMIT = 64 * 1024


@define(eq=False)
class Links:
    """The links of a store."""

    driver: IStorageDriver
    shelf: Shelf

    async def read(self, places: Sequence[Place]) -> list[Digest | Finding | None]:
        """Read links, in the order asked for.

        :returns: of each the digest that it holds, or what is wrong with it; None if it is gone.
        """
        contents = await self._contents([place.path for place in places])
        return [_judged(place, content) for place, content in zip(places, contents, strict=True)]

    async def hold(self, paths: Sequence[str], digests: Sequence[Digest]) -> list[bool]:
        """Whether each link holds the digest that stands at its place in ``digests``."""
        contents = await self._contents(paths)
        return [
            isinstance(content, bytes) and content.decode("ascii", "replace").strip() == str(digest)
            for content, digest in zip(contents, digests, strict=True)
        ]

    async def mended(
        self, finding: Finding, place: Place, target: Callable[[], Awaitable[bool]]
    ) -> Finding:
        """Let the repair of a broken link be that it says again what its path says.

        If what it leads to is not there, it is taken away.

        :param target: asks whether it is.
        """
        digest = place.digest
        assert digest is not None

        async def repair() -> bool:
            if await self._is_whole(place):
                return False
            if await target():
                await write_link(self.driver, place.path, digest)
                return True
            return await self.shelf.take(place.path)

        return Finding(
            finding.kind, place.path, finding.detail, digest, place.repository,
            repair=repair, silence=None if await target() else digest,
        )  # fmt: skip

    def dangling(
        self,
        place: Place,
        why: str,
        target: Callable[[], Awaitable[bool]],
        severity: Severity = Severity.DAMAGE,
    ) -> Finding:
        """What is found when a link leads nowhere; it is repaired by taking the link away.

        :param target: asks whether what it leads to is there by now.
        """

        async def repair() -> bool:
            return not await target() and await self.shelf.take(place.path)

        return Finding(
            Kind.LINK_DANGLING, place.path, f"{place.what.value}, {why}", place.digest,
            place.repository, severity=severity, repair=repair, silence=place.digest,
        )  # fmt: skip

    async def is_there(self, place: Place) -> bool:
        """Whether a link has not gone meanwhile."""
        try:
            await self.driver.stat(place.path)
        except PathNotFound:
            return False
        return True

    async def has_bytes(self, digest: Digest) -> bool:
        """Whether there is anything under a digest, as it is now.

        So it is taken to be where that can not be told: nothing is taken away for it.
        """
        try:
            entry = await self.driver.stat(layout.blob(digest))
        except PathNotFound:
            return False
        except StorageError:
            return True
        return bool(entry.size) or digest.is_of_nothing

    async def _is_whole(self, place: Place) -> bool:
        return await read_link(self.driver, place.path) == place.digest

    async def _contents(self, paths: Sequence[str]) -> Sequence[bytes | StorageError | None]:
        try:
            return await self.driver.get_many(paths, _LIMIT)
        except StorageError:
            # One by one, so that a bad one does not hide the others.
            return [await self._content(path) for path in paths]

    async def _content(self, path: str) -> bytes | StorageError | None:
        try:
            return await self.driver.get(path, _LIMIT)
        except PathNotFound:
            return None
        except StorageError as error:
            return error


def _judged(place: Place, content: bytes | StorageError | None) -> Digest | Finding | None:
    if content is None:
        return None
    what = place.what.value
    if isinstance(content, StorageError):
        kind, detail = Kind.FILE_UNREADABLE, f"{what}, {content.reason}"
    elif not content.strip():
        kind, detail = Kind.LINK_EMPTY, what
    else:
        try:
            digest = Digest.parse(content.decode("ascii", "replace").strip())
        except DigestInvalid:
            kind, detail = Kind.LINK_MALFORMED, what
        else:
            if place.digest in {None, digest}:
                return digest
            kind, detail = Kind.LINK_MALFORMED, f"{what}, it names {digest}"
    return Finding(kind, place.path, detail, place.digest, place.repository)
