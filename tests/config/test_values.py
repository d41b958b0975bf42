"""Conversion of single values."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twisted_registry.config import values
from twisted_registry.config.document import Node, Report
from twisted_registry.config.parsing import parse


def node(text: str) -> Node:
    return parse(text, "test", Report())


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [
        ("0", 0.0),
        ("5s", 5.0),
        ("2h10m", 7800.0),
        ("1.5h", 5400.0),
        (".5s", 0.5),
        ("5.s", 5.0),
        ("+1m", 60.0),
        ("-1m", -60.0),
        ("300ms", 0.3),
        ("10us", 1e-5),
        ("10\u00b5s", 1e-5),
        ("10\u03bcs", 1e-5),
        ("100ns", 1e-7),
        ("1h1m1s1ms", 3661.001),
        ("90d", 90 * 86400.0),
        ("1d12h", 129600.0),
        ("1.5d", 129600.0),
    ],
)
def test_durations_of_go_and_days_are_parsed(duration: str, seconds: float):
    assert values.parse_duration(duration) == pytest.approx(seconds, abs=1e-12)


@pytest.mark.parametrize(
    "duration",
    ["", "5", "-", "+", "s", ".s", "5 s", "5S", "1D", "1h 1m", "1e3s", "٣s", "300y"],
)
def test_other_text_is_not_a_duration(duration: str):
    with pytest.raises(ValueError):
        values.parse_duration(duration)


def test_a_duration_is_at_most_the_longest_of_go():
    assert values.parse_duration("2562047h") > 0
    with pytest.raises(ValueError):
        values.parse_duration("2562048h")


def test_a_bare_integer_is_nanoseconds_and_a_fraction_is_rejected():
    assert values.duration_seconds(node("5000000000")) == 5.0
    for text in ("1.5", "true", "9223372036854775808", "[1s]", "'5'"):
        with pytest.raises(ValueError):
            values.duration_seconds(node(text))


def test_a_number_without_unit_is_rejected_where_text_is_required():
    assert values.text_duration_seconds(node("168h")) == 168 * 3600
    with pytest.raises(ValueError):
        values.text_duration_seconds(node("0"))


@given(st.integers(-(2**53), 2**53))
@settings(deadline=None)
def test_a_formatted_duration_is_parsed_to_the_same_value(nanoseconds: int):
    duration = values.format_duration(nanoseconds / 1e9)
    assert round(values.parse_duration(duration) * 1e9) == pytest.approx(nanoseconds, abs=2)


@pytest.mark.parametrize(
    ("seconds", "duration"),
    [(0, "0s"), (7800, "2h10m"), (1.5, "1.5s"), (3600, "1h"), (-61, "-1m1s")],
)
def test_durations_are_formatted_without_zero_parts(seconds: float, duration: str):
    assert values.format_duration(seconds) == duration


def test_text_keeps_its_spelling():
    for text in ("0123", "yes", "1.50", "2020-01-01"):
        assert values.text(node(text)) == text
    with pytest.raises(ValueError):
        values.text(node("[a]"))
    with pytest.raises(ValueError):
        values.nonempty_text(node("' '"))


def test_only_an_unquoted_boolean_is_a_boolean():
    assert values.boolean(node("true")) is True
    assert values.boolean(node("off")) is False
    for text in ("'true'", "1", "t", "[true]"):
        with pytest.raises(ValueError):
            values.boolean(node(text))


def test_lenient_booleans_are_those_of_strconv():
    for text in ("1", "t", "T", "TRUE", "true", "True", "'true'", "yes"):
        assert values.lenient_boolean(node(text)) is True
    for text in ("0", "f", "F", "FALSE", "false", "False", "'false'"):
        assert values.lenient_boolean(node(text)) is False
    for text in ("'yes'", "2", "tRUE", "{}"):
        with pytest.raises(ValueError):
            values.lenient_boolean(node(text))


def test_integers_fit_into_64_bits():
    assert values.integer(node("-3")) == -3
    assert values.lenient_integer(node("'0x40'")) == 64
    assert values.lenient_integer(node("40")) == 40
    for text in ("1.5", "true", "'1'", "9223372036854775808"):
        with pytest.raises(ValueError):
            values.integer(node(text))
    for text in ("'9223372036854775808'", "'a'", "'99999999999999999999'", "[1]"):
        with pytest.raises(ValueError):
            values.lenient_integer(node(text))


def test_sizes_have_units_of_1024():
    assert values.size(node("4194304")) == values.size(node("4MiB")) == 4 * 2**20
    assert values.size(node("'2 KiB'")) == 2048
    for text in ("4MB", "1.5MiB", "'-1'", "MiB", "true"):
        with pytest.raises(ValueError):
            values.size(node(text))


def test_regular_expressions_are_those_of_go():
    assert values.regex(node(r"^https://[^/]+\.example\.com/")).is_found_in(
        "https://a.example.com/"
    )
    assert values.regex(node(r"'b\z'")).is_found_in("ab")
    for text in (r"'\pL'", "'[[:alpha:]]'", "'(?i)é'", r"'B\z|b\z'"):
        assert values.regex(node(text)).is_found_in("É or b")
    for text in ("'('", "'a(?=b)'", r"'(a)\1'", "'a{2000}'", "[a]"):
        with pytest.raises(ValueError):
            values.regex(node(text))


def test_urls_are_absolute():
    assert values.url(node("https://a:5/b?c")) == "https://a:5/b?c"
    assert values.base_url(node("https://a.example/registry/")) == "https://a.example/registry"
    for text in ("a.example", "ftp://a", "http://", "http://a:99999", "'http://a b'", "http://[",
                 '"http://a\\n"', "[a]"):  # fmt: skip
        with pytest.raises(ValueError):
            values.url(node(text))
    for text in ("https://a?b", "'https://a#b'", "https://u:p@a"):
        with pytest.raises(ValueError):
            values.base_url(node(text))


def test_a_prefix_starts_and_ends_with_a_slash():
    assert values.prefix(node("/a/b-c/")) == "/a/b-c/"
    assert values.prefix(node("/")) == "/"
    assert values.prefix(node("''")) == ""
    for text in ("a/", "/a", "//", "/a//b/", "/../", "/./", "/a b/", "'/a?/'", "'/a#/'", "/%2e/"):
        with pytest.raises(ValueError):
            values.prefix(node(text))


def test_header_names_are_tokens_and_values_single_lines():
    assert values.header_name("X-A_b") == "X-A_b"
    for name in ("", "a b", "a:", "\u00e4", "a\n", "Content-Length", "transfer-encoding"):
        with pytest.raises(ValueError):
            values.header_name(name)
    assert values.header_value(node("'*'")) == "*"
    assert values.header_value(node("''")) == ""
    assert values.header_value(node("GET, HEAD")) == "GET, HEAD"
    for text in ('"a\\nb"', '"a\\r"', '" a"', '"a "', '"\\0"', '"\\u20ac"', "[a]"):
        with pytest.raises(ValueError):
            values.header_value(node(text))


@pytest.mark.parametrize(
    ("text", "rate"), [("0", 0.0), ("20", 20.0), ("0.5", 0.5), ("0.0001", 1e-4)]
)
def test_a_rate_is_a_number_and_may_be_a_fraction(text: str, rate: float):
    assert values.rate(node(text)) == rate


@pytest.mark.parametrize(
    "text", ["-1", "1e-9", "1e9", "true", "'5'", "10/s", ".nan", ".inf", "[1]"]
)
def test_other_rates_are_refused(text: str):
    with pytest.raises(ValueError):
        values.rate(node(text))
