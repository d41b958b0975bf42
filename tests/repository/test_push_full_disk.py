"""A complete push on a disk that is full at each of the changes that it makes.

One call finds no space, or all do from then on. The client gets 507. All content acknowledged
before exists and is complete, also after a power cut. Nothing partial is visible. When there is
space again, the client continues where it was.
"""

from __future__ import annotations

import errno

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.repository.push_kit import (
    BLOB,
    FIRST,
    SECOND,
    SETTINGS,
    TAGGED,
    blobs_are_whole,
    has_blob,
)
from tests.repository.worlds import CONFIG, Body, descriptor, image, result_of
from tests.storage.filesystem.full_disk import FullDiskFiles
from tests.storage.filesystem.power_loss import Survival, driver_on
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.oci.manifest import OCI_IMAGE
from twisted_registry.repository import uploads
from twisted_registry.repository.registry import Registry
from twisted_registry.repository.trash import Deleter, TrashDeleter
from twisted_registry.storage.filesystem.tree import AtomicFile

HELD = image(config=descriptor(SETTINGS, CONFIG), layers=[], annotations={"is": "held"})


class Client:
    """A push in steps; a refused step is repeated when there is space."""

    def __init__(self, disk, trash):
        self.disk = disk
        self.trash = trash
        self.refused = 0
        self.blobs = []
        self.tags = {}
        self.pushing = None
        self.driver = driver_on(disk)
        self.repository = self.on(self.driver)

    def on(self, driver):
        deleter = TrashDeleter(driver, Clock()) if self.trash else Deleter(driver)
        return Registry(driver, Clock(), deleter=deleter).repository("a/b")

    async def push(self):
        await self.upload(BLOB)
        await self.again(self.store)
        for tag, content in TAGGED:
            await self.tag(tag, content)
        await self.again(self.untag)

    async def again(self, step):
        """Repeat a step until it is not refused."""
        try:
            await step()
        except RegistryError as error:
            if (error.code, error.status) != (ErrorCode.UNAVAILABLE, 507):
                raise
            self.refused += 1
            # Pulls work while the disk is full, and acknowledged content would survive a power cut.
            await self.look(self.driver, self.repository)
            await self.survives()
            self.disk.room = None
            await step()
            await self.survives()

    async def survives(self):
        driver = driver_on(self.disk.remount(Survival.SYNCED))
        await self.look(driver, self.on(driver))

    async def upload(self, blob):
        self.pushing = None
        pieces = [FIRST, SECOND[:1000]]
        sent = 0

        async def start():
            self.pushing = (await self.repository.uploads.start()).id

        await self.again(start)
        for piece in pieces:
            end = sent + len(piece)

            async def append(end=end, sent=sent):
                upload = await self.found(blob[:sent])
                self.tells(sent, upload.size, end)
                await upload.append(Body(blob[upload.size : end]), start=upload.size)

            await self.again(append)
            sent = end

        async def finish():
            try:
                upload = await self.repository.uploads.find(self.pushing)
            except RegistryError as error:
                if error.code is not ErrorCode.BLOB_UPLOAD_UNKNOWN:
                    raise
                await self.moved(blob)
                return
            self.tells(sent, upload.size, len(blob))
            await upload.finish(Digest.of(blob), Body(blob[upload.size :]), start=upload.size)

        await self.again(finish)
        self.blobs.append(blob)

    async def found(self, sent):
        """Return the upload; start another one if a failed sync leaves it unknown."""
        try:
            return await self.repository.uploads.find(self.pushing)
        except RegistryError as error:
            if error.code is not ErrorCode.BLOB_UPLOAD_UNKNOWN or self.disk.refused[0] != "fsync":
                raise
            upload = await self.repository.uploads.start()
            self.pushing = upload.id
            await upload.append(Body(sent))
            return upload

    async def moved(self, blob):
        """Check that the upload has ended, although its end was refused: the blob exists."""
        try:
            await has_blob(self.repository, blob)
        except RegistryError:
            # Or it lacks its link, which was written already.
            assert self.disk.refused[0] in {"fsync", "rename"}
            await self.repository.uploads.store_blob(Digest.of(blob), Body(blob))

    def tells(self, sent, size, end):
        """Acknowledged content exists, unless a sync failed; then the client gets an error."""
        assert size <= end
        assert size >= sent or self.disk.refused[0] == "fsync"

    async def store(self):
        await self.repository.uploads.store_blob(Digest.of(SETTINGS), Body(SETTINGS))
        self.blobs.append(SETTINGS)

    async def tag(self, tag, content):
        async def put():
            await self.repository.manifests.put(Digest.of(content), content, OCI_IMAGE, [tag])

        self.tags.setdefault(tag, [None]).append(content)
        await self.again(put)
        self.tags[tag] = [content]

    async def untag(self):
        self.tags["v1"].append(None)
        try:
            await self.repository.tags.delete("v1")
        except RegistryError as error:
            # A refused delete may have been carried out, but was not acknowledged.
            if error.code is not ErrorCode.MANIFEST_UNKNOWN:
                raise
        else:
            self.tags["v1"] = [None]

    async def look(self, driver, repository):
        """Acknowledged content exists, and all visible content is complete."""
        for blob in self.blobs:
            await has_blob(repository, blob)
        named, _ = await repository.tags.page("", 10)
        for tag, allowed in self.tags.items():
            if len(allowed) == 1 and allowed != [None]:
                assert tag in named
            if tag in named:
                stored = await repository.manifests.get(await repository.tags.resolve(tag))
                assert stored.content in allowed
        held = await repository.manifests.get("held")
        assert held.content == HELD
        await blobs_are_whole(driver)


async def prepare(repository):
    await repository.uploads.store_blob(Digest.of(SETTINGS), Body(SETTINGS))
    await repository.manifests.put(Digest.of(HELD), HELD, OCI_IMAGE, ["held"])


def outcome(coroutine):
    return result_of(Deferred.fromCoroutine(coroutine))


def through(once, *, trash=False, start=0):
    """Push several times, on a disk that is full after one change more each time.

    :returns: the number of changes, and how often the client was refused.
    """
    room, refused, reached = start, 0, True
    while reached:
        disk = FullDiskFiles()
        client = Client(disk, trash)
        outcome(prepare(client.repository))
        disk.room, disk.once = room, once
        try:
            outcome(client.push())
        except BaseException as error:
            error.add_note(f"full after {room} changes: {disk.refused}")
            raise
        outcome(client.survives())
        # All files are closed.
        assert disk.descriptors == 0
        reached = bool(disk.refused)
        refused += client.refused
        room += 1
    return room, refused


@pytest.mark.parametrize("once", [True, False], ids=["for one call", "until there is room"])
@pytest.mark.parametrize("way", ["small", "large", "with a trash"])
def test_push_to_a_disk_that_is_full_at_any_call(monkeypatch, once, way):
    if way == "large":
        monkeypatch.setattr(uploads, "MIN_CHECKPOINT_BYTES", 1000)
    room, refused = through(once, trash=way == "with a trash")
    assert room > 100
    assert refused > 0.8 * room


def test_full_disk_check_detects_a_lost_file(monkeypatch):
    """A visible name that was not synced is taken for a durable one."""

    def refuse(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(AtomicFile, "is_at", lambda new, full: False)
    # Otherwise the put would find the file, and sync it.
    monkeypatch.setattr(FullDiskFiles, "utime", refuse)
    with pytest.raises((AssertionError, RegistryError)) as caught:
        through(once=True, start=30)
    assert "full after" in caught.value.__notes__[0]
