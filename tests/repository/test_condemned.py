"""The collector's list as a file."""

from __future__ import annotations

import pytest

from twisted_registry.digest import Digest
from twisted_registry.repository.condemned import Condemned, ListInvalid, Phase

BLOB, OTHER, MANIFEST = (Digest.of(name) for name in (b"blob", b"other", b"manifest"))
LIST = Condemned(
    "an-id", Phase.CONDEMNED, 120.0, frozenset([BLOB, OTHER]), frozenset([("a/b", MANIFEST)])
)


@pytest.mark.parametrize(
    "condemned", [LIST, Condemned("another", Phase.PROPOSED, 0.5, frozenset())]
)
def test_it_is_read_as_it_was_written(condemned):
    assert Condemned.from_bytes(condemned.to_bytes()) == condemned


def test_whom_it_names():
    assert LIST.names("a/b", BLOB)
    assert LIST.names(None, BLOB)
    assert LIST.names("a/b", MANIFEST)
    assert not LIST.names("a", MANIFEST)
    assert not LIST.names(None, MANIFEST)


def test_every_torn_list_is_told_from_a_whole_one():
    content = LIST.to_bytes()
    for length in range(len(content)):
        with pytest.raises(ListInvalid):
            Condemned.from_bytes(content[:length])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"end",
        b"id\nend",
        b"id mourned 5\nend",
        b"id proposed soon\nend",
        b"id proposed 5\nsha256:12\nend",
        b"id proposed 5\n\xff\nend",
        b"id proposed 5 6 7\nend",
    ],
)
def test_what_is_no_list(content):
    with pytest.raises(ListInvalid):
        Condemned.from_bytes(content)


def test_it_is_shown_by_its_size():
    assert "blobs=2" in repr(LIST)
    assert BLOB.hex not in repr(LIST)
