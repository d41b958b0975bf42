"""The number of fsyncs of a push, counted with strace; a rate says little without it."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

from tests.bench.content import Maker, push
from tests.bench.servers import Given, NotUp, Server
from tests.bench.wire import MIB, Connection, WireError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bench.setups import Setup

STRACE = shutil.which("strace")
_CALLS = ("fsync", "fdatasync", "sync_file_range", "syncfs", "sync")
# A call that another thread interrupts is written as two lines; the second has no "(".
_CALL = re.compile(rf"\b(?:{'|'.join(_CALLS)})\(")


class Fsyncs:
    """Counts once for each server and size, and keeps the result."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, Setup, int], float | None] = {}

    def of(self, server: Server | Given, size: int) -> float | None:
        """Return the fsyncs of a push of ``size`` bytes; None if they cannot be counted."""
        if STRACE is None or isinstance(server, Given):
            return None
        key = server.name, server.setup, size
        if key not in self._known:
            self._known[key] = _counted(server, size)
        return self._known[key]


def _counted(server: Server, size: int) -> float | None:
    trace = server.folder / "trace"
    # -D leaves the server the child that is ended, and strace its observer.
    calls = f"trace={','.join(_CALLS)}"
    traced = server.fresh([STRACE, "-D", "-f", "-qq", "-o", str(trace), "-e", calls])
    maker, times = Maker(size), 5 if size < MIB else 2
    try:
        with traced, Connection(traced.url, traced.headers) as connection:
            # The first makes folders that later ones find.
            push(connection, "bench/traced", maker.make("first"))
            before = _calls(trace)
            for number in range(times):
                if push(connection, "bench/traced", maker.make(str(number))):
                    return None
            return (_calls(trace) - before) / times
    except (NotUp, WireError, OSError):
        return None


def _calls(trace: Path) -> int:
    return len(_CALL.findall(trace.read_text()))
