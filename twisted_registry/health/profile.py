"""A sampled profile of a process, as collapsed stacks and as a flame graph.

A thread looks at the stacks of all threads at intervals. A function has as many samples as it was
found in: also one that waits, where the thread waits. A stack is text, the names of its functions
joined by semicolons, the outermost first. ``flamegraph.pl``, speedscope and others read lines of a
stack, a space and its number of samples.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections import Counter
from html import escape
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

from attrs import define, field
from twisted.internet.defer import Deferred

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from types import FrameType

#: The longest profile, in seconds.
MAX_SECONDS: Final = 60.0
_SAMPLES_PER_SECOND: Final = 100
#: Frames of one stack, the innermost.
_MAX_FRAMES: Final = 100
#: Different stacks; samples of further ones are counted together.
_MAX_STACKS: Final = 10_000
_OTHER_STACKS: Final = "other stacks"

#: Of the drawing, in pixels.
_WIDTH: Final = 1200
_ROW_HEIGHT: Final = 17
_CHARACTER_WIDTH: Final = 6.6
#: Narrower functions are left out.
_MIN_WIDTH: Final = 0.4


@define(eq=False, repr=False)
class Profiler:
    """Makes one profile at a time: a new one ends the one before, which has what was found so far.

    :ivar reactor: where :meth:`profile` is called.
    """

    _reactor: Any
    _stop: threading.Event = field(init=False, factory=threading.Event)

    async def profile(self, seconds: float) -> Counter[str]:
        """Return how many samples each stack of this process has.

        :param seconds: how long it takes, at most :data:`MAX_SECONDS`. Cancelling ends it at once.
        """
        self._stop.set()
        self._stop = stop = threading.Event()
        done: Deferred[Counter[str]] = Deferred()
        thread = threading.Thread(
            target=self._run, args=(min(seconds, MAX_SECONDS), stop, done), daemon=True
        )
        thread.name = "profiler"
        thread.start()
        try:
            return await done
        finally:
            stop.set()

    def _run(self, seconds: float, stop: threading.Event, done: Deferred[Counter[str]]) -> None:
        stacks: Counter[str] = Counter()
        end = time.monotonic() + seconds
        while not stop.wait(1 / _SAMPLES_PER_SECOND) and time.monotonic() < end:
            for stack in _collapsed_stacks():
                is_new = len(stacks) >= _MAX_STACKS and stack not in stacks
                stacks[_OTHER_STACKS if is_new else stack] += 1
        self._reactor.callFromThread(done.callback, stacks)


def _collapsed_stacks() -> Iterator[str]:
    """Yield the stack of each thread but this one."""
    own = threading.get_ident()
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():  # noqa: SLF001 - documented under this name
        if ident != own:
            thread = "".join(
                " " if each in ";\n" else each for each in names.get(ident, str(ident))
            )
            yield ";".join([f"thread {thread}", *_function_names(frame)])


def _function_names(innermost: FrameType) -> Iterable[str]:
    frames = [frame for frame, _ in traceback.walk_stack(innermost)][:_MAX_FRAMES]
    for frame in reversed(frames):
        yield f"{frame.f_globals.get('__name__', '?')}:{frame.f_code.co_qualname}"


def format_stacks(stacks: Mapping[str, int], max_chars: int | None = None) -> str:
    """Return collapsed stacks as lines, those with the most samples first.

    :param max_chars: leave out the last lines if all would be longer.
    """
    lines, size = [], 0
    for stack, count in sorted(stacks.items(), key=lambda item: (-item[1], item[0])):
        line = f"{stack} {count}\n"
        size += len(line)
        if max_chars is not None and size > max_chars:
            break
        lines.append(line)
    return "".join(lines)


def parse_stacks(text: str) -> Counter[str]:
    """Return the stacks of the lines of :func:`format_stacks`."""
    stacks: Counter[str] = Counter()
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        stacks[stack] += int(count)
    return stacks


@define(eq=False, repr=False)
class _Node:
    """A function in the flame graph, with those that it calls."""

    count: int = 0
    callees: dict[str, _Node] = field(factory=dict)


def render_flame_graph(stacks: Mapping[str, int]) -> str:
    """Return collapsed stacks as an SVG picture, which needs no other file and no script.

    The outermost functions are at the top. The width of a function is its share of all samples; a
    tooltip has its whole name, its samples and its share.
    """
    root, depth = _Node(sum(stacks.values())), 0
    for stack, count in stacks.items():
        node, names = root, stack.split(";")
        depth = max(depth, len(names))
        for name in names:
            node = node.callees.setdefault(name, _Node())
            node.count += count
    height = (depth + 1) * _ROW_HEIGHT
    drawn = "".join(_draw("all processes", root, 0.0, 0, max(root.count, 1)))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}"'
        f' viewBox="0 0 {_WIDTH} {height}" font-family="monospace" font-size="11">\n{drawn}</svg>\n'
    )


def _draw(name: str, node: _Node, left: float, row: int, total: int) -> Iterator[str]:
    width = node.count / total * _WIDTH
    if row and width < _MIN_WIDTH:
        return
    top, hue = row * _ROW_HEIGHT, crc32(name.encode()) % 60
    share = f"{node.count} samples, {100 * node.count / total:.1f} %"
    yield (
        f"<g><title>{escape(name)} ({share})</title>"
        f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{_ROW_HEIGHT - 1}"'
        f' fill="hsl({hue},80%,70%)"/>'
    )
    visible = name[: int(width / _CHARACTER_WIDTH)]
    if len(visible) > 2:
        yield f'<text x="{left + 2:.1f}" y="{top + 12}">{escape(visible)}</text>'
    yield "</g>\n"
    for callee, child in sorted(node.callees.items()):
        yield from _draw(callee, child, left, row + 1, total)
        left += child.count / total * _WIDTH
