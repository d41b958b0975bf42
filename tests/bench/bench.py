"""Measure this registry beside others: ``python tests/bench/bench.py --help``.

Starts what is installed, gives every server the same content, and runs each case in turn at
each of them, round by round, so that a busy moment of the machine meets all alike. Each server
keeps its own way of making a push durable. Exit status: 0, 1 when an answer was wrong or a
server failed, 2 for usage.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from secrets import token_hex

import generator
from attrs import evolve
from cases import Case, all_cases
from fsyncs import fsyncs_per_push
from report import NOTE, rows, table
from samples import Run, Sample
from seed import FULL, QUICK, Content, SeedError, push_content, write_files, write_links
from servers import DISTRIBUTION, NGINX, OURS, Given, NotUp, Server, commands, nginx
from wire import WireError


def main() -> int:
    """Run what the command line asks for."""
    asked = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    content = Content(QUICK if asked.quick else FULL)
    cases = [case for case in all_cases(content) if asked.only in case.name]
    if asked.list:
        print("\n".join(case.name for case in cases))
        return 0
    if not cases:
        print(f"no case has {asked.only!r} in its name", file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="registry-bench-"))
    try:
        with ExitStack() as stack:
            servers = _started(asked.peers, folder, content, stack)
            found = _measured(servers, cases, content, asked)
    except (NotUp, SeedError, WireError, OSError) as fault:
        print(f"failed: {fault}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _print(found, asked)
    return 1 if any(row["errors"] for row in found) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench.py",
        description=__doc__.splitlines()[0],
        epilog="The stores lie in a folder below TMPDIR, which should be on a disk like the one to "
        "be used: in memory an fsync costs nothing.",
    )
    parser.add_argument("--rounds", type=int, help="how often each case runs (5)")
    parser.add_argument("--seconds", type=float, help="how long each run takes (2)")
    parser.add_argument("--only", default="", metavar="SUBSTRING", help="cases with it in the name")
    parser.add_argument("--quick", action="store_true", help="small and short: is all in order?")
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")
    parser.add_argument(
        "peers", nargs="*", type=_peer, metavar="NAME=URL", help="a registry that runs already"
    )
    asked = parser.parse_args()
    asked.rounds = asked.rounds or (1 if asked.quick else 5)
    asked.seconds = asked.seconds or (0.3 if asked.quick else 2.0)
    return asked


def _peer(text: str) -> Given:
    name, is_there, url = text.partition("=")
    if not (name and is_there and url.startswith("http://")):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=http://HOST:PORT")
    if name in {OURS, DISTRIBUTION, NGINX}:
        raise argparse.ArgumentTypeError(f"{name} is the name of one that is started here")
    return Given(name, url)


def _started(peers, folder: Path, content: Content, stack: ExitStack) -> list:
    servers: list = []
    for name, command in commands().items():
        place = folder / name
        place.mkdir()
        server = Server(name, command, place)
        write_links(server.store, content)
        servers.append(stack.enter_context(server))
    place = folder / NGINX
    place.mkdir()
    if server := nginx(place):
        servers.append(stack.enter_context(server))
    return [*servers, *peers]


def _measured(servers, cases: list[Case], content: Content, asked) -> list[dict]:
    large = any(case.large for case in cases)
    for server in servers:
        _say(f"{server.name}: the content")
        if server.is_static:
            write_files(server.files, content, large=large)
        else:
            push_content(server.url, content, large=large)
    fsyncs = {}
    if any(case.pushes for case in cases):
        fsyncs = {each.name: fsyncs_per_push(each) for each in servers if each.store}
    found = []
    # A peer may have met an earlier run, and shall not know what this one pushes.
    this = token_hex(4)
    for index, case in enumerate(cases):
        able = [server for server in servers if case.suits(server)]
        samples: dict[str, list[Sample]] = {server.name: [] for server in able}
        for number in range(asked.rounds):
            for server in able:
                run = Run(content, asked.seconds, f"{this}-{index}-{number}")
                samples[server.name].append(_sample(case, server, run))
        found += rows(case, samples, fsyncs)
        _say(f"{index + 1}/{len(cases)} {case.name}")
    return found


def _sample(case: Case, server, run: Run) -> Sample:
    measurable = isinstance(server, Server)
    before = server.processor_seconds() if measurable else 0.0
    try:
        sample = case.sample(server, run)
        if not measurable or not sample.count:
            return sample
        used = server.processor_seconds() - before
        return evolve(sample, processor=1000 * used / sample.count)
    except (NotUp, WireError, OSError, ValueError, KeyError, subprocess.SubprocessError) as fault:
        return Sample(0, errors=1, fault=f"{type(fault).__name__}: {fault}")


def _print(found: list[dict], asked) -> None:
    print(table(found))
    print(f"\n{NOTE}")
    if all(row["server"] != DISTRIBUTION for row in found):
        print(f"{DISTRIBUTION} is not installed, so there is nothing to compare with.")
    if generator.WRK is None:
        print("wrk is not installed: a generator in Python made all requests.")
    print(f"{asked.rounds} rounds of {asked.seconds} s, Python {platform.python_version()}.")
    if asked.quick:
        print("A quick run: it shows that all is in order, and nothing about speed.")
    if asked.json:
        asked.json.write_text(json.dumps({"rounds": asked.rounds, "rows": found}, indent=1) + "\n")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
