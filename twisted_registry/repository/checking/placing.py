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


class What(Enum):
    """What a file is for, in the words of the report."""

    LAYER = "layer"
    REVISION = "revision"
    MEDIA_TYPE = "media type"
    TAG = "tag"
    TAG_INDEX = "tag index"
    REFERRER = "referrer"
    OTHER = "something else"


@frozen
class Place:
    """A file in its repository.

    :ivar digest: that the path names, or None.
    :ivar tag: that it belongs to; empty if to none.
    """

    what: What
    path: str
    repository: str
    digest: Digest | None = None
    tag: str = ""


def placed(path: str) -> Place | None:
    """What a file below the repositories is, or None if nothing looks for it there."""
    parts = path.removeprefix(f"{layout.REPOSITORIES}/").split("/")
    at = next((number for number, part in enumerate(parts) if part.startswith("_")), 0)
    repository = "/".join(parts[:at])
    if not is_name(repository):
        return None
    try:
        found = _inside(parts[at:])
    except DigestInvalid:
        return None
    if found is None:
        return None
    what, digest, tag = found
    return Place(what, path, repository, digest, tag)


def _inside(parts: Sequence[str]) -> tuple[What, Digest | None, str] | None:
    found: tuple[What, Digest | None, str] | None = None
    match parts:
        case ["_layers", algorithm, hexadecimal, "link"]:
            found = What.LAYER, _digest(algorithm, hexadecimal), ""
        case ["_manifests", "revisions", algorithm, hexadecimal, "link"]:
            found = What.REVISION, _digest(algorithm, hexadecimal), ""
        case ["_manifests", "revisions", algorithm, hexadecimal, "mediatype"]:
            found = What.MEDIA_TYPE, _digest(algorithm, hexadecimal), ""
        case ["_manifests", "tags", tag, "current", "link"] if is_tag(tag):
            found = What.TAG, None, tag
        case ["_manifests", "tags", tag, "index", algorithm, hexadecimal, "link"] if is_tag(tag):
            found = What.TAG_INDEX, _digest(algorithm, hexadecimal), tag
        case ["_referrers", algorithm, hexadecimal, other, referrer, "link"]:
            _digest(algorithm, hexadecimal)
            found = What.REFERRER, _digest(other, referrer), ""
        case (
            ["_layers", "repository"]
            | ["_referrers", "scanned"]
            # Of manifests of the first schema, which old registries signed.
            | ["_manifests", "revisions", _, _, "signatures", *_]
            | ["_uploads", _, "data" | "startedat" | "checkpoint"]
            # Of Distribution.
            | ["_uploads", _, "hashstates", *_]
        ):
            found = What.OTHER, None, ""
    return found


def _digest(algorithm: str, hexadecimal: str) -> Digest:
    return Digest.parse(f"{algorithm}:{hexadecimal}")
