"""Links, read many at a time: which are whole, and how those can be mended that are not.

What a file in a repository is, told by its path: the way back from :mod:`..layout`.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from attrs import define, frozen

from twisted_registry.integrity.findings import Finding, FindingKind, Severity
from twisted_registry.oci.digest import Digest, DigestInvalid
from twisted_registry.oci.names import is_name, is_tag
from twisted_registry.repository import layout
from twisted_registry.repository.links import read_link, write_link
from twisted_registry.storage.fallbacks import bulk_lookup
from twisted_registry.storage.interfaces import PathNotFound, StorageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    # @@EMPTY
    from twisted_registry.integrity.blobs import Quarantine
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
        return [
            _judge_link(place, content) for place, content in zip(places, contents, strict=True)
        ]

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
            return await bulk_lookup(self.driver).get_many(paths, _MAX_LINK_BYTES)
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


def _judge_link(
    place: ClassifiedPath, content: bytes | StorageError | None
) -> Digest | Finding | None:
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


class FileRole(Enum):
    """What a file is for, in the words of the report."""

    LAYER = "layer"
    REVISION = "revision"
    MEDIA_TYPE = "media type"
    TAG = "tag"
    TAG_INDEX = "tag index"
    REFERRER = "referrer"
    OTHER = "something else"


@frozen
class ClassifiedPath:
    """A file in its repository.

    :ivar digest: that the path names, or None.
    :ivar tag: that it belongs to; empty if to none.
    """

    role: FileRole
    path: str
    repository: str
    digest: Digest | None = None
    tag: str = ""


def classify_path(path: str) -> ClassifiedPath | None:
    """What a file below the repositories is, or None if nothing looks for it there."""
    parts = path.removeprefix(f"{layout.REPOSITORIES}/").split("/")
    at = next((number for number, part in enumerate(parts) if part.startswith("_")), 0)
    repository = "/".join(parts[:at])
    if not is_name(repository):
        return None
    try:
        found = _classify_below(parts[at:])
    except DigestInvalid:
        return None
    if found is None:
        return None
    role, digest, tag = found
    return ClassifiedPath(role, path, repository, digest, tag)


def _classify_below(parts: Sequence[str]) -> tuple[FileRole, Digest | None, str] | None:
    found: tuple[FileRole, Digest | None, str] | None = None
    match parts:
        case ["_layers", algorithm, hexadecimal, "link"]:
            found = FileRole.LAYER, _parse_digest(algorithm, hexadecimal), ""
        case ["_manifests", "revisions", algorithm, hexadecimal, "link"]:
            found = FileRole.REVISION, _parse_digest(algorithm, hexadecimal), ""
        case ["_manifests", "revisions", algorithm, hexadecimal, "mediatype"]:
            found = FileRole.MEDIA_TYPE, _parse_digest(algorithm, hexadecimal), ""
        case ["_manifests", "tags", tag, "current", "link"] if is_tag(tag):
            found = FileRole.TAG, None, tag
        case ["_manifests", "tags", tag, "index", algorithm, hexadecimal, "link"] if is_tag(tag):
            found = FileRole.TAG_INDEX, _parse_digest(algorithm, hexadecimal), tag
        case ["_referrers", algorithm, hexadecimal, other, referrer, "link"]:
            _parse_digest(algorithm, hexadecimal)
            found = FileRole.REFERRER, _parse_digest(other, referrer), ""
        case (
            ["_layers", "repository"]
            | ["_referrers", "scanned"]
            # Of manifests of the first schema, which old registries signed.
            | ["_manifests", "revisions", _, _, "signatures", *_]
            | ["_uploads", _, "data" | "startedat" | "checkpoint"]
            # Of Distribution.
            | ["_uploads", _, "hashstates", *_]
        ):
            found = FileRole.OTHER, None, ""
    return found


def _parse_digest(algorithm: str, hexadecimal: str) -> Digest:
    return Digest.parse(f"{algorithm}:{hexadecimal}")
