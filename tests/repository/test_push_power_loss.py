"""A complete push on a disk that loses power after each of the changes that it makes.

After every cut, with any part of the unsynced changes on the disk: all acknowledged content exists
and is complete, nothing partial is visible at a digest or a tag, and the push can be completed.
"""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from twisted.internet.task import Clock

from tests.repository.push_kit import (
    BLOB,
    FIRST,
    MANIFEST,
    MOVED,
    SECOND,
    SETTINGS,
    TAGGED,
    blobs_are_whole,
    has_blob,
)
from tests.repository.worlds import Body, ClientGone
from tests.storage.filesystem.power_loss import PowerLossFiles, at_every_cut
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.oci.manifest import OCI_IMAGE
from twisted_registry.repository import uploads
from twisted_registry.repository.registry import Registry


def repository_on(driver):
    return Registry(driver, Clock()).repository("a/b")


async def push(repository, answered):
    upload = await repository.uploads.start()
    await upload.append(Body(FIRST))
    answered.append(("upload", upload.id, len(FIRST)))
    upload = await repository.uploads.find(upload.id)
    await upload.append(Body(SECOND[:1000]), start=len(FIRST))
    answered.append(("upload", upload.id, len(FIRST) + 1000))
    upload = await repository.uploads.find(upload.id)
    await upload.finish(Digest.of(BLOB), Body(SECOND[1000:]))
    answered.append(("blob", BLOB))
    await repository.uploads.store_blob(Digest.of(SETTINGS), Body(SETTINGS))
    answered.append(("blob", SETTINGS))
    for tag, content in TAGGED:
        await repository.manifests.put(Digest.of(content), content, OCI_IMAGE, [tag])
        answered.append(("tag", tag, content))


async def scenario(driver, answered):
    await push(repository_on(driver), answered)


async def check(driver, answered):
    repository = repository_on(driver)
    await look(driver, repository, answered)
    done = {fact[0] for fact in answered}
    if "upload" in done and "blob" not in done:
        await go_on(repository, answered[-1])
    again = []
    await push(repository, again)
    await look(driver, repository, again)
    assert await referrers_of(repository) == [str(Digest.of(MANIFEST))]


async def referrers_of(repository):
    page = await repository.referrers.page(Digest.of(b"subject"), max_bytes=10**6)
    return [json.loads(descriptor)["digest"] for descriptor in page.descriptors]


async def look(driver, repository, answered):
    for fact in answered:
        if fact[0] == "blob":
            await has_blob(repository, fact[1])
        elif fact[0] == "tag":
            assert (await repository.manifests.get(Digest.of(fact[2]))).content == fact[2]
    tags = {fact[1]: fact[2] for fact in answered if fact[0] == "tag"}
    found, _ = await repository.tags.page("", 10)
    assert set(tags) <= set(found) <= {"v1", "latest"}
    for tag in found:
        digest = await repository.tags.resolve(tag)
        stored = await repository.manifests.get(digest)
        assert stored.content in {MANIFEST, MOVED}
        if tag in tags:
            # The last acknowledged push, or the one after it.
            assert stored.content in {tags[tag], MOVED}
    await blobs_are_whole(driver)
    assert await referrers_of(repository) in ([], [str(Digest.of(MANIFEST))])


async def go_on(repository, fact):
    """Query the upload, and send the rest."""
    _, upload_id, size = fact
    lasts = size >= uploads.MIN_CHECKPOINT_BYTES
    try:
        upload = await repository.uploads.find(upload_id)
    except RegistryError as error:
        # Its closing request has moved the bytes.
        if error.code is not ErrorCode.BLOB_UPLOAD_UNKNOWN or (lasts and size == len(FIRST)):
            raise
        return
    if lasts and upload.size < size:
        # As above.
        assert size > len(FIRST)
        assert upload.size == 0
    stored = upload.size
    try:
        await upload.finish(Digest.of(BLOB), Body(BLOB[stored:]), start=stored)
    except RegistryError as error:
        # Bytes after the last acknowledgement may be damaged, which is detected.
        if error.code is not ErrorCode.DIGEST_INVALID or (lasts and stored == size):
            raise
        await repository.uploads.store_blob(Digest.of(BLOB), Body(BLOB))
    await has_blob(repository, BLOB)


@pytest.fixture(params=["small", "large"])
def size_of_uploads(request, monkeypatch):
    """The bytes of this push count as a small upload, or as a large one."""
    if request.param == "large":
        monkeypatch.setattr(uploads, "MIN_CHECKPOINT_BYTES", 1000)
    return request.param


def test_push_with_a_power_cut_at_any_call(size_of_uploads):
    assert at_every_cut(scenario, check) > {"small": 50, "large": 60}[size_of_uploads]


async def leave(driver, answered):
    """Two clients disconnect, during a PATCH and during a PUT."""
    repository = repository_on(driver)
    for closing in (False, True):
        upload = await repository.uploads.start()
        body = Body(FIRST, SECOND, error=ClientGone())
        answered.append(upload.id)
        with pytest.raises(ClientGone):
            await (upload.finish(Digest.of(b""), body) if closing else upload.append(body))


async def close_what_is_left(driver, answered):
    """Finish the upload with the digest of undamaged bytes of its size."""
    repository = repository_on(driver)
    for upload_id in answered:
        with suppress(RegistryError):
            upload = await repository.uploads.find(upload_id)
            await upload.finish(Digest.of(BLOB[: upload.size]))
    await look(driver, repository, [])


@pytest.mark.usefixtures("size_of_uploads")
def test_power_cut_after_a_disconnect_never_stores_wrong_bytes():
    assert at_every_cut(leave, close_what_is_left) > 10


@pytest.mark.parametrize("left_out", range(7))
def test_power_cut_check_detects_a_missing_fsync(monkeypatch, left_out):
    """Without every seventh fsync, some power cut loses acknowledged content."""
    fsync = PowerLossFiles.fsync
    calls = []

    def forgetful(files, fd):
        calls.append(fd)
        if len(calls) % 7 != left_out:
            fsync(files, fd)

    monkeypatch.setattr(PowerLossFiles, "fsync", forgetful)
    with pytest.raises((AssertionError, RegistryError)) as caught:
        at_every_cut(scenario, check)
    assert "survived" in caught.value.__notes__[0]
