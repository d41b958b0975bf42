"""Python's search for garbage, and the objects of a start, among which there is none.

An import makes a hundred thousand objects that stay. Python searches them again and again
while they are made, which takes an eighth of the time of a start; and later now and then all of
them in one go, which holds up every request for 12 to 30 ms.
"""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def freeze_imports() -> Iterator[None]:
    """Search for no garbage inside the block, and never again among what is there at its end.

    For programs of our own only: to a process that has taken us in, this is not ours to do.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
