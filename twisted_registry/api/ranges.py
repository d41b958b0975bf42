"""Ranges of bytes, pure: what clients ask for and what they say they send.

RFC 9110 section 14 for ``Range`` and ``If-Range``; the distribution specification, "Pushing a
blob in chunks", for its own form of ``Content-Range``.
"""

from __future__ import annotations

import re

from attrs import frozen

_RANGE_RE = re.compile(r"([0-9]*)-([0-9]*)", re.ASCII)
_CONTENT_RANGE_RE = re.compile(r"(?:bytes )?([0-9]+)-([0-9]+)(?:/(?:[0-9]+|\*))?", re.ASCII)
#: Digits that a position may have: far beyond any store, and short enough to convert.
_MAX_DIGITS = 19


class RangeUnsatisfiable(ValueError):
    """No byte of the content lies in the range."""


class ContentRangeInvalid(ValueError):
    """A Content-Range that is not ``<first>-<last>``."""


@frozen
class ByteRange:
    """A stretch of content: ``length`` bytes from ``offset``."""

    offset: int
    length: int

    def content_range(self, size: int) -> str:
        """The Content-Range of an answer with this stretch."""
        return f"bytes {self.offset}-{self.offset + self.length - 1}/{size}"


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """Which part of ``size`` bytes a Range header asks for.

    :returns: None for the whole: no header, several ranges, another unit, or bad syntax, all of
        which a server may ignore.
    :raises RangeUnsatisfiable: if the range lies outside, or ends before it begins.
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
    # A last byte before the first may be ignored or refused (section 14.2); the specification's
    # conformance suite takes ignoring it for a lack of ranges.
    if start >= size or (last and int(last) < start):
        raise RangeUnsatisfiable
    return ByteRange(start, end - start + 1)


def parse_content_range(header: str) -> ByteRange:
    """Read the Content-Range of a chunk: ``<first>-<last>``, as the specification has it.

    The form of RFC 9110 (``bytes 0-9/10``) is taken as well.

    :raises ContentRangeInvalid: for anything else.
    """
    match = _CONTENT_RANGE_RE.fullmatch(header.strip())
    if match is None or any(len(digits) > _MAX_DIGITS for digits in match.groups()):
        raise ContentRangeInvalid("<first>-<last> is expected")
    first, last = int(match[1]), int(match[2])
    if last < first:
        raise ContentRangeInvalid("the last byte lies before the first")
    return ByteRange(first, last - first + 1)
