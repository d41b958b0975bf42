"""Exclude the objects of the imports from Python's cyclic garbage collector.

The imports of a start make about 100,000 objects that are never freed. The collector would scan
them several times during the start, and later in full collections that block the reactor.
"""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def freeze_imports() -> Iterator[None]:
    """Disable garbage collection for the block, then freeze all objects that exist.

    For processes that the registry owns: an application that imports the package keeps control of
    its garbage collector. A collector that was disabled before stays disabled.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
