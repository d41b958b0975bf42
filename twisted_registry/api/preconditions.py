"""Parsers of request headers: Accept, conditions and ranges.

Accept and conditional headers are those of RFC 9110 sections 8.8.3, 12.5.1 and 13.1, ``Range`` that
of section 14. The distribution specification, "Pushing a blob in chunks", defines its own form of
``Content-Range``.
"""

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


_RANGE_RE = re.compile(r"([0-9]*)-([0-9]*)", re.ASCII)
_CONTENT_RANGE_RE = re.compile(r"(?:bytes )?([0-9]+)-([0-9]+)(?:/(?:[0-9]+|\*))?", re.ASCII)
#: Maximum digits of a position: larger than any store, and cheap to convert.
_MAX_DIGITS = 19


class RangeUnsatisfiable(ValueError):
    """The range does not overlap the content."""


class ContentRangeInvalid(ValueError):
    """A Content-Range that is not ``<first>-<last>``."""


@frozen
class ByteRange:
    """``length`` bytes from ``offset``."""

    offset: int
    length: int

    def content_range(self, size: int) -> str:
        """Return the Content-Range of a response with this range.

        :param size: of the whole content in bytes.
        """
        return f"bytes {self.offset}-{self.offset + self.length - 1}/{size}"


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """Parse a Range header for content of ``size`` bytes.

    :returns: None for the whole content: without the header, and for several ranges, another unit
        or bad syntax, which a server may ignore.
    :raises RangeUnsatisfiable: if the range is outside of the content, or ends before it begins.
    """
    if header is None:
        return None
    unit, _, specs = header.partition("=")
    match = _RANGE_RE.fullmatch(specs.strip())
    if unit.strip().lower() != "bytes" or match is None:
        return None
    first, last = match.groups()
    if len(first) > _MAX_DIGITS or len(last) > _MAX_DIGITS or not (first or last):
        return None
    if not first:
        suffix = min(int(last), size)
        if not suffix:
            raise RangeUnsatisfiable
        return ByteRange(size - suffix, suffix)
    start = int(first)
    end = min(int(last), size - 1) if last else size - 1
    # A last byte before the first may be ignored or refused (section 14.2). The conformance suite
    # of the distribution specification counts ignoring it as missing support for ranges.
    if start >= size or (last and int(last) < start):
        raise RangeUnsatisfiable
    return ByteRange(start, end - start + 1)


def parse_content_range(header: str) -> ByteRange:
    """Parse the Content-Range of a chunk: ``<first>-<last>``, or ``bytes 0-9/10`` (RFC 9110).

    :raises ContentRangeInvalid: for any other form.
    """
    match = _CONTENT_RANGE_RE.fullmatch(header.strip())
    if match is None or any(len(digits) > _MAX_DIGITS for digits in match.groups()):
        raise ContentRangeInvalid("expected <first>-<last>")
    first, last = int(match[1]), int(match[2])
    if last < first:
        raise ContentRangeInvalid("the last byte is before the first")
    return ByteRange(first, last - first + 1)
