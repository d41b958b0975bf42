"""The command line of the benchmark."""

from __future__ import annotations

import argparse
import platform
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve

from tests.bench import kinds, record, report
from tests.bench.cases import Case, all_cases
from tests.bench.charts import write_charts
from tests.bench.fleet import Fleet
from tests.bench.progress import Progress, duration
from tests.bench.record import Record, Used
from tests.bench.rounds import measured
from tests.bench.samples import Run
from tests.bench.seed import FULL, QUICK, Content
from tests.bench.servers import Given, Server

if TYPE_CHECKING:
    from tests.bench.figures import Row

_DESCRIPTION = """\
Measure this registry beside others. Starts what is installed (docker-registry, nginx), gives
every server the same content, and runs each case in turn at each of them, round by round.
"""
#: Duration of a run as a multiple of the measured time; it includes content, checks and starts.
_BESIDE = 1.3
_EPILOG = """\
Exit status: 0; 1 when an answer was wrong or a server failed; 2 for usage; 130 after ^C or a
SIGTERM, which end a run early and print its results so far. The stores are in a folder below
TMPDIR, which should be on a disk like that of the real registry: in memory an fsync costs nothing.
"""


def main() -> int:
    """Run the benchmark; return the exit status."""
    asked = _arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if asked.read:
        try:
            return _shown(record.joined(map(record.read, asked.read)), asked)
        except (OSError, ValueError) as fault:
            print(fault, file=sys.stderr)
            return 2
    sizes = QUICK if asked.quick else FULL
    if asked.names:
        sizes = evolve(sizes, tags=asked.names, repositories=asked.names)
    content = Content(sizes)
    ours = kinds.Ours()
    chosen = _chosen(all_cases(content), asked)
    cases = [case for case in chosen if ours.effective(case.setup) is not None]
    left_out = [case.name for case in chosen if case not in cases]
    if not cases:
        print("no case is called so; --list names them", file=sys.stderr)
        return 2
    if asked.list:
        print("\n".join(case.name for case in cases))
        return 0
    folder = Path(tempfile.mkdtemp(prefix="registry-bench-"))
    try:
        return _shown(_run(cases, left_out, content, folder, asked), asked)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=_DESCRIPTION, epilog=_EPILOG)
    add = parser.add_argument
    add("--rounds", type=int, help="how often each case runs (5)")
    add("--seconds", type=float, help="how long each run takes, where that can be chosen (0.5)")
    add("--only", action="append", metavar="TEXT", help="cases so named, in part; may be repeated")
    add("--group", action="append", metavar="NAME",
        help="cases of a group; may be repeated; s3 is measured only if it is named",
    )  # fmt: skip
    add("--names", type=int, metavar="N",
        help="tags and repositories of the lists (10,000 and 5,000)",
    )  # fmt: skip
    add("--quick", action="store_true", help="small and short, to check that everything works")
    add("--workers", type=int, metavar="N", help="processes of ours in each case (1)")
    add("--list", action="store_true", help="print the names of the cases")
    add("--json", type=Path, metavar="FILE", help="write everything there, too")
    add("--charts", type=Path, metavar="FOLDER", help="draw charts (SVG) of the ratios there")
    add("--rst", action="store_true", help="print a short table of ratios as reStructuredText")
    add("--read", action="append", type=Path, metavar="FILE",
        help="measure nothing, show what --json wrote; may be repeated, for a run made in parts",
    )  # fmt: skip
    add("peers", nargs="*", type=_peer, metavar="NAME=URL", help="a registry that runs already")
    asked = parser.parse_args()
    asked.rounds = asked.rounds or (1 if asked.quick else 5)
    asked.seconds = asked.seconds or (0.3 if asked.quick else 0.5)
    return asked


def _peer(text: str) -> Given:
    name, is_there, url = text.partition("=")
    if not (name and is_there and url.startswith(("http://", "https://"))):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=http://HOST:PORT")
    if name in {kinds.OURS, kinds.DISTRIBUTION, kinds.NGINX, kinds.BARE}:
        raise argparse.ArgumentTypeError(f"{name} is the name of one that is started here")
    return Given(name, url)


def _chosen(cases: list[Case], asked: argparse.Namespace) -> list[Case]:
    """Return the cases that the options choose."""
    if asked.workers:
        # The cases that compare numbers of workers would be duplicates.
        cases = [_with_workers(case, asked.workers) for case in cases if case.group != "workers"]
    groups = asked.group or (None if asked.only or asked.quick else _usual(cases))
    return [
        case
        for case in cases
        if (groups is None or case.group in groups)
        and (not asked.only or any(text in case.name for text in asked.only))
    ]


def _usual(cases: list[Case]) -> set[str]:
    """Return the groups of a full run: all but s3, which needs a gateway and five more minutes."""
    return {case.group for case in cases} - {"s3"}


def _with_workers(case: Case, number: int) -> Case:
    if case.setup.gated:
        return case  # a program that embeds the registry is one process
    return evolve(case, setup=evolve(case.setup, workers=number))


def _run(
    cases: list[Case],
    left_out: list[str],
    content: Content,
    folder: Path,
    asked: argparse.Namespace,
) -> Record:
    progress = Progress(len(cases), 0)
    found = kinds.installed()
    with Fleet(found, asked.peers, folder, content, progress.say) as fleet:
        run = Run(content, asked.seconds, "")
        progress.expected = asked.rounds * sum(
            fleet.count(case) * case.measure.seconds(run) for case in cases
        )
        progress.say(f"{len(cases)} cases, about {duration(_BESIDE * progress.expected)}")
        rows: list[Row] = []
        interrupted = False
        try:
            for each in measured(
                fleet, cases, content, rounds=asked.rounds, seconds=asked.seconds, progress=progress
            ):
                rows += each
        except KeyboardInterrupt:
            interrupted = True
        used = [_used(server) for server in fleet.servers if not server.fault]
    progress.close()
    versions = [f"Python {platform.python_version()}"]
    versions += [f"{kind.name}: {kind.version()}" for kind in found]
    return Record(
        asked.rounds, asked.seconds, asked.quick, versions, rows, used, left_out, interrupted
    )


def _used(server: Server) -> Used:
    setup, peak = str(server.setup), server.memory("VmHWM")
    return Used(server.name, setup, server.idle, peak, server.processor_seconds())


def _shown(kept: Record, asked: argparse.Namespace) -> int:
    print(report.table(kept.rows))
    print(f"\n{report.usage(kept.used)}")
    for remark in report.remarks(kept):
        print(f"\n{remark}")
    if asked.rst:
        print(f"\n{report.readme(kept.rows)}")
    if asked.json:
        kept.write(asked.json)
    if asked.charts:
        write_charts(kept, asked.charts)
    if kept.interrupted:
        return 130
    return 1 if any(row.errors for row in kept.rows) else 0
