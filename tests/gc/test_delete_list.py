"""The file format of the delete list."""

from __future__ import annotations

import pytest
from attrs import evolve

from twisted_registry.gc.delete_list import DeleteList, DeleteListInvalid, DeleteListView, Phase
from twisted_registry.oci.digest import Digest

BLOB, OTHER, MANIFEST = (Digest.of(name) for name in (b"blob", b"other", b"manifest"))
LIST = DeleteList(
    "an-id", Phase.CONDEMNED, 120.0, frozenset([BLOB, OTHER]), frozenset([("a/b", MANIFEST)])
)


@pytest.mark.parametrize(
    "condemned", [LIST, DeleteList("another", Phase.PROPOSED, 0.5, frozenset())]
)
def test_list_is_read_as_it_was_written(condemned):
    listed = DeleteListView.from_bytes(condemned.to_bytes())
    for name in ("id", "phase", "ttl_s", "owner"):
        assert getattr(listed, name) == getattr(condemned, name)
    everything = [*condemned.blobs, *(digest for _, digest in condemned.manifests)]
    assert sorted(listed.digests()) == sorted(map(str, everything))


def test_blobs_are_listed_everywhere_and_manifests_in_their_repository():
    listed = DeleteListView.from_bytes(LIST.to_bytes())
    assert listed.contains("a/b", BLOB)
    assert listed.contains(None, BLOB)
    assert listed.contains("a/b", MANIFEST)
    assert not listed.contains("a", MANIFEST)
    assert not listed.contains(None, MANIFEST)


def test_every_truncated_list_is_invalid():
    content = LIST.to_bytes()
    for length in range(len(content)):
        with pytest.raises(DeleteListInvalid):
            DeleteListView.from_bytes(content[:length])


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
        b"id proposed 5 6\n" + str(BLOB).encode() + b" a/b more\nend",
    ],
)
def test_malformed_list_is_invalid(content):
    with pytest.raises(DeleteListInvalid):
        DeleteListView.from_bytes(content)


def test_repr_has_sizes_instead_of_digests():
    assert "blobs=2" in repr(LIST)
    assert "lines=3" in repr(DeleteListView.from_bytes(LIST.to_bytes()))
    assert BLOB.hex not in repr(LIST)


def test_unchanged_content_is_recognised():
    """And that of another list, or another phase of the same list, is not."""
    content = LIST.to_bytes()
    listed = DeleteListView.from_bytes(content)
    assert listed.matches_content(content)
    for other in (
        evolve(LIST, phase=Phase.PROPOSED),
        evolve(LIST, id="another"),
        evolve(LIST, blobs=frozenset([BLOB])),
    ):
        assert not listed.matches_content(other.to_bytes())
    assert not listed.matches_content(content[:-1])
