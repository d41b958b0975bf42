"""A process and its descendants in /proc: workers count with their parent."""

from __future__ import annotations

import os
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
# Fields of PID/stat, counted after the name of the program.
_PARENT, _OWN, _REAPED = 1, slice(11, 13), slice(13, 15)


def _fields(pid: int | str) -> list[str]:
    # The name is in parentheses, and may contain spaces and parentheses.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def process_tree(pid: int) -> list[int]:
    """Return the ids of a process and all its descendants."""
    children = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # the process may end meanwhile
                children[int(_fields(entry.name)[_PARENT])].append(int(entry.name))
    found = [pid]
    for each in found:
        found += children[each]
    return found


def processor_seconds(pid: int) -> float:
    """Return the processor time of a process tree in seconds, including ended children."""
    ticks = sum(map(int, _fields(pid)[_REAPED]))
    for each in process_tree(pid):
        with suppress(OSError):
            ticks += sum(map(int, _fields(each)[_OWN]))
    return ticks / _TICKS


def memory(pid: int, line: str) -> float:
    """Return a line of the status of a process tree in MiB.

    :param line: VmRSS for the current memory, VmHWM for the peak of each process.
    """
    total = 0
    for each in process_tree(pid):
        with suppress(OSError):
            for row in Path(f"/proc/{each}/status").read_text().splitlines():
                if row.startswith(f"{line}:"):
                    total += int(row.split()[1])
    return total / 1024
