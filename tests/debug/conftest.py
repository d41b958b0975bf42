"""A client for the pages."""

from __future__ import annotations

import sys
from pathlib import Path

# It lies with the tests of the API.
sys.path.append(str(Path(__file__).parent.parent / "api"))
