"""How many fsyncs a push costs, counted by strace: a rate says little without it."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

from content import Maker, push
from servers import NotUp, Server
from wire import Connection, WireError

if TYPE_CHECKING:
    from pathlib import Path

STRACE = shutil.which("strace")
PUSHES = 5
_CALLS = "fsync,fdatasync,sync_file_range,syncfs,sync"


def fsyncs_per_push(server: Server) -> float | None:
    """The fsyncs of a small push at a server of the same kind; None if that can't be counted.

    The first push, which makes folders that later ones find, is not counted.
    """
    if STRACE is None:
        return None
    traced = server.fresh()
    trace = traced.folder / "trace"
    # -D leaves the server the child that is ended, and strace its observer.
    traced.command = [
        STRACE, "-D", "-f", "-qq", "-o", str(trace), "-e", f"trace={_CALLS}", *server.command,
    ]  # fmt: skip
    maker = Maker(4096)
    try:
        with traced, Connection(traced.url) as connection:
            push(connection, "bench/traced", maker.make("first"))
            before = _calls(trace)
            for number in range(PUSHES):
                if push(connection, "bench/traced", maker.make(str(number))):
                    return None
            return (_calls(trace) - before) / PUSHES
    except (NotUp, WireError, OSError):
        return None


def _calls(trace: Path) -> int:
    # A call that another thread interrupts is written as two lines; the second has no "(".
    return len(
        re.findall(r"\b(?:fsync|fdatasync|sync_file_range|syncfs|sync)\(", trace.read_text())
    )
