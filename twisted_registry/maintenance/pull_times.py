"""Stores what was pulled, every few minutes.

When manifests were pulled last, as far as it was recorded.

A pull only adds to a set in memory. Every few minutes each process stores what is in its set as a
small file of its own, whose time is the time of all pulls in it; so nobody waits for anybody, and
all times are those of the store's clock. Whoever needs the times gathers these files into one for
each repository.

What was not recorded is not known to be unused: pulls from before the recording began, or while it
was interrupted for long, count as if they had happened when it began (:meth:`PullTimes.recording_since`).
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING
from uuid import uuid4

from attrs import define
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from twisted_registry.repository import layout
from twisted_registry.repository.errors import translate_storage_errors
from twisted_registry.repository.inventory import store_time
from twisted_registry.storage.fallbacks import bulk_lookup
from twisted_registry.storage.interfaces import PathNotFound

if TYPE_CHECKING:
    # @@EMPTY
    from collections.abc import Collection, Mapping, Sequence

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.oci.digest import Digest
    from twisted_registry.storage.interfaces import Entry, IStorageDriver

log = Logger()

#: Seconds between two files: what a crash may cost.
FLUSH_INTERVAL_S = 300.0


class PullRecorder(Service):
    """Empties a set of pulls into the store, while the service runs and once when it stops."""

    def __init__(
        self, pending_pulls: set[tuple[str, Digest | str]], times: PullTimes, clock: IReactorTime
    ) -> None:
        """Take the set that pulls are added to, and where they go."""
        self.setName("recorder")
        self._pulls = pending_pulls
        self._times = times
        self._loop = LoopingCall(self._start_flush)
        self._loop.clock = clock
        self._loop_ended: Deferred[LoopingCall] | None = None

    def startService(self) -> None:
        """Record at intervals, and say at once that this is done from now on."""
        super().startService()
        self._loop_ended = self._loop.start(FLUSH_INTERVAL_S)

    def stopService(self) -> Deferred[None]:
        """Record what is left."""
        super().stopService()
        return Deferred.fromCoroutine(self._flush_and_stop())

    async def _flush_and_stop(self) -> None:
        if self._loop_ended is not None:
            self._loop.stop()
            await self._loop_ended
        await self._flush()

    def _start_flush(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._flush())

    async def _flush(self) -> None:
        taken = set(self._pulls)
        self._pulls.clear()
        try:
            await self._times.mark_recording()
            await self._times.record_pulls(taken)
        except Exception:  # noqa: BLE001 - whatever it was, it is tried again
            self._pulls.update(taken)
            log.failure("what was pulled could not be recorded; it will be tried again")


#: Seconds without a process that records after which pulls count as missed.
MAX_GAP_S = 7 * 24 * 3600.0
#: Pulls in one file, and files that are gathered at once.
_MAX_BATCH_PULLS = 10_000
_BATCHES_PER_PAGE = 50
#: Seconds for which files stay after they were gathered: should two gather at the same time, and
#: one undo the other's work, the next one repairs it.
_BATCH_TTL_S = 3600.0
#: Bytes of a file.
_MAX_FILE_BYTES = 256 * 1024 * 1024


@define(eq=False)
class PullTimes:
    """The times of one store."""

    driver: IStorageDriver

    @translate_storage_errors
    async def mark_recording(self) -> None:
        """Note that this process records pulls now; to be called every few minutes."""
        last = await self._modified_at(layout.PULLS_RECORDING)
        known = await self._modified_at(layout.PULLS_SINCE)
        if last is None or known is None or await store_time(self.driver) - last > MAX_GAP_S:
            await self.driver.put(layout.PULLS_SINCE, b"")
        await self.driver.put(layout.PULLS_RECORDING, b"", durable=False)

    @translate_storage_errors
    async def record_pulls(self, pulls: Collection[tuple[str, Digest | str]]) -> None:
        """Store what was pulled since this was done last: repositories with tags and digests."""
        lines = [f"{reference} {name}" for name, reference in pulls]
        for start in range(0, len(lines), _MAX_BATCH_PULLS):
            content = "\n".join([*lines[start : start + _MAX_BATCH_PULLS], ""])
            await self.driver.put(
                layout.pull_batch(str(uuid4())), content.encode("ascii"), durable=False
            )

    @translate_storage_errors
    async def recording_since(self) -> float | None:
        """Since when pulls are recorded, in seconds since the epoch; None if they are not."""
        return await self._modified_at(layout.PULLS_SINCE)

    @translate_storage_errors
    async def merge_batches(self, before: float) -> None:
        """Sort what processes have stored by repository.

        Only one process should do that at a time.

        :param before: seconds since the epoch; what was pulled earlier need not be remembered.
        """
        old = await store_time(self.driver) - _BATCH_TTL_S
        after = ""
        while True:
            try:
                entries = await self.driver.list(layout.PULL_BATCHES, after, _BATCHES_PER_PAGE)
            except PathNotFound:
                return
            for name, times in (await self._read_batches(entries)).items():
                await self._merge_times(name, times, before)
            await bulk_lookup(self.driver).delete_many(
                [
                    layout.pull_batch(entry.path)
                    for entry in entries
                    if entry.modified is not None and entry.modified / 1e9 < old
                ]
            )
            if len(entries) < _BATCHES_PER_PAGE:
                return
            after = entries[-1].path

    @translate_storage_errors
    async def read_times(self, name: str) -> Mapping[str, float]:
        """When tags and digests of a repository were pulled, in seconds since the epoch."""
        try:
            content = await self.driver.get(layout.pull_times(name), _MAX_FILE_BYTES)
        except PathNotFound:
            return {}
        times = {}
        for line in content.decode("ascii", "replace").splitlines():
            second, _, reference = line.partition(" ")
            with suppress(ValueError):
                times[reference] = float(second)
        return times

    async def _merge_times(self, name: str, times: Mapping[str, float], before: float) -> None:
        known = await self.read_times(name)
        merged = {
            reference: second
            for reference in {*known, *times}
            if (second := max(known.get(reference, 0.0), times.get(reference, 0.0))) >= before
        }
        if merged != known:
            lines = [f"{second:.0f} {reference}" for reference, second in sorted(merged.items())]
            await self.driver.put(layout.pull_times(name), "\n".join([*lines, ""]).encode("ascii"))

    async def _read_batches(self, entries: Sequence[Entry]) -> dict[str, dict[str, float]]:
        found: dict[str, dict[str, float]] = {}
        paths = [layout.pull_batch(entry.path) for entry in entries]
        contents = await bulk_lookup(self.driver).get_many(paths, _MAX_FILE_BYTES)
        for entry, content in zip(entries, contents, strict=True):
            second = float(round((entry.modified or 0) / 1e9))
            for line in (content or b"").decode("ascii", "replace").splitlines():
                reference, _, name = line.partition(" ")
                if name:
                    times = found.setdefault(name, {})
                    times[reference] = max(second, times.get(reference, 0.0))
        return found

    async def _modified_at(self, path: str) -> float | None:
        try:
            entry = await self.driver.stat(path)
        except PathNotFound:
            return None
        return (entry.modified or 0) / 1e9
