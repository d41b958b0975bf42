"""Which process it is, told so exactly that its end can be known for sure.

A record that a process left behind counts for a while, since nobody can tell one that is slow from
one that is gone. Of a process in the same namespace of the same kernel that can be told. Where it
can not, the answer is that it may live.
"""

from __future__ import annotations

import os
from pathlib import Path

_BOOT_ID_PATH = Path("/proc/sys/kernel/random/boot_id")
#: Which of the fields after the name of the program (proc_pid_stat(5)) says when it began.
_START_TIME_FIELD = 19


def process_identity() -> str:
    """Names this process, and no other that ever was: a word, empty where that can not be done."""
    place, began = _kernel_and_namespace(), _start_ticks(os.getpid())
    return f"{place}/{os.getpid()}/{began}" if place and began else ""


def has_exited(name: str) -> bool:
    """Whether the process that :func:`process_identity` named so has certainly ended, all of it."""
    place, pid, began = (["", "", *name.rsplit("/", 2)])[-3:]
    if not (place and pid.isdecimal()) or place != _kernel_and_namespace():
        return False
    try:
        # One that ended and was not waited for is still found: a thread of it may be at work.
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        pass
    return _start_ticks(int(pid)) not in {"", began}


def _kernel_and_namespace() -> str:
    """The kernel that was booted, and the namespace in which ids of processes are unique."""
    try:
        boot, namespace = _BOOT_ID_PATH.read_text().strip(), Path("/proc/self/ns/pid").readlink()
    except OSError:
        return ""
    return f"{boot}/{namespace}"


def _start_ticks(pid: int) -> str:
    """When a process began, in ticks since the kernel was booted; empty if nobody tells."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return fields[_START_TIME_FIELD] if len(fields) > _START_TIME_FIELD else ""
