"""What a file in a repository is, told by its path: the way back from :mod:`..layout`."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from attrs import frozen

from twisted_registry.digest import Digest, DigestInvalid
from twisted_registry.reference import is_name, is_tag
from twisted_registry.repository import layout

if TYPE_CHECKING:
    from collections.abc import Sequence


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
