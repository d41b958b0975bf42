"""Cases that pull blobs as a client does, following redirects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from tests.bench import generator
from tests.bench.content import check_blob
from tests.bench.samples import Measure, Run, Sample, sample_from_load
from tests.bench.seed import CLIENTS, MANY, REPOSITORY
from tests.bench.wire import MIB

if TYPE_CHECKING:
    from tests.bench.content import Blob


@frozen
class Fetch(Measure):
    """Clients that pull the large blob, or share the many small ones.

    :ivar large: which of the two.
    """

    large: bool

    def check(self, server, run: Run) -> str:
        repository, blobs = self._blobs(run)
        return check_blob(server, repository, blobs[0])

    def __call__(self, server, run: Run) -> Sample:
        repository, blobs = self._blobs(run)
        clients = 1 if self.large else CLIENTS
        seen = generator.fetches(server, repository, blobs, clients=clients)
        return sample_from_load(seen, seen.rate * blobs[0].size / MIB if self.large else seen.rate)

    def seconds(self, run: Run) -> float:
        sizes = run.content.sizes
        return sizes.large / (100 * MIB) + 0.1 if self.large else sizes.many / 300

    def _blobs(self, run: Run) -> tuple[str, list[Blob]]:
        if self.large:
            return REPOSITORY, [run.content.large] * 2
        return MANY, run.content.many
