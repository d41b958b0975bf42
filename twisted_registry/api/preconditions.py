"""Parsers of Accept and of conditional headers (RFC 9110 sections 8.8.3, 12.5.1 and 13.1)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from attrs import frozen

from twisted_registry.repository.manifests import Precondition

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ENTITY_TAG_RE = re.compile(r'(?:W/)?"([^"]*)"|([^\s,"]+)', re.ASCII)


def parse_entity_tags(headers: Sequence[str]) -> frozenset[str]:
    """Return the entity tags of If-Match or If-None-Match, without quotes and ``W/``.

    A digest without quotes is accepted as an entity tag, as in Distribution.
    """
    return frozenset(
        match[1] or match[2] for header in headers for match in _ENTITY_TAG_RE.finditer(header)
    )


def etag_matches(headers: Sequence[str], etag: str) -> bool:
    """Whether If-None-Match contains ``etag`` or ``*``.

    :param etag: without quotes.
    """
    if not headers:
        return False
    tags = parse_entity_tags(headers)
    return etag in tags or "*" in tags


def parse_precondition(
    if_match: Sequence[str], if_none_match: Sequence[str]
) -> Precondition | None:
    """Return the precondition of a PUT on the current digest of the tag; None without headers."""
    if not if_match and not if_none_match:
        return None
    wanted = None
    if if_match:
        # A header without a valid entity tag matches nothing, rather than everything.
        wanted = parse_entity_tags(if_match) or frozenset({""})
        if "*" in wanted:
            wanted = frozenset()
    none_of = parse_entity_tags(if_none_match)
    return Precondition(wanted, absent="*" in none_of, none_of=none_of - {"*"})


@frozen
class AcceptedTypes:
    """The media types that a client accepts."""

    _ranges: Mapping[str, bool]

    @classmethod
    def parse(cls, headers: Sequence[str]) -> AcceptedTypes:
        """Parse Accept headers; without any, every type is accepted."""
        ranges: dict[str, bool] = {}
        for header in headers:
            for item in header.split(","):
                media_range, *parameters = (part.strip().lower() for part in item.split(";"))
                if media_range:
                    ranges[media_range] = not any(map(_is_zero_quality, parameters))
        return cls(ranges or {"*/*": True})

    def __contains__(self, media_type: object) -> bool:
        kind = str(media_type).lower()
        for media_range in (kind, f"{kind.partition('/')[0]}/*", "*/*"):
            if media_range in self._ranges:
                return self._ranges[media_range]
        return False


def _is_zero_quality(parameter: str) -> bool:
    name, _, value = parameter.partition("=")
    return name.strip() == "q" and value.strip().rstrip("0") in {"", ".", "0."}
