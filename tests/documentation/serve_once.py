"""Serve as a command line says, and stop when the registry listens: for commands that do not end.

``serve FILE``, or ``twistd`` with its arguments.
"""

import signal
import sys
from pathlib import Path

from tests.support.processes import SERVE, TWISTD, RegistryProcess

if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    command = SERVE if name == "serve" else [word for word in TWISTD if word != "--nodaemon"]
    with RegistryProcess(*command, *arguments, cwd=Path.cwd()) as registry:
        response, _ = registry.ask()
        assert response.status in {200, 401}
        status, _, lines = registry.stop()
    print(*lines, sep="\n")
    # twistd ends by the signal that it received.
    sys.exit(status not in {0, -signal.SIGTERM})
