"""Which process it is, told so exactly that its end can be known for sure.

A record that a process left behind counts for a while, since nobody can tell one that is slow from
one that is gone. Of a process in the same namespace of the same kernel that can be told. Where it
can not, the answer is that it may live.
"""

from __future__ import annotations

import os
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")
#: Which of the fields after the name of the program (proc_pid_stat(5)) says when it began.
_STARTED = 19


def this_process() -> str:
    """Names this process, and no other that ever was: a word, empty where that can not be done."""
    place, began = _place(), _began(os.getpid())
    return f"{place}/{os.getpid()}/{began}" if place and began else ""


def is_gone(name: str) -> bool:
    """Whether the process that :func:`this_process` named so has certainly ended, all of it."""
    place, pid, began = (["", "", *name.rsplit("/", 2)])[-3:]
    if not (place and pid.isdecimal()) or place != _place():
        return False
    try:
        # One that ended and was not waited for is still found: a thread of it may be at work.
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        pass
    return _began(int(pid)) not in {"", began}


def _place() -> str:
    """The kernel that was booted, and the namespace in which ids of processes are unique."""
    try:
        boot, namespace = _BOOT.read_text().strip(), Path("/proc/self/ns/pid").readlink()
    except OSError:
        return ""
    return f"{boot}/{namespace}"


def _began(pid: int) -> str:
    """When a process began, in ticks since the kernel was booted; empty if nobody tells."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return fields[_STARTED] if len(fields) > _STARTED else ""
