"""Run the cases round by round at each server in turn, so that a busy moment affects all alike."""

from __future__ import annotations

import subprocess
from secrets import token_hex
from typing import TYPE_CHECKING

from attrs import evolve

from tests.bench.figures import rows
from tests.bench.fsyncs import Fsyncs
from tests.bench.samples import Run, Sample, failed
from tests.bench.seed import SeedError
from tests.bench.servers import Given, NotUp, Server
from tests.bench.wire import WireError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.bench.cases import Case
    from tests.bench.figures import Row
    from tests.bench.fleet import Fleet
    from tests.bench.progress import Progress
    from tests.bench.seed import Content

#: What may go wrong in a sample without an end of all.
_FAULTS = (
    *(NotUp, SeedError, WireError, OSError, ValueError, KeyError, TypeError),
    subprocess.SubprocessError,
)


def measured(
    fleet: Fleet,
    cases: Sequence[Case],
    content: Content,
    *,
    rounds: int,
    seconds: float,
    progress: Progress,
) -> Iterator[list[Row]]:
    """Run every case, and yield the rows of each when it ends.

    :param seconds: how long a sample takes, where it can choose.
    """
    # A peer may have met an earlier run, and shall not know what this one pushes.
    this = token_hex(4)
    fsyncs = Fsyncs()
    for index, case in enumerate(cases):
        progress.begin(case.name)
        servers = fleet.able(case)
        samples: dict[str, list[Sample]] = {server.name: [] for server in servers}
        sound = []
        for server in servers:
            if fault := _checked(case, server, Run(content, seconds, f"{this}-{index}")):
                samples[server.name].append(failed(fault))
            else:
                sound.append(server)
        for number in range(rounds):
            run = Run(content, seconds, f"{this}-{index}-{number}")
            for server in _turned(sound, number):
                samples[server.name].append(_sample(case, server, run))
                progress.done(case.measure.seconds(run))
        counted = {server.name: fsyncs.of(server, case.pushed) for server in sound if case.pushed}
        found = rows(case, samples, counted)
        progress.end(found)
        yield found


def _turned(servers: list[Server | Given], number: int) -> list[Server | Given]:
    """Rotate the order of the servers with each round."""
    first = number % len(servers) if servers else 0
    return servers[first:] + servers[:first]


def _checked(case: Case, server: Server | Given, run: Run) -> str:
    if server.fault:
        return server.fault
    try:
        server.check()
        return case.measure.check(server, run)
    except _FAULTS as fault:
        return _reason(server, fault)


def _sample(case: Case, server: Server | Given, run: Run) -> Sample:
    if server.fault:
        return failed(server.fault)
    try:
        if isinstance(server, Given):
            return case.measure(server, run)
        before = server.processor_seconds()
        sample = case.measure(server, run)
        used = server.processor_seconds() - before
    except _FAULTS as fault:
        return failed(_reason(server, fault))
    if sample.errors and (ended := _ended(server)):
        return evolve(sample, fault=ended)
    return evolve(sample, processor=used) if sample.elapsed else sample


def _reason(server: Server | Given, fault: Exception) -> str:
    return _ended(server) or f"{type(fault).__name__}: {fault}"


def _ended(server: Server | Given) -> str:
    """Restart a server that ended; return why it ended, or ``""``."""
    try:
        server.check()
    except NotUp as gone:
        return str(gone)
    return ""
