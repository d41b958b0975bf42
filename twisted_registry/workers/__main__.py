"""``python -m twisted_registry.workers``: what the first process starts; not for people."""

from __future__ import annotations

import signal
import sys

from twisted_registry.app.standalone import work

# Both go to the whole group of a terminal, and the first process decides what they mean.
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGHUP, signal.SIG_IGN)


sys.exit(work())
