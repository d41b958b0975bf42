"""The number of fsyncs of a push, counted with strace; without it, rates cannot be compared."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

from tests.bench.content import BlobMaker, push
from tests.bench.servers import Peer, Server, ServerFailed
from tests.bench.wire import MIB, Connection, WireError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bench.setups import Setup

STRACE = shutil.which("strace")
_CALLS = ("fsync", "fdatasync", "sync_file_range", "syncfs", "sync")
# A call that another thread interrupts is written as two lines; the second has no "(".
_CALL = re.compile(rf"\b(?:{'|'.join(_CALLS)})\(")


class Fsyncs:
    """Counts the fsyncs of a push, once for each server and size."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, Setup, int], float | None] = {}

    def count(self, server: Server | Peer, size: int) -> float | None:
        """Return the fsyncs of a push of ``size`` bytes; None if they cannot be counted."""
        if STRACE is None or isinstance(server, Peer):
            return None
        key = server.name, server.setup, size
        if key not in self._counts:
            self._counts[key] = _count_fsyncs(server, size)
        return self._counts[key]


def _count_fsyncs(server: Server, size: int) -> float | None:
    trace = server.folder / "trace"
    # -D makes strace a grandchild, so that the server is the child that is stopped.
    calls = f"trace={','.join(_CALLS)}"
    traced = server.fresh([STRACE, "-D", "-f", "-qq", "-o", str(trace), "-e", calls])
    maker, times = BlobMaker(size), 5 if size < MIB else 2
    try:
        with traced, Connection(traced.url, traced.headers) as connection:
            # The first push creates folders that later ones find.
            push(connection, "bench/traced", maker.make("first"))
            before = _count_calls(trace)
            for number in range(times):
                if push(connection, "bench/traced", maker.make(str(number))):
                    return None
            return (_count_calls(trace) - before) / times
    except (ServerFailed, WireError, OSError):
        return None


def _count_calls(trace: Path) -> int:
    return len(_CALL.findall(trace.read_text()))
