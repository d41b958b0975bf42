"""What a process is doing now, as text: stacks of threads, requests, and coroutines that wait.

Only names of files and functions, line numbers and the heads of requests are shown: no values of
variables, and no source, which would have to be read from the disk.
"""

from __future__ import annotations

import gc
import sys
import threading
import traceback
from collections import Counter
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from attrs import frozen
from twisted.internet.task import deferLater

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from types import FrameType

#: Requests that are listed.
_MAX_REQUESTS: Final = 1000
#: Frames of one stack.
_MAX_FRAMES: Final = 100
#: Objects that are looked at, and stacks that are described, before the reactor gets its turn: for
#: some milliseconds.
_MAX_OBJECTS_AT_ONCE: Final = 20_000
_MAX_STACKS_AT_ONCE: Final = 200

_T = TypeVar("_T")


@frozen
class ActiveRequest:
    """A request whose response has not ended.

    :ivar path: of the URL, without the query, which may contain secrets.
    :ivar client: the IP address; empty for one on a Unix socket.
    :ivar user: the authenticated user; empty if there is none.
    :ivar seconds: since its head was complete.
    """

    method: str
    path: str
    client: str
    user: str
    seconds: float


async def describe_activity(requests: Iterable[ActiveRequest], clock: Any) -> str:
    """Return the stacks of all threads, the requests, and the coroutines that wait.

    Coroutines with the same stack are shown once, with their number. They are searched for among
    all objects, piece by piece, so that other work of the reactor goes on.

    :param requests: those in progress.
    :param clock: the reactor.
    """
    parts = [*_describe_threads(), *_describe_requests(requests)]
    parts += await _describe_coroutines(clock)
    return "\n".join(parts) + "\n"


def _describe_threads() -> Iterator[str]:
    frames = sys._current_frames()  # noqa: SLF001 - documented under this name
    yield f"threads: {len(frames)}"
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in frames.items():
        yield f"\nthread {names.get(ident, ident)}"
        stack = [one for one, _ in traceback.walk_stack(frame)]
        yield from _describe_frames(stack[::-1])


def _describe_requests(requests: Iterable[ActiveRequest]) -> Iterator[str]:
    oldest_first = sorted(requests, key=lambda request: -request.seconds)
    yield f"\nrequests: {len(oldest_first)}"
    for request in oldest_first[:_MAX_REQUESTS]:
        yield (
            f"  {request.seconds:.3f} s {ascii(request.method)[1:-1]} {ascii(request.path)[1:-1]}"
            f" client={request.client or '-'} user={ascii(request.user)[1:-1] or '-'}"
        )


async def _describe_coroutines(clock: Any) -> Sequence[str]:
    found: list[CoroutineType[Any, Any, Any]] = []
    for objects in _split(gc.get_objects(), _MAX_OBJECTS_AT_ONCE):
        found += [each for each in objects if isinstance(each, CoroutineType)]
        await deferLater(clock, 0)
    inner = {id(each.cr_await) for each in found}
    stacks: Counter[str] = Counter()
    for coroutines in _split(found, _MAX_STACKS_AT_ONCE):
        stacks.update(
            "\n".join(_describe_frames(_waiting_frames(each)))
            for each in coroutines
            if id(each) not in inner and each.cr_frame is not None and not each.cr_running
        )
        await deferLater(clock, 0)
    return [
        f"\ncoroutines that wait: {stacks.total()}",
        *(f"\n{count} with this stack\n{stack}" for stack, count in stacks.most_common()),
    ]


def _split(sequence: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    for start in range(0, len(sequence), size):
        yield sequence[start : start + size]


def _waiting_frames(coroutine: object) -> Sequence[FrameType]:
    """Return the frames of a coroutine and of those that it awaits, the outermost first."""
    frames: list[FrameType] = []
    while isinstance(coroutine, CoroutineType) and coroutine.cr_frame is not None:
        frames.append(coroutine.cr_frame)
        coroutine = coroutine.cr_await
    return frames


def _describe_frames(frames: Sequence[FrameType]) -> Iterator[str]:
    for frame in frames[-_MAX_FRAMES:]:
        code = frame.f_code
        yield f"  {code.co_filename}:{frame.f_lineno} {code.co_qualname}"
