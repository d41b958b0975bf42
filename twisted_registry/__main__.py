"""``python -m twisted_registry``: the ``twisted-registry`` command."""

from __future__ import annotations

import sys

from twisted_registry.cli import main

sys.exit(main())
