"""Parsers of ``Range`` and ``Content-Range``.

``Range`` is that of RFC 9110 section 14. The distribution specification, "Pushing a blob in
chunks", defines its own form of ``Content-Range``.
"""

from __future__ import annotations

import re

from attrs import frozen

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
