"""Uploads compared with a model, for random sequences of requests."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
)

from tests.repository.worlds import (
    Body,
    ClientGone,
    DiskWorld,
    SlowBody,
    World,
    begin,
    done,
    result_of,
)
from tests.support.examples import examples
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.repository import uploads
from twisted_registry.repository.uploads import UploadOutOfOrder

ALGORITHM = st.sampled_from(["sha256", "sha512"])
PIECES = st.lists(st.binary(max_size=4), max_size=3)


class Uploads(RuleBasedStateMachine):
    """Two processes over one store, and a dictionary with the expected content."""

    ids = Bundle("ids")
    make_world = World

    @initialize(checkpoint_size=st.sampled_from([1, 4, uploads.MIN_CHECKPOINT_BYTES]))
    def begin_the_world(self, checkpoint_size):
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(uploads, "MIN_CHECKPOINT_BYTES", checkpoint_size)
        self.world = self.make_world()
        self.processes = [self.world.registry, self.world.another()]
        self.model = {}
        self.blobs = {}

    def find(self, upload_id, process):
        return done(self.world.repo(registry=self.processes[process]).uploads.find(upload_id))

    def gone(self, upload_id, process):
        """Return whether the model lacks an upload; check that the registry agrees."""
        if upload_id in self.model:
            return False
        with pytest.raises(RegistryError) as caught:
            self.find(upload_id, process)
        assert caught.value.code is ErrorCode.BLOB_UPLOAD_UNKNOWN
        return True

    process = st.integers(0, 1)

    @rule(target=ids, process=process)
    def start(self, process):
        upload = done(self.world.repo(registry=self.processes[process]).uploads.start())
        self.model[upload.id] = b""
        return upload.id

    @rule(upload_id=ids, process=process, pieces=PIECES, algorithm=ALGORITHM, told=st.booleans())
    def append(self, upload_id, process, pieces, algorithm, told):
        if self.gone(upload_id, process):
            return
        start = len(self.model[upload_id]) if told else None
        upload = self.find(upload_id, process)
        size = done(upload.append(Body(*pieces), start=start, algorithm=algorithm))
        self.model[upload_id] += b"".join(pieces)
        assert size == upload.size == len(self.model[upload_id])

    @rule(upload_id=ids, process=process, offset=st.integers(0, 20), closing=st.booleans())
    def out_of_order(self, upload_id, process, offset, closing):
        if self.gone(upload_id, process) or offset == len(self.model[upload_id]):
            return
        upload = self.find(upload_id, process)
        body = Body(b"lost")
        if closing:
            work = upload.finish(Digest.of(b"lost"), body, start=offset)
        else:
            work = upload.append(body, start=offset)
        with pytest.raises(UploadOutOfOrder) as caught:
            done(work)
        assert caught.value.size == len(self.model[upload_id])
        assert not body.started

    @rule(upload_id=ids, process=process, pieces=PIECES, algorithm=ALGORITHM, closing=st.booleans())
    def leave(self, upload_id, process, pieces, algorithm, closing):
        if self.gone(upload_id, process):
            return
        upload = self.find(upload_id, process)
        body = Body(*pieces, error=ClientGone())
        if closing:
            work = upload.finish(Digest.of(b"?", algorithm), body)
        else:
            work = upload.append(body, algorithm=algorithm)
        with pytest.raises(ClientGone):
            done(work)
        self.model[upload_id] += b"".join(pieces)

    @rule(upload_id=consumes(ids), process=process, pieces=PIECES, algorithm=ALGORITHM)
    def finish(self, upload_id, process, pieces, algorithm):
        if self.gone(upload_id, process):
            return
        content = self.model.pop(upload_id) + b"".join(pieces)
        digest = Digest.of(content, algorithm)
        body = Body(*pieces) if pieces else None
        assert done(self.find(upload_id, process).finish(digest, body)) == len(content)
        self.blobs[digest] = content
        assert self.gone(upload_id, process)

    @rule(target=ids, upload_id=ids, process=process, algorithm=ALGORITHM)
    def finish_with_a_lie(self, upload_id, process, algorithm):
        if self.gone(upload_id, process):
            return upload_id
        content = self.model.pop(upload_id)
        with pytest.raises(RegistryError) as caught:
            done(self.find(upload_id, process).finish(Digest.of(content + b"?", algorithm)))
        assert caught.value.code is ErrorCode.DIGEST_INVALID
        return upload_id

    @rule(upload_id=ids, process=process)
    def cancel(self, upload_id, process):
        if not self.gone(upload_id, process):
            del self.model[upload_id]
            done(self.find(upload_id, process).discard())

    @rule(
        upload_id=ids,
        process=process,
        first=st.binary(min_size=1, max_size=4),
        meanwhile=st.sampled_from(["append", "finish", "cancel", "nothing"]),
        leaves=st.booleans(),
    )
    def two_at_once(self, upload_id, process, first, meanwhile, leaves):
        if self.gone(upload_id, process):
            return
        body = SlowBody()
        under_way = begin(self.find(upload_id, process).append(body))
        body.arrive(first)
        self.world.settle()
        self.model[upload_id] += first
        other = self.find(upload_id, 1 - process)
        assert other.size == len(self.model[upload_id])
        if meanwhile == "cancel":
            done(other.discard())
            del self.model[upload_id]
        elif meanwhile != "nothing":
            if meanwhile == "append":
                work = other.append(Body(b"lost"))
            else:
                work = other.finish(Digest.of(self.model[upload_id]))
            with pytest.raises(UploadOutOfOrder):
                done(work)
        if leaves:
            body.leave()
            with pytest.raises(ClientGone):
                result_of(under_way)
        else:
            body.end()
            result_of(under_way)

    @rule(content=st.binary(max_size=6), algorithm=ALGORITHM, process=process)
    def at_once(self, content, algorithm, process):
        digest = Digest.of(content, algorithm)
        repository = self.world.repo(registry=self.processes[process])
        assert done(repository.uploads.store_blob(digest, Body(content))) == len(content)
        self.blobs[digest] = content

    @rule(process=process)
    def restart(self, process):
        if process:
            self.processes[1] = self.world.another()
        else:
            self.world.restart()
            self.processes = [self.world.registry, self.world.another()]

    @invariant()
    def everything_is_as_in_the_model(self):
        for upload_id, content in self.model.items():
            assert self.find(upload_id, 0).size == len(content)
        for digest, content in self.blobs.items():
            assert done(self.world.repo().blobs.size(digest)) == len(content)

    def teardown(self):
        try:
            self.end_the_world()
        finally:
            self.patch.undo()

    def end_the_world(self):
        self.world.check()
        for upload_id in [*self.model]:
            content = self.model.pop(upload_id)
            assert done(self.find(upload_id, 1).finish(Digest.of(content))) == len(content)
        stored = [path for path in self.world.paths() if "/blobs/" in path]
        assert len(stored) >= len(self.blobs)
        self.world.check()


class UploadsOnDisk(Uploads):
    make_world = DiskWorld


TestUploads = Uploads.TestCase
TestUploads.settings = settings(max_examples=examples(80), stateful_step_count=30)
TestUploadsOnDisk = UploadsOnDisk.TestCase
TestUploadsOnDisk.settings = settings(max_examples=examples(30), stateful_step_count=30)
