"""Identify processes in records that they leave in the store, and detect those that have exited.

A record of a process that is gone normally counts until its time to live has passed, because a
slow process and a dead one look alike. Within one kernel and one PID namespace the difference can
be determined for certain. Everywhere else the answer is that the process may be alive.
"""

from __future__ import annotations

import os
from pathlib import Path

_BOOT_ID_PATH = Path("/proc/sys/kernel/random/boot_id")
#: Index of ``starttime`` among the fields that follow the name of the program: proc_pid_stat(5).
_START_TIME_FIELD = 19


def process_identity() -> str:
    """Return a word that identifies this process among all that ever ran.

    It is ``BOOT-ID/PID-NAMESPACE/PID/START-TIME``, or empty where ``/proc`` does not provide it.
    """
    place, started = _kernel_and_namespace(), _start_ticks(os.getpid())
    return f"{place}/{os.getpid()}/{started}" if place and started else ""


def has_exited(identity: str) -> bool:
    """Return whether a process has certainly exited, with all its threads.

    :param identity: what :func:`process_identity` returned in that process; any other text is
        accepted, and gives False.
    """
    place, pid, started = (["", "", *identity.rsplit("/", 2)])[-3:]
    if not (place and pid.isdecimal()) or place != _kernel_and_namespace():
        return False
    try:
        # A zombie still exists: one of its threads may be inside a system call.
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        pass
    return _start_ticks(int(pid)) not in {"", started}


def _kernel_and_namespace() -> str:
    """Return the boot ID of the kernel and the PID namespace, or an empty string."""
    try:
        boot, namespace = _BOOT_ID_PATH.read_text().strip(), Path("/proc/self/ns/pid").readlink()
    except OSError:
        return ""
    return f"{boot}/{namespace}"


def _start_ticks(pid: int) -> str:
    """Return when a process started, in clock ticks since boot; empty if that is unknown."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return fields[_START_TIME_FIELD] if len(fields) > _START_TIME_FIELD else ""
