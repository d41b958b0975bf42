"""Digests: the grammar, the algorithms, and what they say of bytes."""

from __future__ import annotations

import hashlib
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_registry.oci.digest import ALGORITHMS, CANONICAL, Digest, DigestInvalid, hasher

HEX = set("0123456789abcdef")
NEAR_HEX = st.text("0123456789abcdefABCDEFg\u0661\n -", min_size=0, max_size=130)
NEAR_DIGEST = st.one_of(
    st.text(),
    st.builds("{}:{}".format, st.sampled_from([*ALGORITHMS, "md5", "sha256 ", "SHA256"]), NEAR_HEX),
    st.builds(
        "{}{}{}".format,
        st.sampled_from(["", " ", "\n", "sha256"]),
        st.builds(str, st.builds(Digest.of, st.binary(), st.sampled_from(list(ALGORITHMS)))),
        st.sampled_from(["", " ", "\n", "0", "\x00"]),
    ),
)


def is_digest(text):
    """A recogniser of its own: splits instead of matching."""
    algorithm, colon, encoded = text.partition(":")
    if not colon or algorithm not in {"sha256", "sha384", "sha512"}:
        return False
    return len(encoded) == int(algorithm[3:]) // 4 and not set(encoded) - HEX


@given(NEAR_DIGEST)
def test_parse_accepts_the_grammar_of_the_specification(text):
    try:
        digest = Digest.parse(text)
    except DigestInvalid:
        assert not is_digest(text)
    else:
        assert is_digest(text)
        assert str(digest) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "form"),
        ("sha256", "form"),
        ("sha256:", "form"),
        (":" + "a" * 64, "form"),
        ("sha256:" + "a" * 64 + "\n", "form"),
        ("sha256::" + "a" * 64, "form"),
        ("sha256:" + "\u0661" * 64, "form"),
        ("SHA256:" + "a" * 64, "form"),
        ("sha256+:" + "a" * 64, "form"),
        ("sha256:../../etc/passwd", "form"),
        ("md5:" + "a" * 32, "sha512"),
        ("sha256+b64:" + "a" * 64, "sha512"),
        ("sha256:" + "a" * 63, "64 lower-case"),
        ("sha256:" + "a" * 65, "64 lower-case"),
        ("sha256:" + "A" * 64, "64 lower-case"),
        ("sha512:" + "a" * 64, "128 lower-case"),
        ("sha384:" + "a" * 64, "96 lower-case"),
        ("sha256:" + "=" * 64, "64 lower-case"),
    ],
)
def test_an_invalid_digest_has_a_reason(text, words):
    with pytest.raises(DigestInvalid, match=words):
        Digest.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "a" * 2_000_000,
        "a+" * 1_000_000,
        "a" * 1_000_000 + "+" + "a" * 1_000_000 + "!",
        "sha256:" + "a" * 2_000_000 + "!",
        "sha256:" * 300_000,
        ("a" * 50 + "._-") * 40_000 + ":",
    ],
)
def test_long_input_is_refused_in_linear_time(text):
    # The suite's time limit is the alarm: a search that backtracks would not end.
    with pytest.raises(DigestInvalid):
        Digest.parse(text)


@given(st.binary(max_size=200), st.sampled_from(list(ALGORITHMS)))
def test_the_digest_equals_that_of_hashlib(content, algorithm):
    digest = Digest.of(content, algorithm)
    assert digest.hex == getattr(hashlib, algorithm)(content).hexdigest()
    assert Digest.parse(str(digest)) == digest
    assert digest.matches(content)
    assert not digest.matches(content + b"\0")
    assert digest.is_of_empty_content == (content == b"")


@given(st.lists(st.binary(max_size=50)), st.sampled_from(list(ALGORITHMS)))
def test_a_hasher_has_the_digest_of_all_pieces(pieces, algorithm):
    running = hasher(algorithm)
    for piece in pieces:
        running.update(piece)
    assert Digest.from_hasher(running) == Digest.of(b"".join(pieces), algorithm)


def test_the_default_algorithm_is_the_canonical_one():
    assert CANONICAL == "sha256"
    assert Digest.of(b"x").algorithm == "sha256"


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "", "SHA256", "shake_128", "sha256\n"])
def test_other_algorithms_are_refused(algorithm):
    with pytest.raises(DigestInvalid, match="sha256"):
        hasher(algorithm)


@given(st.lists(st.builds(Digest.of, st.binary(), st.sampled_from(list(ALGORITHMS)))))
def test_digests_sort_like_their_text(digests):
    assert [str(digest) for digest in sorted(digests)] == sorted(map(str, digests))


def test_a_digest_is_hashable_and_immutable():
    digest = Digest.of(b"x")
    assert {digest: 1}[Digest.parse(str(digest))] == 1
    with pytest.raises(AttributeError):
        digest.hex = "0" * 64


def test_the_reference_grammar_accepts_and_rejects():
    assert is_digest("sha256:" + "0" * 64)
    assert not is_digest("sha256:" + string.ascii_uppercase)
