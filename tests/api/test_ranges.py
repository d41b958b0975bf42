from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_registry.api.preconditions import (
    ByteRange,
    ContentRangeInvalid,
    RangeUnsatisfiable,
    parse_content_range,
    parse_range,
)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=0-9", (0, 10)),
        ("bytes=3-5", (3, 3)),
        ("bytes=9-9", (9, 1)),
        ("bytes=9-", (9, 1)),
        ("bytes=0-", (0, 10)),
        ("bytes=5-99", (5, 5)),
        ("bytes=-1", (9, 1)),
        ("bytes=-10", (0, 10)),
        ("bytes=-99", (0, 10)),
        ("BYTES=1-2", (1, 2)),
        (" bytes = 1-2 ", (1, 2)),
        (f"bytes=0-{10**19 - 1}", (0, 10)),
    ],
)
def test_a_range_is_parsed(header, expected):
    assert parse_range(header, 10) == ByteRange(*expected)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=5",
        "bytes=a-b",
        "bytes=0-1,3-4",
        "bytes= 1 - 2",
        "items=0-1",
        "bytes=0x1-2",
        "bytes=+1-2",
        "bytes=\u0661-\u0662",
        f"bytes={10**19}-",
        f"bytes=0-{10**19}",
        f"bytes=-{'9' * 10000}",
    ],
)
def test_an_unsupported_range_is_the_whole_content(header):
    assert parse_range(header, 10) is None


@pytest.mark.parametrize(
    "header", ["bytes=10-", "bytes=10-10", "bytes=99-100", "bytes=-0", "bytes=4-3"]
)
def test_a_range_outside_of_the_content_is_unsatisfiable(header):
    with pytest.raises(RangeUnsatisfiable):
        parse_range(header, 10)


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=0-0", "bytes=-1"])
def test_empty_content_has_no_ranges(header):
    with pytest.raises(RangeUnsatisfiable):
        parse_range(header, 0)


@given(st.integers(0, 40), st.integers(0, 50), st.integers(0, 50))
def test_a_range_equals_a_slice(size, first, last):
    content = bytes(range(size))
    try:
        found = parse_range(f"bytes={first}-{last}", size)
    except RangeUnsatisfiable:
        assert first >= size or last < first
        return
    assert found is not None
    part = content[found.offset : found.offset + found.length]
    assert part == content[first : last + 1]
    assert found.length == len(part) > 0
    assert found.content_range(size) == f"bytes {first}-{min(last, size - 1)}/{size}"


@given(st.text(max_size=30), st.integers(0, 1000))
def test_any_text_is_parsed_or_unsatisfiable(text, size):
    for header in (text, f"bytes={text}"):
        try:
            found = parse_range(header, size)
        except RangeUnsatisfiable:
            continue
        assert found is None or 0 <= found.offset < found.offset + found.length <= size


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("0-0", (0, 1)),
        ("10-19", (10, 10)),
        ("bytes 0-9/10", (0, 10)),
        ("bytes 0-9/*", (0, 10)),
        (" 0-9 ", (0, 10)),
    ],
)
def test_a_content_range_is_parsed(header, expected):
    assert parse_content_range(header) == ByteRange(*expected)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "0",
        "0-",
        "-9",
        "9-0",
        "a-b",
        "0-9-10",
        "bytes=0-9",
        "0-9/x",
        "\u0661-\u0662",
        f"0-{10**19}",
    ],
)
def test_an_invalid_content_range_is_refused(header):
    with pytest.raises(ContentRangeInvalid):
        parse_content_range(header)


@given(st.integers(0, 10**18), st.integers(0, 10**18))
def test_a_formatted_content_range_is_parsed_back(first, length):
    header = f"{first}-{first + length}"
    assert parse_content_range(header) == ByteRange(first, length + 1)


@given(st.text(max_size=30))
def test_any_text_is_a_content_range_or_refused(text):
    try:
        found = parse_content_range(text)
    except ContentRangeInvalid:
        return
    assert found.length > 0
