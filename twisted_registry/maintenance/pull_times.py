"""Recorded times of pulls, for retention rules that keep what was pulled recently.

A pull only adds to a set in memory. Every few minutes each process writes its set as a small file,
whose modification time is the time of all pulls in it. So processes do not wait for each other, and
all times are by the store's clock. Retention merges these files into one file per repository.

Pulls that were not recorded are not known to be missing: pulls from before the recording started,
or while it was interrupted for long, count as if they had happened when it started
(:meth:`PullTimes.recording_since`).
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING
from uuid import uuid4

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from twisted_registry.oci.errors import RegistryError
from twisted_registry.repository import layout
from twisted_registry.repository.clock import ClockJumps, time_before
from twisted_registry.repository.errors import translate_storage_errors
from twisted_registry.repository.inventory import list_folder
from twisted_registry.storage.fallbacks import bulk_lookup
from twisted_registry.storage.interfaces import PathNotFound, StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping, Sequence

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.oci.digest import Digest
    from twisted_registry.storage.interfaces import Entry, IStorageDriver

log = Logger()

#: Seconds between two files of a process: the pulls that a crash may lose.
FLUSH_INTERVAL_S = 300.0
#: Seconds without any recording process after which pulls count as missed.
MAX_GAP_S = 7 * 24 * 3600.0
#: Pulls in one file, and files that are merged together.
_MAX_BATCH_PULLS = 10_000
_BATCHES_PER_MERGE = 50
#: Seconds for which files stay after they were merged. If two processes merge at the same time and
#: one overwrites the result of the other, the next run repairs it.
_BATCH_TTL_S = 3600.0
_MAX_FILE_BYTES = 256 * 1024 * 1024


@define(eq=False)
class PullTimes:
    """The times of pulls in one store.

    All methods raise :class:`~twisted_registry.oci.errors.RegistryError` if the store fails.

    :ivar jumps: corrects ages after the clock was set.
    """

    driver: IStorageDriver
    jumps: ClockJumps = field(factory=ClockJumps.unwatched)
    #: merged times by repository that could not be stored, because the disk is full
    _unstored: dict[str, Mapping[str, float]] = field(init=False, factory=dict)

    @translate_storage_errors
    async def mark_recording(self) -> None:
        """Record that this process records pulls; to be called every few minutes."""
        last = await self._modified_at(layout.PULLS_RECORDING)
        known = await self._modified_at(layout.PULLS_SINCE)
        earliest = await time_before(self.driver, MAX_GAP_S, self.jumps)
        if last is None or known is None or last < earliest:
            await self.driver.put(layout.PULLS_SINCE, b"")
        await self.driver.put(layout.PULLS_RECORDING, b"", durable=False)

    @translate_storage_errors
    async def record_pulls(self, pulls: Collection[tuple[str, Digest | str]]) -> None:
        """Store pulls, as repository names with a tag or digest."""
        lines = [f"{reference} {name}" for name, reference in pulls]
        for start in range(0, len(lines), _MAX_BATCH_PULLS):
            content = "\n".join([*lines[start : start + _MAX_BATCH_PULLS], ""])
            await self.driver.put(
                layout.pull_batch(str(uuid4())), content.encode("ascii"), durable=False
            )

    @translate_storage_errors
    async def recording_since(self) -> float | None:
        """Return when recording began, in seconds since the epoch, or None if it is off."""
        return await self._modified_at(layout.PULLS_SINCE)

    @translate_storage_errors
    async def merge_batches(self, before: float) -> None:
        """Merge the files of all processes into one file per repository.

        On a full disk the merged times are kept in memory.

        Only one process should do that at a time.

        :param before: seconds since the epoch; earlier pulls are dropped.
        """
        old = await time_before(self.driver, _BATCH_TTL_S, self.jumps)
        batches = await self._list_batches()
        for start in range(0, len(batches), _BATCHES_PER_MERGE):
            entries = batches[start : start + _BATCHES_PER_MERGE]
            for name, times in (await self._read_batches(entries)).items():
                await self._merge_times(name, times, before)
            if self._unstored:
                # The batches are merged again when there is space.
                continue
            await bulk_lookup(self.driver).delete_many(
                [
                    layout.pull_batch(entry.path)
                    for entry in entries
                    if entry.modified_s is not None and entry.modified_s < old
                ]
            )

    async def unmerged_times(self) -> AsyncIterator[Mapping[str, Mapping[str, float]]]:
        """Yield the times in the files that may not be merged yet, in parts.

        :returns: the times by repository, as :meth:`read_times` returns them.
        """
        batches = await self._list_batches()
        for start in range(0, len(batches), _BATCHES_PER_MERGE):
            yield await self._read_batches(batches[start : start + _BATCHES_PER_MERGE])

    @translate_storage_errors
    async def read_times(self, name: str) -> Mapping[str, float]:
        """Return when tags and digests were pulled from a repository: seconds since the epoch."""
        if name in self._unstored:
            return self._unstored[name]
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
        if merged != known or name in self._unstored:
            lines = [f"{second:.0f} {reference}" for reference, second in sorted(merged.items())]
            content = "\n".join([*lines, ""]).encode("ascii")
            try:
                await self.driver.put(layout.pull_times(name), content)
            except StorageError as error:
                if not error.full:
                    raise
                self._unstored[name] = merged
            else:
                self._unstored.pop(name, None)

    @translate_storage_errors
    async def _list_batches(self) -> Sequence[Entry]:
        return await list_folder(self.driver, layout.PULL_BATCHES)

    @translate_storage_errors
    async def _read_batches(self, entries: Sequence[Entry]) -> dict[str, dict[str, float]]:
        found: dict[str, dict[str, float]] = {}
        paths = [layout.pull_batch(entry.path) for entry in entries]
        contents = await bulk_lookup(self.driver).get_many(paths, _MAX_FILE_BYTES)
        for entry, content in zip(entries, contents, strict=True):
            second = float(round(entry.modified_s or 0))
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
        return entry.modified_s or 0


class PullRecorder(Service):
    """Moves pulls from a set into the store, periodically and when the service stops."""

    def __init__(
        self, pending_pulls: set[tuple[str, Digest | str]], times: PullTimes, clock: IReactorTime
    ) -> None:
        """Prepare the service.

        :param pending_pulls: the set to which pulls are added, and from which they are moved.
        """
        self.setName("pull-recorder")
        self._pulls = pending_pulls
        self._times = times
        self._loop = LoopingCall(self._flush)
        self._loop.clock = clock
        self._loop_ended: Deferred[LoopingCall] | None = None

    def startService(self) -> None:
        """Record periodically; the first time now, which marks the start of the recording."""
        super().startService()
        self._loop_ended = self._loop.start(FLUSH_INTERVAL_S)

    def stopService(self) -> Deferred[None]:
        """Record the remaining pulls."""
        super().stopService()
        return Deferred.fromCoroutine(self._flush_and_stop())

    async def _flush_and_stop(self) -> None:
        if self._loop_ended is not None:
            self._loop.stop()
            await self._loop_ended
        await self._flush()

    async def _flush(self) -> None:
        pulls = set(self._pulls)
        self._pulls.clear()
        try:
            await self._times.mark_recording()
            await self._times.record_pulls(pulls)
        except RegistryError as error:
            # The storage error is logged already.
            self._pulls.update(pulls)
            log.error("pulls could not be recorded, will retry: {error}", error=error)
        except Exception:  # noqa: BLE001 - any error is retried
            self._pulls.update(pulls)
            log.failure("pulls could not be recorded, will retry")
