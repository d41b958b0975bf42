"""A registry of two processes under mixed load for a long time, while one of them is killed.

500 connections push, pull, list, mount and delete; clients leave at random, the collector and the
other tasks run all the time. What the processes hold must not grow, and what was pushed must be
there at the end.

    python -m tests.soak --seconds 1800
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress
from statistics import median
from typing import TYPE_CHECKING

from attrs import define, field, frozen

from tests.soak.client import REPOSITORIES, USERS, Client, Ledger, check_all, run_clients
from tests.support.passwords import password_lines
from tests.support.process_usage import Usage, count_uploads, growth, usage
from tests.support.processes import SERVE, write_configuration
from tests.workers.process_group import Family

if TYPE_CHECKING:
    from pathlib import Path

CONFIGURATION = """\
version: 0.1
log: {{accesslog: {{disabled: true}}}}
storage:
  filesystem: {{rootdirectory: {root}}}
  delete: {{enabled: true}}
  cache: {{manifestbytes: 1MiB}}
  maintenance:
    uploadpurging: {{enabled: true, age: 30s, interval: 5s, dryrun: false}}
    gc: {{enabled: true, interval: 10s, grace: 20s, deleteuntagged: true}}
    trash: {{keep: 10s, interval: 10s}}
    watermark: {{warn: 98%, refuse: 99%}}
http:
  addr: "{addr}"
  workers: 2
  secret: do-not-tell
auth:
  htpasswd: {{realm: here, path: {root}-users}}
access:
  tokens: {{lifetime: 60s}}
  rules:
  - {{repositories: ['**'], users: [ada, bob], allow: [admin]}}
"""
UPLOAD_AGE_S, PURGE_INTERVAL_S = 30, 5
#: For this long after a kill, a new connection may still reach the killed process.
AFTER_KILL_S = 2
#: The growth that is no leak: as a share of the median, and the least that counts.
MAX_GROWTH = {
    "connections": (0.05, 10),
    # Up to 512 small files for each process stay open.
    "files": (0.1, 10),
    # Pools of threads grow on demand, and uploads last as long as the machine is busy.
    "threads": (0.25, 10),
    "uploads": (0.5, 50),
    "memory_first_kib": (0.1, 4096),
    "memory_worker_kib": (0.1, 4096),
}
#: A shorter run ends before caches are full, so growth is not compared.
MIN_GROWTH_S = 600
#: What is never exceeded, in both processes: each keeps up to 512 small files open, and up to 100
#: threads for the store.
MAXIMA = {
    "connections": 560,
    "files": 1200,
    "threads": 240,
    "uploads": 1000,
    "memory_first_kib": 160 * 1024,
    "memory_worker_kib": 160 * 1024,
}


@frozen
class Options:
    """Lengths in seconds.

    :ivar pause_s: the mean time between two actions of a client.
    """

    seconds: float
    connections: int = 500
    kill_every_s: float = 60
    pause_s: float = 8

    @property
    def warm_up_s(self) -> float:
        """The time before the first sample: caches and the store fill."""
        return self.seconds / 2


@define(eq=False)
class Series:
    """Samples of both processes; times in seconds since the start.

    Those of a worker that has started a moment ago are left out: clients connect again.
    """

    connections: list[tuple[float, float]] = field(factory=list)
    files: list[tuple[float, float]] = field(factory=list)
    threads: list[tuple[float, float]] = field(factory=list)
    uploads: list[tuple[float, float]] = field(factory=list)
    memory_first_kib: list[tuple[float, float]] = field(factory=list)
    memory_worker_kib: list[tuple[float, float]] = field(factory=list)

    def add(self, at: float, first: Usage, worker: Usage, uploads: int) -> None:
        self.connections.append((at, first.connections + worker.connections))
        self.files.append((at, first.files + worker.files))
        self.threads.append((at, first.threads + worker.threads))
        self.uploads.append((at, uploads))
        self.memory_first_kib.append((at, first.memory_kib))
        self.memory_worker_kib.append((at, worker.memory_kib))


@define(eq=False)
class Soak:
    """One run, and what it found.

    :ivar idle_connections: of the first process, before the clients come and after they have left.
    :ivar checked: how many images were pulled at the end.
    """

    options: Options
    folder: Path
    ledger: Ledger = field(factory=Ledger)
    series: Series = field(factory=Series)
    kills: list[float] = field(factory=list)
    idle_connections: list[int] = field(factory=list)
    uploads_left: int = 0
    checked: int = 0
    lines: list[str] = field(factory=list)
    exit_status: int | None = None

    def run(self) -> None:
        """Serve, load, kill, sample, check and stop."""
        (self.folder / "store-users").write_bytes(password_lines(**USERS))
        path = write_configuration(self.folder, CONFIGURATION)
        with Family(*SERVE, path, cwd=self.folder) as family:
            try:
                asyncio.run(self._run(family))
                self.exit_status = family.stop()[0]
            finally:
                self.lines = list(family.lines)

    def unexpected_losses(self) -> int:
        """Return how many connections were lost that no kill explains."""
        return sum(
            not any(opened - AFTER_KILL_S <= kill <= lost for kill in self.kills)
            for opened, lost in self.ledger.lost
        )

    def growths(self) -> dict[str, tuple[float, float]]:
        """Return the median of each series, and by how much it grows."""
        return {
            name: (median(value for _, value in points), growth(points))
            for name, points in (
                (name, getattr(self.series, name)) for name in Series.__annotations__
            )
        }

    def problems(self) -> list[str]:
        """Return what went wrong or grew; empty for a good run."""
        found = list(self.ledger.failures[:20])
        found += [line for line in self.lines if "Traceback" in line or "level=error" in line][:20]
        if self.exit_status != 0:
            found.append(f"the registry ended with {self.exit_status}")
        if self.unexpected_losses():
            found.append(f"{self.unexpected_losses()} connections were lost without a kill")
        starts = sum("serving as worker" in line for line in self.lines)
        if starts != len(self.kills) + 1:
            found.append(f"{starts} workers were started, but {len(self.kills)} were killed")
        if self.uploads_left:
            found.append(f"{self.uploads_left} uploads were left")
        before, after = self.idle_connections
        if after > before:
            found.append(f"{before} sockets before the clients came, {after} afterwards")
        for name, (middle, grown) in self.growths().items():
            share, least = MAX_GROWTH[name]
            if grown > max(share * middle, least) and self.options.seconds >= MIN_GROWTH_S:
                found.append(f"{name}: grew by {grown:.1f}, the median is {middle:.1f}")
            highest = max(value for _, value in getattr(self.series, name))
            if highest > MAXIMA[name]:
                found.append(f"{name}: {highest}, more than {MAXIMA[name]}")
        return found

    def report(self) -> str:
        """Return the figures as lines."""
        counts = self.ledger.counts
        requests = sum(number for what, number in counts.items() if what[-3:].isdigit())
        lost, unexpected = len(self.ledger.lost), self.unexpected_losses()
        lines = [
            f"{self.options.seconds:.0f} s, {self.options.connections} connections",
            f"{len(self.kills)} kills, {lost} connections lost, {unexpected} of them not by a kill",
            f"{requests} requests, {counts['pushes']} pushes, {counts['left early']} left early",
            f"{self.checked} images pulled whole at the end, {self.uploads_left} uploads left",
            f"sockets before and after: {self.idle_connections}",
            *[
                f"{name}: median {middle:.0f}, growth {grown:+.1f}"
                for name, (middle, grown) in self.growths().items()
            ],
            str(dict(sorted(counts.items()))),
        ]
        return "\n".join([*lines, f"{len(self.ledger.failures)} failures"])

    async def _run(self, family: Family) -> None:
        self.idle_connections.append(usage(family.first).connections)
        clients = [
            Client(number, family.port, self.ledger, self.options.pause_s)
            for number in range(self.options.connections)
        ]
        load = asyncio.ensure_future(run_clients(clients))
        watch = asyncio.ensure_future(self._watch(family))
        done, _ = await asyncio.wait({load, watch}, return_when=asyncio.FIRST_COMPLETED)
        load.cancel()
        with suppress(asyncio.CancelledError):
            await load
        await watch
        assert watch in done
        self.checked = await check_all(family.port, self.ledger)
        await self._settle(family)

    async def _watch(self, family: Family) -> None:
        """Sample what the processes hold, and kill a worker at intervals."""
        begun = time.monotonic()
        kill_at = begun + self.options.kill_every_s
        while (now := time.monotonic()) < begun + self.options.seconds:
            if now >= kill_at:
                kill_at += self.options.kill_every_s
                (worker,) = family.others
                self.kills.append(now)
                os.kill(worker, signal.SIGKILL)
            is_settled = kill_at - now < self.options.kill_every_s / 2
            if is_settled and now - begun > self.options.warm_up_s:
                (worker,) = family.others
                uploads = await asyncio.to_thread(self._count_uploads)
                self.series.add(now - begun, usage(family.first), usage(worker), uploads)
            await asyncio.sleep(1)

    def _count_uploads(self) -> int:
        return count_uploads(self.folder / "store", REPOSITORIES)

    async def _settle(self, family: Family) -> None:
        """Wait until unfinished uploads and connections are gone."""
        end = time.monotonic() + UPLOAD_AGE_S + 6 * PURGE_INTERVAL_S
        while time.monotonic() < end:
            await asyncio.sleep(1)
            self.uploads_left = await asyncio.to_thread(self._count_uploads)
            if not self.uploads_left:
                break
        self.idle_connections.append(usage(family.first).connections)
