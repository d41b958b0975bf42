"""Referrers: order, restarts, and stores that other registries have written."""

from __future__ import annotations

import json

import pytest

from tests.repository.watched_driver import Pauses
from tests.repository.worlds import (
    CONFIG,
    World,
    begin,
    descriptor,
    done,
    image,
    index,
    referrers_in,
    result_of,
)
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.oci.manifest import OCI_ARTIFACT, OCI_IMAGE, OCI_INDEX
from twisted_registry.repository import inventory, layout

SUBJECT = Digest.of(image())
OTHER = "application/vnd.example.thing.v1+json"


def referrer(number=0, **fields):
    return image(subject=descriptor(image(), OCI_IMAGE), annotations={"n": str(number)}, **fields)


@pytest.fixture
def stocked(world):
    world.blob(b"{}")
    world.blob(b"layer")
    return world


def write_as_distribution(world, content, tag=None, name="a/b"):
    """Store a manifest as a registry without referrers does."""
    digest = Digest.of(content)
    world.write(layout.blob_data(digest), content)
    world.write(layout.revision_link(name, digest), str(digest).encode())
    if tag:
        world.write(layout.tag_current_link(name, tag), str(digest).encode())
    return digest


def delete_as_distribution(world, digest, name="a/b"):
    world.remove(layout.revision_link(name, digest))
    world.remove(layout.revision_folder(name, digest))


def page_of(world, subject=SUBJECT, **options):
    """Return a page of the referrers."""
    return world.repo().referrers.page(subject, **{"max_bytes": 4 * 2**20, **options})


def scans(world):
    """Return how often manifests were read."""
    return sum(action == "get" and path.endswith("/data") for action, path in world.driver.calls)


@pytest.mark.parametrize("first", ["subject", "referrer"])
def test_subject_may_be_pushed_first_or_last(stocked, first):
    if first == "subject":
        stocked.put(image(), OCI_IMAGE)
    found = stocked.put(referrer(), OCI_IMAGE)
    if first == "referrer":
        stocked.put(image(), OCI_IMAGE)
    assert stocked.referrers(SUBJECT) == [found]
    assert stocked.referrers(found) == []
    assert stocked.referrers(SUBJECT, name="other") == []


def test_missing_repository_has_no_referrers(world):
    assert world.referrers(SUBJECT) == []
    assert not world.paths()


def test_every_kind_of_manifest_may_refer(stocked):
    subject = descriptor(image(), OCI_IMAGE)
    expected = [
        stocked.put(referrer(), OCI_IMAGE),
        stocked.put(index(subject=subject), OCI_INDEX),
        stocked.put(
            json.dumps({"mediaType": OCI_ARTIFACT, "subject": subject}).encode(), OCI_ARTIFACT
        ),
        stocked.put(json.dumps({"mediaType": OTHER, "subject": subject}).encode(), OTHER),
        stocked.put(json.dumps({"subject": subject, "untyped": 1}).encode(), OTHER),
    ]
    assert stocked.referrers(SUBJECT) == sorted(expected)
    stocked.restart()
    assert stocked.referrers(SUBJECT) == sorted(expected)


@pytest.mark.parametrize("algorithm", ["sha384", "sha512"])
def test_referrers_may_have_digests_of_other_algorithms(stocked, algorithm):
    subject = Digest.of(b"subject", algorithm)
    content = image(subject={**descriptor(b"subject"), "digest": str(subject)})
    expected = []
    for of in ("sha256", algorithm):
        digest = Digest.of(content, of)
        done(stocked.repo().manifests.put(digest, content, OCI_IMAGE))
        expected.append(digest)
    assert stocked.referrers(subject) == sorted(expected)


def test_referrers_are_ordered_and_start_after_a_digest(stocked):
    expected = sorted(stocked.put(referrer(number), OCI_IMAGE) for number in range(8))
    repository = stocked.repo()
    assert stocked.referrers(SUBJECT) == expected
    for position, digest in enumerate(expected):
        assert referrers_in(repository, SUBJECT, str(digest)) == expected[position + 1 :]
    assert referrers_in(repository, SUBJECT, "a") == expected
    assert referrers_in(repository, SUBJECT, "z") == []


def test_referrers_of_several_pages_are_complete(stocked, monkeypatch):
    monkeypatch.setattr(inventory, "_PAGE_ENTRIES", 3)
    expected = sorted(stocked.put(referrer(number), OCI_IMAGE) for number in range(10))
    stocked.restart()
    assert stocked.referrers(SUBJECT) == expected


def test_deleted_referrer_is_not_listed(stocked):
    first, second = (stocked.put(referrer(number), OCI_IMAGE) for number in range(2))
    assert stocked.referrers(SUBJECT) == sorted([first, second])
    done(stocked.repo().manifests.delete(first))
    assert stocked.referrers(SUBJECT) == [second]
    assert not stocked.exists(layout.referrer_link("a/b", SUBJECT, first))
    stocked.put(referrer(0), OCI_IMAGE)
    assert stocked.referrers(SUBJECT) == sorted([first, second])


def test_referrers_outlive_their_subject(stocked):
    subject = stocked.put(image(), OCI_IMAGE)
    found = stocked.put(referrer(), OCI_IMAGE)
    done(stocked.repo().manifests.delete(subject))
    assert stocked.referrers(SUBJECT) == [found]


# Stores of other registries.


def test_manifests_of_another_registry_are_found_and_read_once(stocked):
    expected = [write_as_distribution(stocked, referrer(number)) for number in range(5)]
    write_as_distribution(stocked, image())
    assert stocked.referrers(SUBJECT) == sorted(expected)
    assert scans(stocked) >= 6
    for _ in range(2):
        stocked.restart()
        assert stocked.referrers(SUBJECT) == sorted(expected)
        assert stocked.referrers(Digest.of(b"other")) == []
        assert scans(stocked) == 0


def test_later_manifests_of_another_registry_are_found(stocked):
    first = stocked.put(referrer(1), OCI_IMAGE)
    assert stocked.referrers(SUBJECT) == [first]
    second = write_as_distribution(stocked, referrer(2))
    assert stocked.referrers(SUBJECT) == sorted([first, second])


def test_referrer_deleted_and_pushed_by_another_registry_is_tracked(stocked):
    first = write_as_distribution(stocked, referrer(1))
    assert stocked.referrers(SUBJECT) == [first]
    delete_as_distribution(stocked, first)
    assert stocked.referrers(SUBJECT) == []
    write_as_distribution(stocked, referrer(1))
    stocked.restart()
    assert stocked.referrers(SUBJECT) == [first]


def test_deleted_referrer_that_another_registry_stores_again_is_found(stocked):
    first = stocked.put(referrer(1), OCI_IMAGE)
    assert stocked.referrers(SUBJECT) == [first]
    done(stocked.repo().manifests.delete(first))
    stocked.restart()
    write_as_distribution(stocked, referrer(1))
    assert stocked.referrers(SUBJECT) == [first]


def test_referrers_tag_schema_is_found(stocked):
    """Clients of registries without the endpoint tag an index with the digest of the subject."""
    stocked.put(image(), OCI_IMAGE, "v1")
    found = write_as_distribution(stocked, referrer())
    listing = index({**descriptor(referrer(), OCI_IMAGE), "artifactType": CONFIG})
    write_as_distribution(stocked, listing, f"sha256-{SUBJECT.hex}")
    assert stocked.referrers(SUBJECT) == [found]


def test_links_to_missing_manifests_are_not_listed(stocked):
    found = stocked.put(referrer(), OCI_IMAGE)
    gone = Digest.of(b"gone")
    stocked.write(layout.referrer_link("a/b", SUBJECT, gone), str(gone).encode())
    stocked.write(f"{layout.subject_folder('a/b', SUBJECT)}/sha256/nonsense/link", b"x")
    stocked.write(f"{layout.subject_folder('a/b', SUBJECT)}/md5/{'a' * 32}/link", b"x")
    assert stocked.referrers(SUBJECT) == [found]
    # A link under a subject that the manifest does not name.
    stocked.write(layout.referrer_link("a/b", gone, found), str(found).encode())
    assert stocked.referrers(gone) == []


@pytest.mark.parametrize("torn", [b"", b"\xff\x00", b"sha256:", b"nonsense\n" * 9])
def test_torn_scanned_file_causes_another_scan(stocked, torn):
    found = write_as_distribution(stocked, referrer())
    assert stocked.referrers(SUBJECT) == [found]
    stocked.write(layout.referrers_scanned("a/b"), torn)
    stocked.remove(layout.referrer_link("a/b", SUBJECT, found))
    stocked.restart()
    assert stocked.referrers(SUBJECT) == [found]


def test_valid_lines_of_a_torn_scanned_file_are_used(stocked):
    found = sorted(write_as_distribution(stocked, referrer(number)) for number in range(4))
    assert stocked.referrers(SUBJECT) == found
    content = stocked.read(layout.referrers_scanned("a/b"))
    stocked.write(layout.referrers_scanned("a/b"), content[: len(content) // 2])
    stocked.restart()
    assert stocked.referrers(SUBJECT) == found


@pytest.mark.parametrize("damage", [b"", b"x", None])
def test_unreadable_manifest_is_scanned_again(stocked, damage):
    found = write_as_distribution(stocked, referrer())
    if damage is None:
        stocked.remove(layout.blob_data(found))
    else:
        stocked.write(layout.blob_data(found), damage)
    assert stocked.referrers(SUBJECT) == []
    stocked.write(layout.blob_data(found), referrer())
    assert stocked.referrers(SUBJECT) == [found]


def test_invalid_manifest_is_scanned_once(stocked):
    write_as_distribution(stocked, b"text")
    assert stocked.referrers(SUBJECT) == []
    stocked.restart()
    assert stocked.referrers(SUBJECT) == []
    assert scans(stocked) == 0


def test_referrer_pushed_during_its_delete_is_listed(stocked):
    digest = stocked.put(referrer(), OCI_IMAGE)
    assert stocked.referrers(SUBJECT) == [digest]
    pauses = Pauses("delete", digest.hex)
    stocked.driver.before = pauses
    delete = begin(stocked.repo().manifests.delete(digest))
    # Let the revision be deleted, and hold the removal of the link.
    (revision,) = pauses.waiting
    pauses.waiting.clear()
    revision.callback(None)
    assert pauses.waiting
    pauses.holding = False
    stocked.put(referrer(), OCI_IMAGE)
    pauses.release()
    result_of(delete)
    assert stocked.referrers(SUBJECT) == [digest]


def test_concurrent_listings_scan_once(stocked):
    found = [write_as_distribution(stocked, referrer(number)) for number in range(3)]
    pauses = Pauses("get", "/data")
    stocked.driver.before = pauses
    listings = [begin(page_of(stocked)) for _ in range(3)]
    assert len(pauses.waiting) == 3
    pauses.release()
    for listing in listings:
        assert len(result_of(listing).descriptors) == len(found)
    # To look for a subject, and to parse it.
    assert scans(stocked) == 6


def test_failing_store_is_not_an_empty_list(stocked):
    stocked.put(referrer(), OCI_IMAGE)

    def broken(_number, action, path):
        if action == "list_folders":
            raise OSError(path)

    stocked.driver.before = broken
    with pytest.raises(OSError):
        done(page_of(stocked))


def test_a_store_without_manifests_has_no_referrers():
    assert World().referrers(SUBJECT) == []


def test_storage_error_is_unavailable(stocked):
    stocked.write(layout.subject_folder("a/b", SUBJECT), b"a file")
    with pytest.raises(RegistryError) as caught:
        done(page_of(stocked))
    assert caught.value.code is ErrorCode.UNAVAILABLE
