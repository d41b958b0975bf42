from __future__ import annotations

from functools import cache

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from twisted_registry.oci.patterns import Glob, GlobInvalid, GlobSet


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("alpine", ["alpine"], ["alpine2", "a/alpine", "alpine/x"]),
        ("library/*", ["library/a", "library/a-b"], ["library", "library/a/b", "x/library/a"]),
        ("*", ["a", "a.b"], ["a/b"]),
        ("**", ["a", "a/b", "a/b/c"], []),
        ("team/**", ["team/a", "team/a/b"], ["team", "team-b/a", "a/team/b"]),
        ("**/cache", ["cache", "a/cache", "a/b/cache"], ["cache/a", "a/mycache"]),
        ("a/**/z", ["a/z", "a/b/z", "a/b/c/z"], ["a", "z", "a/z/y", "b/a/z"]),
        ("a/**/b/**/c", ["a/b/c", "a/x/b/y/c", "a/b/b/c"], ["a/c/b", "a/b", "b/c"]),
        ("build-*", ["build-1", "build-a.b"], ["build", "build-1/x", "a/build-1"]),
        ("*-dev/*", ["a-dev/b"], ["a-dev", "a-dev/b/c", "a/b-dev"]),
        ("a*b*c", ["abc", "axbxc", "abbcc"], ["acb", "ab/c", "abcd"]),
        ("v1.0", ["v1.0"], ["v1x0"]),
        ("**/**", ["a", "a/b"], []),
    ],
)
def test_a_pattern_matches_names(pattern, matching, others):
    glob = Glob.parse(pattern)
    assert [name for name in (*matching, *others) if glob.matches(name)] == matching


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/a",
        "a/",
        "a//b",
        "A",
        "a b",
        "a**",
        "**a/b",
        "a/***",
        "a:b",
        "a\n",
        "ä",
        "!a",
        "a" * 256,
    ],
)
def test_an_invalid_pattern_is_refused(text):
    with pytest.raises(GlobInvalid):
        Glob.parse(text)


def test_an_exclamation_mark_excludes_at_any_position():
    choice = GlobSet.parse(["!team/secret/**", "team/**", "alpine"])
    names = ["alpine", "team/a", "team/secret", "team/secret/x", "other"]
    assert [name for name in names if name in choice] == ["alpine", "team/a", "team/secret"]


@pytest.mark.parametrize(
    ("patterns", "everything"),
    [(["**"], True), (["a", "**"], True), (["**", "!a"], False), (["*"], False), ([], False)],
)
def test_a_set_that_matches_everything(patterns, everything):
    assert GlobSet.parse(patterns).matches_everything is everything


def reference(pattern: list[str], name: list[str]) -> bool:
    """The same by trying everything."""

    @cache
    def part(text: str, word: str) -> bool:
        if not text:
            return not word
        if text[0] == "*":
            return part(text[1:], word) or (bool(word) and part(text, word[1:]))
        return bool(word) and text[0] == word[0] and part(text[1:], word[1:])

    @cache
    def whole(i: int, j: int) -> bool:
        if i == len(pattern):
            return j == len(name)
        if pattern[i] != "**":
            return j < len(name) and part(pattern[i], name[j]) and whole(i + 1, j + 1)
        if i == len(pattern) - 1:
            return j < len(name)
        return whole(i + 1, j) or (j < len(name) and whole(i, j + 1))

    return whole(0, 0)


components = st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=6)
starred = st.text("ab*", min_size=1, max_size=5).filter(lambda text: "**" not in text)
patterns = st.lists(starred | st.just("**"), min_size=1, max_size=6)


@given(patterns, components)
@example(["a*a", "**", "b"], ["aa", "ab", "b", "b"])
@example(["**", "a", "**", "*b"], ["b", "a", "a", "b"])
def test_a_pattern_matches_like_a_backtracking_matcher(pattern, name):
    glob = Glob.parse("/".join(pattern))
    # Two of them in a row are one.
    once = [each for i, each in enumerate(pattern) if each != "**" or pattern[i - 1 : i] != ["**"]]
    assert glob.matches("/".join(name)) is reference(once, name)


def test_matching_takes_linear_time():
    # By trying everything each of these would take longer than anybody waits.
    name = "a" * 255
    assert not Glob.parse("a*" * 120 + "b").matches(name)
    deep = "/".join(["a"] * 128)
    assert not Glob.parse("**/a/" * 50 + "b").matches(deep)


@pytest.mark.parametrize(
    ("pattern", "tags", "others"),
    [
        ("v*", ["v", "v1", "v1.2.3-rc1"], ["1v", "V1", ""]),
        ("*-rc*", ["v1-rc", "1-rc2", "-rc"], ["rc", "v1"]),
        ("*", ["a", "Z_9.-"], [""]),
        ("v1.2", ["v1.2"], ["v1x2", "v1.20"]),
        ("*a*b*", ["ab", "xaxbx", "aab"], ["ba", "a"]),
        ("_X", ["_X"], ["_x"]),
    ],
)
def test_a_pattern_matches_tags(pattern, tags, others):
    glob = Glob.parse_tag(pattern)
    assert [tag for tag in tags if not glob.matches(tag)] == []
    assert [tag for tag in others if glob.matches(tag)] == []


@pytest.mark.parametrize("text", ["", "a/b", "**", "v**", "a b", "!", "x" * 129, "é", "[v]"])
def test_an_invalid_pattern_for_tags_is_refused(text):
    with pytest.raises(GlobInvalid):
        Glob.parse_tag(text)


def test_an_exclamation_mark_excludes_tags():
    choice = GlobSet.parse(["v*", "!*-rc*"], Glob.parse_tag)
    assert "v1" in choice
    assert "v1-rc1" not in choice
    assert "latest" not in choice
