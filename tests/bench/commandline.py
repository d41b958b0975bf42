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
from tests.bench.record import Record, ServerUsage
from tests.bench.rounds import measure_cases
from tests.bench.samples import Run
from tests.bench.seed import FULL, QUICK, Content
from tests.bench.servers import Peer, Server

if TYPE_CHECKING:
    from tests.bench.figures import Row

_DESCRIPTION = """\
Measure this registry beside others. Starts what is installed (docker-registry, nginx), gives
every server the same content, and runs each case in turn at each of them, round by round.
"""
#: Duration of a run as a multiple of the measured time: content, checks and starts take more.
_OVERHEAD = 1.3
_EPILOG = """\
Exit status: 0; 1 when a response was wrong or a server failed; 2 for usage; 130 after ^C or a
SIGTERM, which end a run early and print its results so far. The stores are in a folder below
TMPDIR, which should be on a disk like that of the real registry: in memory an fsync costs nothing.
"""


def main() -> int:
    """Run the benchmark; return the exit status."""
    options = _arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if options.read:
        try:
            return _print_report(record.join(map(record.read, options.read)), options)
        except (OSError, ValueError) as fault:
            print(fault, file=sys.stderr)
            return 2
    sizes = QUICK if options.quick else FULL
    if options.names:
        sizes = evolve(sizes, tags=options.names, repositories=options.names)
    content = Content(sizes)
    ours = kinds.Ours()
    chosen = _select_cases(all_cases(content), options)
    cases = [case for case in chosen if ours.effective(case.setup) is not None]
    left_out = [case.name for case in chosen if case not in cases]
    if not cases:
        print("no case has such a name; --list prints the names", file=sys.stderr)
        return 2
    if options.list:
        print("\n".join(case.name for case in cases))
        return 0
    folder = Path(tempfile.mkdtemp(prefix="registry-bench-"))
    try:
        return _print_report(_run(cases, left_out, content, folder, options), options)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=_DESCRIPTION, epilog=_EPILOG)
    add = parser.add_argument
    add("--rounds", type=int, help="number of rounds (5)")
    add("--seconds", type=float, help="duration of a sample, where it can be chosen (0.5)")
    add(
        "--only",
        action="append",
        metavar="TEXT",
        help="only cases with TEXT in their name; repeatable",
    )
    add("--group", action="append", metavar="NAME",
        help="cases of a group; may be repeated; s3 is measured only if it is named",
    )  # fmt: skip
    add("--names", type=int, metavar="N",
        help="tags and repositories of the lists (10,000 and 5,000)",
    )  # fmt: skip
    add("--quick", action="store_true", help="small and short, to check that everything works")
    add("--workers", type=int, metavar="N", help="processes of this registry in each case (1)")
    add("--list", action="store_true", help="print the names of the cases")
    add("--json", type=Path, metavar="FILE", help="also write all results to FILE")
    add("--charts", type=Path, metavar="FOLDER", help="draw charts (SVG) of the ratios in FOLDER")
    add("--rst", action="store_true", help="print a short table of ratios as reStructuredText")
    add("--read", action="append", type=Path, metavar="FILE",
        help="measure nothing, report what --json wrote; may be repeated for a run in parts",
    )  # fmt: skip
    add(
        "peers",
        nargs="*",
        type=_peer,
        metavar="NAME=URL",
        help="a running registry",
    )
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 5)
    options.seconds = options.seconds or (0.3 if options.quick else 0.5)
    return options


def _peer(text: str) -> Peer:
    name, is_there, url = text.partition("=")
    if not (name and is_there and url.startswith(("http://", "https://"))):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=http://HOST:PORT")
    if name in {kinds.OURS, kinds.DISTRIBUTION, kinds.NGINX, kinds.BARE}:
        raise argparse.ArgumentTypeError(f"{name} is a server that the benchmark starts")
    return Peer(name, url)


def _select_cases(cases: list[Case], options: argparse.Namespace) -> list[Case]:
    """Return the cases that the options choose."""
    if options.workers:
        # The cases that compare numbers of workers would be duplicates.
        cases = [_with_workers(case, options.workers) for case in cases if case.group != "workers"]
    if options.group:
        cases = [case for case in cases if case.group in options.group]
    elif not (options.only or options.quick):
        # s3 needs a gateway and five more minutes.
        cases = [case for case in cases if case.group != "s3"]
    if options.only:
        cases = [case for case in cases if any(text in case.name for text in options.only)]
    return cases


def _with_workers(case: Case, number: int) -> Case:
    if case.setup.gated:
        return case  # a program that embeds the registry is one process
    return evolve(case, setup=evolve(case.setup, workers=number))


def _run(
    cases: list[Case],
    left_out: list[str],
    content: Content,
    folder: Path,
    options: argparse.Namespace,
) -> Record:
    progress = Progress(len(cases), 0)
    found = kinds.installed_kinds()
    with Fleet(found, options.peers, folder, content, progress.print_line) as fleet:
        run = Run(content, options.seconds, "")
        progress.expected = options.rounds * sum(
            fleet.count(case) * case.measure.seconds(run) for case in cases
        )
        progress.print_line(f"{len(cases)} cases, about {duration(_OVERHEAD * progress.expected)}")
        rows: list[Row] = []
        interrupted = False
        try:
            for each in measure_cases(
                fleet,
                cases,
                content,
                rounds=options.rounds,
                seconds=options.seconds,
                progress=progress,
            ):
                rows += each
        except KeyboardInterrupt:
            interrupted = True
        used = [_used(server) for server in fleet.servers if not server.fault]
    progress.close()
    versions = [f"Python {platform.python_version()}"]
    versions += [f"{kind.name}: {kind.version()}" for kind in found]
    return Record(
        options.rounds, options.seconds, options.quick, versions, rows, used, left_out, interrupted
    )


def _used(server: Server) -> ServerUsage:
    setup, peak = str(server.setup), server.memory("VmHWM")
    return ServerUsage(server.name, setup, server.idle, peak, server.processor_seconds())


def _print_report(result: Record, options: argparse.Namespace) -> int:
    print(report.table(result.rows))
    print(f"\n{report.usage(result.used)}")
    for remark in report.remarks(result):
        print(f"\n{remark}")
    if options.rst:
        print(f"\n{report.short_table(result.rows)}")
    if options.json:
        result.write(options.json)
    if options.charts:
        write_charts(result, options.charts)
    if result.interrupted:
        return 130
    return 1 if any(row.errors for row in result.rows) else 0
