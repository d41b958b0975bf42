"""Check links, many at a time, and classify the files of a repository by their paths."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

from attrs import define, evolve, frozen
from twisted.logger import Logger

from twisted_registry.integrity.findings import Finding, FindingKind, Severity
from twisted_registry.oci.digest import Digest, DigestInvalid
from twisted_registry.oci.names import is_name, is_tag
from twisted_registry.repository import layout
from twisted_registry.repository.links import read_link, write_link
from twisted_registry.storage.fallbacks import bulk_lookup
from twisted_registry.storage.interfaces import PathNotFound, StorageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from twisted_registry.integrity.blobs import Quarantine
    from twisted_registry.storage.interfaces import IStorageDriver

    TargetCheck = Callable[[Digest], Awaitable[bool]]

log = Logger()


@define(eq=False)
class LinkCheck:
    """Reads and repairs the links of a store."""

    driver: IStorageDriver
    quarantine: Quarantine

    async def read(
        self, files: Sequence[ClassifiedPath]
    ) -> list[tuple[ClassifiedPath, Digest | Finding | None]]:
        """Read links.

        :returns: each link with its digest or its finding; None if it was deleted.
        """
        contents = await self._contents([file.path for file in files])
        return [
            (file, _judge_link(file, content))
            for file, content in zip(files, contents, strict=True)
        ]

    async def check_targets(self, paths: Sequence[str], digests: Sequence[Digest]) -> list[bool]:
        """Return, for each link, whether it holds the digest at the same position."""
        contents = await self._contents(paths)
        return [
            isinstance(content, bytes) and content.decode("ascii", "replace").strip() == str(digest)
            for content, digest in zip(contents, digests, strict=True)
        ]

    async def is_link_to(self, path: str, digest: Digest) -> bool:
        """Return whether a link holds a digest."""
        return (await self.check_targets([path], [digest]))[0]

    async def holds_manifest(self, repository: str, digest: Digest) -> bool:
        """Return whether a repository links a manifest."""
        return await self.is_link_to(layout.revision_link(repository, digest), digest)

    async def with_link_repair(
        self, finding: Finding, file: ClassifiedPath, exists: TargetCheck
    ) -> Finding:
        """Add a repair to the finding of a broken link: write the digest that its path names.

        If the target of the link does not exist, the repair quarantines the link.

        :param exists: tells whether the target exists.
        """
        digest = file.digest
        assert digest is not None

        async def repair() -> bool:
            if await read_link(self.driver, file.path) == digest:
                return False
            if await exists(digest):
                await write_link(self.driver, file.path, digest)
                return True
            return await self.quarantine.isolate(file.path)

        return evolve(
            finding, repair=repair, blocked_digest=None if await exists(digest) else digest
        )

    def dangling(
        self,
        file: ClassifiedPath,
        why: str,
        exists: TargetCheck,
        severity: Severity = Severity.DAMAGE,
    ) -> Finding:
        """Make the finding of a link whose target does not exist; its repair quarantines the link.

        :param why: a part of a sentence for the report.
        :param exists: tells whether the target exists by now.
        """
        digest = file.digest
        assert digest is not None

        async def repair() -> bool:
            return not await exists(digest) and await self.quarantine.isolate(file.path)

        return file.finding(
            FindingKind.LINK_DANGLING, f"{file.role.value}, {why}",
            severity=severity, repair=repair, blocked_digest=digest,
        )  # fmt: skip

    async def is_there(self, file: ClassifiedPath) -> bool:
        """Return whether a link still exists. True also if that cannot be read."""
        try:
            await self.driver.stat(file.path)
        except PathNotFound:
            return False
        except StorageError as error:
            log.error("cannot read {path}: {error}", path=file.path, error=str(error))
        return True

    async def content(self, path: str, limit: int) -> bytes | StorageError | None:
        """Return the content of a file, or why it cannot be read; None if it does not exist."""
        try:
            return await self.driver.get(path, limit)
        except PathNotFound:
            return None
        except StorageError as error:
            return error

    async def has_bytes(self, digest: Digest) -> bool:
        """Return whether a blob is stored now.

        True also if that cannot be read, so that nothing is removed because of it.
        """
        try:
            entry = await self.driver.stat(layout.blob_data(digest))
        except PathNotFound:
            return False
        except StorageError:
            return True
        return bool(entry.size) or digest.is_of_empty_content

    async def _contents(self, paths: Sequence[str]) -> Sequence[bytes | StorageError | None]:
        try:
            return await bulk_lookup(self.driver).get_many(paths, layout.MAX_LINK_BYTES)
        except StorageError:
            # One by one, so that one that fails does not hide the others.
            return [await self.content(path, layout.MAX_LINK_BYTES) for path in paths]


def _judge_link(
    file: ClassifiedPath, content: bytes | StorageError | None
) -> Digest | Finding | None:
    if content is None:
        return None
    role = file.role.value
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
            if file.digest in {None, digest}:
                return digest
            kind, detail = FindingKind.LINK_MALFORMED, f"{role}, it names {digest}"
    return file.finding(kind, detail)


class FileRole(Enum):
    """The role of a file in its repository; the values are printed in reports."""

    LAYER = "layer"
    REVISION = "revision"
    MEDIA_TYPE = "media type"
    TAG = "tag"
    TAG_INDEX = "tag index"
    REFERRER = "referrer"
    OTHER = "something else"


@frozen
class ClassifiedPath:
    """The path of a file in a repository, with what the path tells about it.

    :ivar digest: that the path names, or None.
    :ivar tag: that the file belongs to; empty if to none.
    """

    role: FileRole
    path: str
    repository: str
    digest: Digest | None = None
    tag: str = ""

    def finding(self, kind: FindingKind, detail: str = "", **options: Any) -> Finding:
        """Return a finding about this file."""
        return Finding(kind, self.path, detail, self.digest, self.repository, **options)


def classify_path(path: str) -> ClassifiedPath | None:
    """Classify a path below the repositories; return None if nothing reads such a path."""
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
            # They can be rebuilt, and have checksums.
            | ["_manifests", "revisions", _, _, "subject" | "descriptor"]
            # Signatures of schema 1 manifests, written by old registries.
            | ["_manifests", "revisions", _, _, "signatures", *_]
            | ["_uploads", _, "data" | "startedat" | "checkpoint"]
            # Written by Distribution.
            | ["_uploads", _, "hashstates", *_]
        ):
            found = FileRole.OTHER, None, ""
    return found


def _parse_digest(algorithm: str, hexadecimal: str) -> Digest:
    return Digest.parse(f"{algorithm}:{hexadecimal}")
