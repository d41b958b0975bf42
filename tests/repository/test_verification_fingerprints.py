"""Codes of content whose digest was compared once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from twisted_registry.oci.digest import Digest
from twisted_registry.repository.verification import Fingerprints


def code_of(fingerprints, *pieces):
    running = fingerprints.begin()
    for piece in pieces:
        running.update(piece)
    return running.code()


@given(st.lists(st.binary(max_size=40), max_size=5), st.integers(0), st.integers(0, 7))
def test_the_code_is_of_the_bytes_and_not_of_how_they_came(pieces, position, bit):
    fingerprints = Fingerprints()
    whole = b"".join(pieces)
    code = code_of(fingerprints, *pieces)
    assert code == code_of(fingerprints, whole)
    assert len(code) == 16
    spoiled = [whole + b"\0", whole[:-1]]
    if whole:
        other = bytearray(whole)
        other[position % len(whole)] ^= 1 << bit
        spoiled.append(bytes(other))
    assert all(code_of(fingerprints, bytes_) != code for bytes_ in spoiled if bytes_ != whole)


def test_no_process_has_the_codes_of_another():
    assert code_of(Fingerprints(), b"x") != code_of(Fingerprints(), b"x")


def test_the_longest_unused_are_dropped():
    fingerprints = Fingerprints(limit=2)
    one, two, three = (Digest.of(content) for content in (b"1", b"2", b"3"))
    fingerprints.note(one, b"a")
    fingerprints.note(two, b"b")
    assert fingerprints.of(one) == b"a"
    fingerprints.note(three, b"c")
    assert [fingerprints.of(digest) for digest in (one, two, three)] == [b"a", None, b"c"]
