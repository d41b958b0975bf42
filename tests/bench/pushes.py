"""Cases that write: pushes of small and large blobs, and mounts."""

from __future__ import annotations

import os

from attrs import frozen

from tests.bench import generator
from tests.bench.content import BlobMaker, check_blob, push
from tests.bench.samples import Measure, Run, Sample, sample_from_load
from tests.bench.seed import MOUNTABLE
from tests.bench.wire import MIB, Connection, send_request

PUSHED = "bench/pushed"
_TO_CHECK = 64 * 1024


@frozen
class Push(Measure):
    """Clients that push different blobs.

    :ivar size: in bytes; None is the large size of the run, and one push each.
    :ivar number: of pushes, all together; 0 is as many as the time allows.
    """

    size: int | None
    clients: int
    number: int = 0

    def check(self, server, run: Run) -> str:
        blob = BlobMaker(_TO_CHECK).make(f"{run.label} check")
        with Connection(server.url, server.headers) as connection:
            return push(connection, PUSHED, blob) or check_blob(server, PUSHED, blob)

    def __call__(self, server, run: Run) -> Sample:
        size = self.size or run.content.sizes.large
        amount = {"seconds": run.seconds} if self.size else {"times": 1}
        if self.number:
            amount = {"times": self.number // self.clients}
        os.sync()  # the next round must not wait for writes of this one
        seen = generator.load(
            "pushes", server, repository=PUSHED, label=run.label, size=size, clients=self.clients,
            **amount,
        )  # fmt: skip
        if server.store and (self.number or not self.size):
            server.forget(seen.digests)
        return sample_from_load(seen, seen.rate if self.size else seen.rate * size / MIB)

    def seconds(self, run: Run) -> float:
        if self.number:
            return self.number / 100
        if self.size:
            return run.seconds + 0.5
        return self.clients * run.content.sizes.large / (200 * MIB) + 0.5


@frozen
class Mount(Measure):
    """One client that mounts blobs into an empty repository."""

    def check(self, server, run: Run) -> str:
        blob = run.content.mountable[0]
        repository = f"bench/mounted-{run.label}-check"
        query = f"mount={blob.digest}&from={MOUNTABLE}"
        status = send_request(server, "POST", f"/v2/{repository}/blobs/uploads/?{query}").status
        if status != 201:
            return f"status {status} instead of 201"
        return check_blob(server, repository, blob)

    def __call__(self, server, run: Run) -> Sample:
        digests = [blob.digest for blob in run.content.mountable]
        seen = generator.load(
            "mounts", server, repository=f"bench/mounted-{run.label}", source=MOUNTABLE,
            digests=digests, clients=1, times=len(digests),
        )  # fmt: skip
        return sample_from_load(seen, seen.rate)
