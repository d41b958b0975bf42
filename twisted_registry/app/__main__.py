"""``python -m twisted_registry.app``: a worker process, started by the first process."""

from __future__ import annotations

import signal
import sys

from twisted_registry.app.standalone import run_worker_process

# A terminal sends the first two to its whole process group, as pkill may send the third to all
# processes; the first process handles them.
for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(number, signal.SIG_IGN)

sys.exit(run_worker_process())
