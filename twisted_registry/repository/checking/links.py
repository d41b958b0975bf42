"""Links, read many at a time: which are whole, and how those can be mended that are not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define

from twisted_registry.digest import Digest, DigestInvalid
from twisted_registry.repository import layout
from twisted_registry.repository.checking.damage import Finding, FindingKind, Severity
from twisted_registry.repository.links import read_link, write_link
from twisted_registry.storage.interfaces import PathNotFound, StorageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from twisted_registry.repository.checking.placing import ClassifiedPath
    from twisted_registry.repository.checking.shelf import Quarantine
    from twisted_registry.storage.interfaces import IStorageDriver

#: Bytes of a link.
_MAX_LINK_BYTES = 64 * 1024


@define(eq=False)
class LinkCheck:
    """The links of a store."""

    driver: IStorageDriver
    quarantine: Quarantine

    async def read(self, places: Sequence[ClassifiedPath]) -> list[Digest | Finding | None]:
        """Read links, in the order asked for.

        :returns: of each the digest that it holds, or what is wrong with it; None if it is gone.
        """
        contents = await self._contents([place.path for place in places])
        return [_judge_link(place, content) for place, content in zip(places, contents, strict=True)]

    async def check_targets(self, paths: Sequence[str], digests: Sequence[Digest]) -> list[bool]:
        """Whether each link holds the digest that stands at its place in ``digests``."""
        contents = await self._contents(paths)
        return [
            isinstance(content, bytes) and content.decode("ascii", "replace").strip() == str(digest)
            for content, digest in zip(contents, digests, strict=True)
        ]

    async def with_link_repair(
        self, finding: Finding, place: ClassifiedPath, target: Callable[[], Awaitable[bool]]
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
            return await self.quarantine.isolate(place.path)

        return Finding(
            finding.kind, place.path, finding.detail, digest, place.repository,
            repair=repair, blocked_digest=None if await target() else digest,
        )  # fmt: skip

    def dangling(
        self,
        place: ClassifiedPath,
        why: str,
        target: Callable[[], Awaitable[bool]],
        severity: Severity = Severity.DAMAGE,
    ) -> Finding:
        """What is found when a link leads nowhere; it is repaired by taking the link away.

        :param target: asks whether what it leads to is there by now.
        """

        async def repair() -> bool:
            return not await target() and await self.quarantine.isolate(place.path)

        return Finding(
            FindingKind.LINK_DANGLING, place.path, f"{place.role.value}, {why}", place.digest,
            place.repository, severity=severity, repair=repair, blocked_digest=place.digest,
        )  # fmt: skip

    async def is_there(self, place: ClassifiedPath) -> bool:
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
        return bool(entry.size) or digest.is_of_empty_content

    async def _is_whole(self, place: ClassifiedPath) -> bool:
        return await read_link(self.driver, place.path) == place.digest

    async def _contents(self, paths: Sequence[str]) -> Sequence[bytes | StorageError | None]:
        try:
            return await self.driver.get_many(paths, _MAX_LINK_BYTES)
        except StorageError:
            # One by one, so that a bad one does not hide the others.
            return [await self._content(path) for path in paths]

    async def _content(self, path: str) -> bytes | StorageError | None:
        try:
            return await self.driver.get(path, _MAX_LINK_BYTES)
        except PathNotFound:
            return None
        except StorageError as error:
            return error


def _judge_link(place: ClassifiedPath, content: bytes | StorageError | None) -> Digest | Finding | None:
    if content is None:
        return None
    role = place.role.value
    if isinstance(content, StorageError):
        kind, detail = FindingKind.FILE_UNREADABLE, f"{role}, {content.reason}"
    elif not content.strip():
        kind, detail = FindingKind.LINK_EMPTY, role
    else:
        try:
            digest = Digest.parse(content.decode("ascii", "replace").strip())
        except DigestInvalid:
            kind, detail = FindingKind.LINK_MALFORMED, role
        else:
            if place.digest in {None, digest}:
                return digest
            kind, detail = FindingKind.LINK_MALFORMED, f"{role}, it names {digest}"
    return Finding(kind, place.path, detail, place.digest, place.repository)
