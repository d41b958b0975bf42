"""``python -m tests.bench``."""

import sys

from tests.bench.commandline import main

if __name__ == "__main__":
    sys.exit(main())
