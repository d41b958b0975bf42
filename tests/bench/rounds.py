"""Run the cases round by round at each server in turn: a busy moment affects all of them."""

from __future__ import annotations

import subprocess
from secrets import token_hex
from typing import TYPE_CHECKING

from attrs import evolve

from tests.bench.figures import rows
from tests.bench.fsyncs import Fsyncs
from tests.bench.samples import Run, Sample, failed_sample
from tests.bench.seed import SeedError
from tests.bench.servers import Peer, Server, ServerFailed
from tests.bench.wire import WireError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.bench.cases import Case
    from tests.bench.figures import Row
    from tests.bench.fleet import Fleet
    from tests.bench.progress import Progress
    from tests.bench.seed import Content

#: Exceptions that fail a sample, but not the run.
_FAULTS = (
    *(ServerFailed, SeedError, WireError, OSError, ValueError, KeyError, TypeError),
    subprocess.SubprocessError,
)


def measure_cases(
    fleet: Fleet,
    cases: Sequence[Case],
    content: Content,
    *,
    rounds: int,
    seconds: float,
    progress: Progress,
) -> Iterator[list[Row]]:
    """Run every case, and yield the rows of each when it ends.

    :param seconds: duration of a sample, where it can be chosen.
    """
    # A peer may have the blobs of an earlier run, so each run pushes different ones.
    label = token_hex(4)
    fsyncs = Fsyncs()
    for index, case in enumerate(cases):
        progress.begin(case.name)
        servers = fleet.servers_for(case)
        samples: dict[str, list[Sample]] = {server.name: [] for server in servers}
        working = []
        for server in servers:
            if fault := _check(case, server, Run(content, seconds, f"{label}-{index}")):
                samples[server.name].append(failed_sample(fault))
            else:
                working.append(server)
        for number in range(rounds):
            run = Run(content, seconds, f"{label}-{index}-{number}")
            for server in _rotate(working, number):
                samples[server.name].append(_sample(case, server, run))
                progress.done(case.measure.seconds(run))
        fsyncs_by_server = {
            server.name: fsyncs.count(server, case.pushed) for server in working if case.pushed
        }
        found = rows(case, samples, fsyncs_by_server)
        progress.end(found)
        yield found


def _rotate(servers: list[Server | Peer], number: int) -> list[Server | Peer]:
    """Rotate the order of the servers with each round."""
    first = number % len(servers) if servers else 0
    return servers[first:] + servers[:first]


def _check(case: Case, server: Server | Peer, run: Run) -> str:
    if server.fault:
        return server.fault
    try:
        server.check()
        return case.measure.check(server, run)
    except _FAULTS as fault:
        return _describe_fault(server, fault)


def _sample(case: Case, server: Server | Peer, run: Run) -> Sample:
    if server.fault:
        return failed_sample(server.fault)
    try:
        if isinstance(server, Peer):
            return case.measure(server, run)
        before = server.processor_seconds()
        sample = case.measure(server, run)
        used = server.processor_seconds() - before
    except _FAULTS as fault:
        return failed_sample(_describe_fault(server, fault))
    if sample.errors and (ended := _restart_if_ended(server)):
        return evolve(sample, fault=ended)
    return evolve(sample, processor=used) if sample.elapsed else sample


def _describe_fault(server: Server | Peer, fault: Exception) -> str:
    return _restart_if_ended(server) or f"{type(fault).__name__}: {fault}"


def _restart_if_ended(server: Server | Peer) -> str:
    """Restart a server that ended; return why it ended, or ``""``."""
    try:
        server.check()
    except ServerFailed as gone:
        return str(gone)
    return ""
