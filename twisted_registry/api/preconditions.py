"""Accept and the conditional headers, pure (RFC 9110 sections 8.8.3, 12.5.1 and 13.1)."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from twisted_registry.repository.manifests import Precondition

if TYPE_CHECKING:
    from collections.abc import Sequence

_ENTITY_TAG_RE = re.compile(r'(?:W/)?"([^"]*)"|([^\s,"]+)', re.ASCII)


def parse_entity_tags(headers: Sequence[str]) -> frozenset[str]:
    """The entity tags of If-Match or If-None-Match, without quotes and weakness.

    A bare digest is taken for a tag, as Distribution takes it.
    """
    return frozenset(
        match[1] or match[2] for header in headers for match in _ENTITY_TAG_RE.finditer(header)
    )


def etag_matches(headers: Sequence[str], etag: str) -> bool:
    """Whether If-None-Match names ``etag`` (without quotes) or anything."""
    if not headers:
        return False
    tags = parse_entity_tags(headers)
    return etag in tags or "*" in tags


def parse_precondition(
    if_match: Sequence[str], if_none_match: Sequence[str]
) -> Precondition | None:
    """What If-Match and If-None-Match of a PUT ask of the tag, or None if neither is there."""
    if not if_match and not if_none_match:
        return None
    wanted = None
    if if_match:
        # Nothing that can be read names no tag at all, rather than any.
        wanted = parse_entity_tags(if_match) or frozenset({""})
        if "*" in wanted:
            wanted = frozenset()
    none_of = parse_entity_tags(if_none_match)
    return Precondition(wanted, absent="*" in none_of, none_of=none_of - {"*"})


class AcceptedTypes:
    """The media types that a client takes."""

    def __init__(self, headers: Sequence[str]) -> None:
        """Read Accept headers; none at all means everything."""
        self._ranges: dict[str, bool] = {}
        for header in headers:
            for item in header.split(","):
                media_range, *parameters = (part.strip().lower() for part in item.split(";"))
                if media_range:
                    self._ranges[media_range] = not any(map(_is_zero_quality, parameters))
        if not self._ranges:
            self._ranges["*/*"] = True

    def __contains__(self, media_type: object) -> bool:
        kind = str(media_type).lower()
        for media_range in (kind, f"{kind.partition('/')[0]}/*", "*/*"):
            if media_range in self._ranges:
                return self._ranges[media_range]
        return False


@lru_cache(maxsize=256)
def parse_accept(headers: tuple[str, ...]) -> AcceptedTypes:
    """What Accept headers take: each kind of client sends the same ones time and again."""
    return AcceptedTypes(headers)


def _is_zero_quality(parameter: str) -> bool:
    name, _, value = parameter.partition("=")
    return name.strip() == "q" and value.strip().rstrip("0") in {"", ".", "0."}
