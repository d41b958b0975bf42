"""``python -m twisted_registry.app``: a worker process, started by the first process."""

from __future__ import annotations

import signal
import sys

from twisted_registry.app.standalone import run_worker_process

# A terminal sends both signals to its whole process group; the first process handles them.
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGHUP, signal.SIG_IGN)

sys.exit(run_worker_process())
