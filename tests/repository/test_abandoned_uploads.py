"""Detection and removal of abandoned uploads."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred

from tests.repository.worlds import Body, begin, done, listed, result_of
from twisted_registry.repository import layout
from twisted_registry.repository.uploads import find_abandoned_uploads
from twisted_registry.storage.interfaces import Entry

DAY = 86_400


def upload_of(world, content=b"", name="a/b"):
    upload = done(world.repo(name).uploads.start())
    if content:
        done(upload.append(Body(content)))
    return upload.id


def found(world, before):
    uploads = done(listed(find_abandoned_uploads(world.registry.driver, before)))
    return [(upload.repository, upload.id) for upload in uploads]


def one(world, before):
    (upload,) = done(listed(find_abandoned_uploads(world.registry.driver, before)))
    return upload


@pytest.fixture
def now(world):
    """The time of the store, in seconds since the epoch."""
    world.write("probe", b"")
    return result_of(world.memory.stat("probe")).modified / 1e9


def test_uploads_of_every_repository_are_found(world, now):
    expected = [
        (name, upload_of(world, content, name))
        for name in ("a", "a-b", "a/b/c", "z")
        for content in (b"", b"some")
    ]
    assert sorted(found(world, now + DAY)) == sorted(expected)


def test_uploads_with_later_activity_are_not_found(world, now):
    upload_of(world)
    upload_of(world, b"some")
    assert found(world, now - 1) == []


def test_other_files_and_folders_are_not_uploads(world, now):
    upload_id = upload_of(world)
    world.write(f"{layout.uploads_folder('a/b')}/notes/file", b"")
    world.write(f"{layout.uploads_folder('a/b')}/file", b"")
    world.blob(b"layer")
    assert found(world, now + DAY) == [("a/b", upload_id)]


def test_abandoned_upload_is_removed_completely(world, now):
    upload_id = upload_of(world, b"some")
    upload = one(world, now + DAY)
    assert done(upload.remove()) is True
    assert not [path for path in world.paths() if upload_id in path]
    assert found(world, now + DAY) == []
    assert not world.exists(f"{layout.REPOSITORIES}/a"), "its folders are empty"
    assert done(upload.remove()) is False, "it is gone already"
    assert not [path for path in world.paths() if upload_id in path]


def test_upload_without_bytes_is_removed(world, now):
    upload_id = upload_of(world)
    assert done(one(world, now + DAY).remove()) is True
    assert not [path for path in world.paths() if upload_id in path]


def test_upload_that_is_being_written_stays(world, now):
    upload_id = upload_of(world, b"some")
    writer = result_of(world.driver.writer(layout.upload_data("a/b", upload_id)))
    assert done(one(world, now + DAY).remove()) is False
    result_of(writer.close())
    assert done(done(world.repo().uploads.find(upload_id)).append(Body(b"more"))) == 8


def test_upload_that_continued_since_it_was_found_stays(world, now):
    upload_id = upload_of(world, b"some")
    upload = one(world, now + DAY)
    # As if bytes had been written since it was found.
    upload.before = now - 1
    assert done(upload.remove()) is False
    assert done(world.repo().uploads.find(upload_id)).size == 4


def test_failed_removal_releases_the_writer(world, now):
    upload_id = upload_of(world, b"some")
    upload = one(world, now + DAY)
    upload.before = now - 1
    for _ in range(2):
        assert done(upload.remove()) is False
    assert done(done(world.repo().uploads.find(upload_id)).append(Body(b"more"))) == 8


def test_folder_without_files_has_its_own_age(world, now):
    upload_id = upload_of(world)
    world.remove(layout.upload_started("a/b", upload_id))
    assert found(world, now - 1) == []
    assert found(world, now + DAY) == [("a/b", upload_id)]
    assert done(one(world, now + DAY).remove()) is True


class Timeless:
    """A store without times."""

    def __init__(self, driver):
        self.driver = driver

    def __getattr__(self, name):
        return getattr(self.driver, name)

    def list(self, path, after="", limit=1000):
        entries = self.driver.list(path, after, limit)
        return entries.addCallback(lambda found: [Entry(one.path, one.size) for one in found])

    def stat(self, path):
        return self.driver.stat(path).addCallback(lambda one: Entry(one.path, one.size))


@pytest.mark.parametrize(
    ("started", "time"),
    [
        (b"2026-01-02T03:04:05Z", 1767323045),
        (b"2026-01-02T03:04:05Z\n", 1767323045),
        (b"2026-01-02T05:04:05+02:00", 1767323045),
        (b"yesterday", None),
        (b"", None),
        (b"\xff", None),
        (None, None),
    ],
)
def test_startedat_is_used_if_the_store_has_no_times(world, started, time):
    upload_id = upload_of(world, b"some")
    path = layout.upload_started("a/b", upload_id)
    if started is None:
        world.remove(path)
    else:
        world.write(path, started)
    registry = world.registry
    registry.driver = Timeless(registry.driver)
    if time is None:
        assert found(world, 4e9) == []
    else:
        assert found(world, time) == []
        assert found(world, time + 1) == [("a/b", upload_id)]


def test_upload_that_ends_meanwhile_is_skipped(world, now):
    first, second = sorted([upload_of(world, b"one"), upload_of(world, b"two")])

    def before(_number, action, path):
        if action == "list" and path.endswith(first):
            world.driver.before = lambda *_: None
            world.remove(layout.upload_folder("a/b", first))

    world.driver.before = before
    assert found(world, now + DAY) == [("a/b", second)]


def test_repository_that_is_deleted_meanwhile_has_no_uploads(world, now):
    upload_of(world, b"one")
    held = Deferred()

    def before(_number, action, path):
        return held if action == "list_folders" and path.endswith("_uploads") else None

    world.driver.before = before
    listing = begin(listed(find_abandoned_uploads(world.registry.driver, now + DAY)))
    world.remove(layout.repository_folder("a"))
    held.callback(None)
    assert result_of(listing) == []
