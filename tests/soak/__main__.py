"""Run the soak and print its figures: ``python -m tests.soak --seconds 1800``."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.soak.soak import Options, Soak


def main() -> int:
    """Run; return 1 if something failed or grew."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--connections", type=int, default=500)
    parser.add_argument("--kill-every", type=float, default=60, metavar="SECONDS")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        soak = Soak(Options(options.seconds, options.connections, options.kill_every), Path(folder))
        soak.run()
    print(soak.report())
    problems = soak.problems()
    print("\n".join(problems) or "nothing grew, nothing failed")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
