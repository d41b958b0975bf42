"""Records of referrers, pages of a bounded size, and lists from stores that cannot be written."""

from __future__ import annotations

import json

import pytest

from tests.repository.watched_driver import WatchedDriver
from tests.repository.worlds import CONFIG, DiskWorld, PeekWorld, World, descriptor, done, image
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.manifest import OCI_IMAGE
from twisted_registry.repository import layout, referrers
from twisted_registry.repository.deletion import prune_empty_repository
from twisted_registry.repository.registry import Registry
from twisted_registry.repository.subject_records import MAX_INLINE_BYTES, SubjectRecord
from twisted_registry.repository.trash import Deleter, TrashReason
from twisted_registry.storage.interfaces import StorageError

SUBJECT = Digest.of(image())
NAME = "a/b"
LARGE = "x" * MAX_INLINE_BYTES
PAGE_BYTES = 4 * 1024 * 1024


def referrer(number=0, **annotations):
    return image(
        subject=descriptor(image(), OCI_IMAGE), annotations={"n": str(number), **annotations}
    )


@pytest.fixture(params=[World, PeekWorld, DiskWorld])
def stocked(request):
    world = request.param()
    for content in (b"{}", b"layer"):
        world.blob(content)
    return world


def push(world, *contents):
    """Push manifests; return their digests in order."""
    return sorted(world.put(content, OCI_IMAGE) for content in contents)


def store_as_distribution(world, *contents):
    """Store manifests as a registry without referrers does; return their digests in order."""
    digests = sorted(map(Digest.of, contents))
    for content in contents:
        digest = Digest.of(content)
        world.write(layout.blob_data(digest), content)
        world.write(layout.revision_link(NAME, digest), str(digest).encode())
    return digests


def pages(world, **options):
    """Return the descriptors of each page."""
    found, last = [], ""
    while last is not None:
        page = done(
            world.repo().referrers.page(SUBJECT, last, **{"max_bytes": PAGE_BYTES, **options})
        )
        found.append([json.loads(one) for one in page.descriptors])
        last = page.last
    return found


def digests_on(found):
    return [[Digest.parse(one["digest"]) for one in page] for page in found]


def manifests_read(world):
    """Return how often bytes of manifests were read."""
    return sum(action == "get" and path.endswith("/data") for action, path in world.driver.calls)


def records(world):
    return [path for path in world.paths() if path.endswith("/subject")]


@pytest.mark.parametrize("more", ["", LARGE], ids=["small", "large"])
def test_pushed_referrers_are_listed_without_reading_a_manifest(stocked, more):
    contents = [referrer(number, more=more) for number in range(3)]
    expected = push(stocked, *contents)
    for _ in range(2):
        stocked.restart()
        (found,) = pages(stocked)
        assert digests_on([found]) == [expected]
        assert manifests_read(stocked) == 0
    by_digest = {one["digest"]: one for one in found}
    for content in contents:
        assert by_digest[str(Digest.of(content))] == descriptor(
            content, OCI_IMAGE, artifactType=CONFIG, annotations=json.loads(content)["annotations"]
        )


def test_large_manifests_without_subject_are_not_read(stocked):
    stocked.put(image(annotations={"more": LARGE}), OCI_IMAGE)
    expected = push(stocked, referrer())
    stocked.restart()
    assert digests_on(pages(stocked)) == [expected]
    assert manifests_read(stocked) == 0


def test_link_without_record_gets_one_with_the_first_list(stocked):
    expected = push(stocked, referrer(1), referrer(2, more=LARGE))
    for digest in expected:
        stocked.remove(layout.revision_subject(NAME, digest))
    before = records(stocked)
    stocked.restart()
    assert digests_on(pages(stocked)) == [expected]
    assert len(records(stocked)) == len(before) + 2
    stocked.restart()
    assert digests_on(pages(stocked)) == [expected]
    assert manifests_read(stocked) == 0


def test_manifests_of_another_registry_are_parsed_once(stocked):
    expected = store_as_distribution(stocked, referrer(1), referrer(2, more=LARGE))
    assert digests_on(pages(stocked)) == [expected]
    stocked.restart()
    assert digests_on(pages(stocked)) == [expected]
    assert manifests_read(stocked) == 0


@pytest.mark.parametrize("kept", [0, 1, 20, -1])
def test_torn_record_is_written_again(stocked, kept):
    (digest,) = push(stocked, referrer())
    path = layout.revision_subject(NAME, digest)
    whole = stocked.read(path)
    stocked.write(path, whole[:kept])
    stocked.restart()
    assert digests_on(pages(stocked)) == [[digest]]
    assert stocked.read(path) == whole


@pytest.mark.parametrize("file", ["subject", "descriptor"])
def test_flipped_byte_of_a_descriptor_is_noticed(stocked, file):
    content = referrer(more=LARGE)
    (digest,) = push(stocked, content)
    path = f"{layout.revision_folder(NAME, digest)}/{file}"
    whole = stocked.read(path)
    for position in (0, len(whole) // 2, len(whole) - 1):
        flipped = bytearray(whole)
        flipped[position] ^= 1
        stocked.write(path, bytes(flipped))
        stocked.restart()
        ((found,),) = pages(stocked)
        assert found["annotations"] == json.loads(content)["annotations"]
        assert stocked.read(path) == whole


def test_record_of_another_manifest_is_not_used(stocked):
    first, second = push(stocked, referrer(1), referrer(2))
    path = layout.revision_subject(NAME, first)
    stocked.write(path, stocked.read(layout.revision_subject(NAME, second)))
    stocked.restart()
    ((one, other),) = pages(stocked)
    assert one["annotations"] != other["annotations"]
    assert SubjectRecord.from_bytes(first, stocked.read(path)).manifest == first


def test_record_that_cannot_be_read_is_not_needed(stocked):
    expected = push(stocked, referrer(1), referrer(2))
    path = layout.revision_subject(NAME, expected[0])
    stocked.write(path, bytes(10 * MAX_INLINE_BYTES))
    stocked.restart()
    assert digests_on(pages(stocked)) == [expected]


def test_media_type_that_the_repository_has_stored_is_current(stocked):
    content = json.dumps({"subject": descriptor(image(), OCI_IMAGE), "untyped": 1}).encode()
    digest = Digest.of(content)
    for media_type in ("application/x.one", "application/x.two"):
        done(stocked.repo().manifests.put(digest, content, media_type))
        ((found,),) = pages(stocked)
        assert found["mediaType"] == media_type
        stocked.restart()


# Pages.


def test_page_is_bounded_in_number(stocked, monkeypatch):
    monkeypatch.setattr(referrers, "MAX_PAGE_REFERRERS", 3)
    monkeypatch.setattr(referrers, "_BATCH_ENTRIES", 2)
    expected = push(stocked, *(referrer(number) for number in range(8)))
    assert digests_on(pages(stocked)) == [expected[:3], expected[3:6], expected[6:]]
    for digest in expected[3:6]:
        stocked.remove(layout.revision_folder(NAME, digest))
    assert digests_on(pages(stocked)) == [expected[:3], [], expected[6:]]


def test_page_is_bounded_in_bytes_and_has_at_least_one(stocked):
    expected = push(stocked, *(referrer(number, more=LARGE) for number in range(3)))
    assert digests_on(pages(stocked, max_bytes=100)) == [[digest] for digest in expected]
    assert digests_on(pages(stocked, max_bytes=2 * len(LARGE))) == [[one] for one in expected]
    assert digests_on(pages(stocked, max_bytes=3 * len(LARGE))) == [expected[:2], expected[2:]]


def test_page_of_a_filter_reads_no_large_descriptor_of_another_type(stocked):
    other = image(
        subject=descriptor(image(), OCI_IMAGE), artifactType="x/y", annotations={"more": LARGE}
    )
    expected = push(stocked, referrer(), other)
    stocked.restart()
    assert digests_on(pages(stocked, artifact_type=CONFIG)) == [
        [digest for digest in expected if digest != Digest.of(other)]
    ]
    assert not [path for _, path in stocked.driver.calls if str(path).endswith("/descriptor")]
    assert digests_on(pages(stocked, artifact_type="x/y")) == [[Digest.of(other)]]


def test_page_is_bounded_in_what_it_parses(stocked, monkeypatch):
    monkeypatch.setattr(referrers, "_MAX_PARSED_BYTES", 1)
    monkeypatch.setattr(referrers, "MAX_CONCURRENT", 2)
    expected = push(stocked, *(referrer(number) for number in range(5)))
    for digest in expected:
        stocked.remove(layout.revision_subject(NAME, digest))
    # They count as searched: nothing but the list needs their records.
    stocked.write(layout.referrers_scanned(NAME), "\n".join(map(str, expected)).encode())
    stocked.restart()
    assert digests_on(pages(stocked)) == [expected[:2], expected[2:4], expected[4:]]
    assert digests_on(pages(stocked)) == [expected]


# Stores that cannot be written.


class Unwritable(WatchedDriver):
    """A driver whose store refuses every change."""

    def __init__(self, driver, *, full=False, **options):
        super().__init__(driver, **options)
        self.full = full
        self.refused = 0
        self.before = self.refuse

    def refuse(self, _number, action, path):
        if action in {"put", "create", "move", "copy", "delete", "delete_many", "prune", "writer"}:
            self.refused += 1
            raise StorageError(str(path), "read-only file system", full=self.full)


@pytest.mark.parametrize("full", [False, True])
def test_list_of_an_unwritable_store_is_complete(stocked, full, log_lines):
    old = push(stocked, referrer(1))
    stocked.restart()
    expected = sorted([*old, *store_as_distribution(stocked, referrer(2), referrer(3, more=LARGE))])
    driver = Unwritable(stocked.driver.driver, full=full, can_peek=stocked.can_peek)
    stocked.registry = Registry(driver, stocked.clock)
    before = stocked.paths()
    for _ in range(3):
        assert digests_on(pages(stocked)) == [expected]
    assert driver.refused == 1, "it is not tried again at once"
    assert len([line for line in log_lines if "records of referrers" in line]) == 1
    assert stocked.paths() == before
    # Once it can be written, it is.
    driver.before = lambda *_: None
    stocked.clock.advance(61)
    assert digests_on(pages(stocked)) == [expected]
    stocked.restart()
    assert digests_on(pages(stocked)) == [expected]
    for digest in expected:
        assert stocked.exists(layout.referrer_link(NAME, SUBJECT, digest))


def test_read_only_registry_writes_nothing(stocked):
    expected = store_as_distribution(stocked, referrer(1), referrer(2, more=LARGE))
    driver = Unwritable(stocked.driver.driver, can_peek=stocked.can_peek)
    stocked.registry = Registry(driver, stocked.clock, read_only=True)
    for _ in range(2):
        assert digests_on(pages(stocked)) == [expected]
        stocked.clock.advance(1000)
    assert driver.refused == 0


def test_read_only_registry_parses_a_manifest_once(stocked):
    expected = store_as_distribution(stocked, *(referrer(number) for number in range(3)))
    stocked.registry = Registry(stocked.driver, stocked.clock, read_only=True)
    assert digests_on(pages(stocked)) == [expected]
    stocked.driver.calls.clear()
    assert digests_on(pages(stocked)) == [expected]
    assert manifests_read(stocked) == 0


def test_delete_on_a_full_store_makes_the_search_start_over(stocked):
    first, second = push(stocked, referrer(1), referrer(2))
    pages(stocked)
    driver = Unwritable(stocked.driver.driver, can_peek=stocked.can_peek)
    driver.before = lambda _number, action, path: (
        driver.refuse(_number, action, path) if action == "put" else None
    )
    stocked.registry = Registry(driver, stocked.clock)
    done(stocked.repo().manifests.delete(first))
    assert not stocked.exists(layout.referrers_scanned(NAME))
    stocked.restart()
    store_as_distribution(stocked, referrer(1), referrer(2))
    assert digests_on(pages(stocked)) == [sorted([first, second])]


# What deletes, restores and copies.


@pytest.mark.parametrize("more", ["", LARGE], ids=["small", "large"])
def test_delete_leaves_nothing_of_a_referrer(stocked, more):
    before = stocked.paths()
    content = referrer(more=more)
    push(stocked, content)
    pages(stocked)
    done(stocked.repo().manifests.delete(Digest.of(content)))
    assert set(stocked.paths()) - set(before) <= {
        layout.blob_data(Digest.of(content)),
        layout.referrers_scanned(NAME),
    }
    assert pages(stocked) == [[]]


def test_repository_with_records_can_be_deleted(stocked):
    push(stocked, referrer(1), referrer(2, more=LARGE))
    done(stocked.repo().delete())
    assert not stocked.paths(layout.repository_folder(NAME))
    assert done(prune_empty_repository(stocked.driver, NAME))


@pytest.mark.parametrize("world", [World, DiskWorld])
def test_delete_at_any_call_of_a_list_leaves_no_folder(world):
    """A folder without a link would count as a revision, and keep its blob."""
    at, happened = 0, True
    while happened:
        stocked, happened = world(), False
        for content in (b"{}", b"layer"):
            stocked.blob(content)
        (digest,) = store_as_distribution(stocked, referrer(more=LARGE))

        def delete(number, _action, _path, stocked=stocked, digest=digest, at=at):
            nonlocal happened
            if number == at:
                stocked.driver.before = lambda *_: None
                happened = True
                done(Deleter(stocked.driver).delete_revision(NAME, digest, TrashReason.DELETED))

        stocked.restart()
        stocked.driver.before = delete
        pages(stocked)
        assert stocked.exists(layout.revision_folder(NAME, digest)) is not happened, at
        at += 1
    assert at > 8
