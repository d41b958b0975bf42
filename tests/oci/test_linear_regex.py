"""Regular expressions of the operator."""

from __future__ import annotations

import pytest

from twisted_registry.oci.linear_regex import LinearRegex


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        # An example of Distribution's documentation.
        (r"^https?://([^/]+\.)*example\.com/", "https://" + "a." * 100_000),
        ("^(a|aa)+$", "a" * 100_000 + "!"),
        ("(x+x+)+y", "x" * 100_000),
        ("^([a-z]{1,50}){1,20}$", "a" * 100_000),
    ],
)
def test_patterns_that_backtrack_elsewhere_end_here(pattern, text):
    """Other engines would take longer than the age of the universe."""
    assert not LinearRegex.parse(pattern).is_found_in(text)


def test_any_part_or_all_of_a_text_matches():
    pattern = LinearRegex.parse("(x)?b(.)")
    assert pattern.is_found_in("abcd")
    assert pattern.match_all("abcd") is None
    assert pattern.match_all("bc") == ("bc", "", "c")
    assert pattern.groups == 2


@pytest.mark.parametrize(("source", "reason"), [("(", "missing )"), ("a(?=b)", "(?=")])
def test_what_is_no_pattern_is_refused_without_output(source, reason, capfd):
    with pytest.raises(ValueError, match=r".") as error:
        LinearRegex.parse(source)
    assert reason in str(error.value)
    assert capfd.readouterr().err == ""


def test_lone_surrogates_are_no_error():
    assert LinearRegex.parse("^a.b$").is_found_in("a\ud800b")
