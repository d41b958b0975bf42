"""Objects that a registry process holds, counted in that process.

``python -m tests.support.held_objects serve FILE`` is ``twisted-registry serve FILE`` which writes
one line to standard error at SIGUSR2. Unlike the memory of the process these numbers do not depend
on how the allocator uses its pages, so that a leak of one object in each tenth request is seen.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from collections import Counter
from typing import TYPE_CHECKING

from attrs import frozen

from tests.support.processes import RegistryProcess, wait_until
from twisted_registry import cli

if TYPE_CHECKING:
    from types import FrameType

SERVE_COUNTED = (sys.executable, "-m", "tests.support.held_objects", "serve")
_MARK = "held objects: "


@frozen
class Held:
    """What one process holds.

    :ivar blocks: blocks of memory that the interpreter has allocated, each for one object or for
        the entries of one.
    :ivar kinds: how many objects of each type the cyclic garbage collector tracks, without those of
        the imports.
    """

    blocks: int
    kinds: Counter[str]


def count_held(registry: RegistryProcess) -> Held:
    """Return what a process that was started by :data:`SERVE_COUNTED` holds after a collection."""
    before = len(_reports(registry))
    registry.process.send_signal(signal.SIGUSR2)
    wait_until(lambda: len(_reports(registry)) > before)
    found = json.loads(_reports(registry)[-1])
    return Held(found["blocks"], Counter(found["kinds"]))


def _reports(registry: RegistryProcess) -> list[str]:
    return [line.removeprefix(_MARK) for line in registry.lines if line.startswith(_MARK)]


def _report(_number: int, _frame: FrameType | None) -> None:
    gc.collect()
    blocks = sys.getallocatedblocks()
    kinds = Counter(str(type(each)) for each in gc.get_objects())
    line = f"{_MARK}{json.dumps({'blocks': blocks, 'kinds': kinds})}\n"
    os.write(sys.__stderr__.fileno(), line.encode())


def main() -> int:
    """Run ``twisted-registry`` with the arguments of this process; report at SIGUSR2."""
    signal.signal(signal.SIGUSR2, _report)
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
