"""The program inside ``dist/twisted-registry``: the command line, or a worker process.

PyInstaller's loader is the process that was started. It unpacks the file, runs this program in a
second process, passes signals on to it, and removes what was unpacked.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from importlib import import_module

from twisted_registry.cli import main

#: ``sys.executable`` is the file itself, so these are the arguments of a worker
#: (``worker_command`` in ``twisted_registry/workers/handover.py``).
WORKER_ARGUMENTS = ["-P", "-m", "twisted_registry.app"]

#: ``PR_SET_PDEATHSIG`` of prctl(2).
_SET_PARENT_DEATH_SIGNAL = 1


def die_with_loader() -> None:
    """Let the kernel kill this process when the loader is killed, which cannot pass that on."""
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)


def take_watchdog() -> None:
    """Make the watchdog of systemd that of this process: it is set for the loader.

    The loader itself does the same for LISTEN_PID, the variable of sockets.
    """
    if os.environ.get("WATCHDOG_PID") == str(os.getppid()):
        os.environ["WATCHDOG_PID"] = str(os.getpid())


if __name__ == "__main__":
    if sys.argv[1:] == WORKER_ARGUMENTS:
        # A worker has no loader of its own, and ends with the first process.
        import_module("twisted_registry.app.__main__")
    die_with_loader()
    take_watchdog()
    sys.exit(main())
