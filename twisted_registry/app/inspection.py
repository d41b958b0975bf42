"""What the processes of a registry are doing: their stacks, requests and profiles.

The first process asks the workers through their control pipes. An answer is a line on the standard
error of a worker, as its log is.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Any

from attrs import define, field
from twisted.internet.defer import Deferred, gatherResults

from twisted_registry.health.profile import Profiler, format_stacks, parse_stacks
from twisted_registry.health.stacks import ActiveRequest, describe_activity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted_registry.http.site import HTTPSite

    #: Asks all workers for a profile of so many seconds, or for their stacks (None). Returns what
    #: each answers, by the id of its process; None if it does not answer in time.
    AskWorkers = Callable[[float | None], Deferred[dict[int, str | None]]]

#: Characters of an answer. A line of a worker is limited to 1 MiB, with escapes.
_MAX_ANSWER_CHARS = 128 * 1024
_CUT = "\n(cut)\n"
_NO_ANSWER = "no answer"


@define(eq=False, repr=False)
class Inspector:
    """Looks at this process.

    :ivar site: the HTTP server of the API.
    :ivar reactor: the reactor.
    """

    _site: HTTPSite
    _reactor: Any
    _profiler: Profiler = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._profiler = Profiler(self._reactor)

    async def answer(self, profile_s: float | None) -> str:
        """Return what a worker answers.

        :param profile_s: seconds of a profile; None for the stacks.
        """
        if profile_s is not None:
            stacks = await self._profiler.profile(profile_s)
            return format_stacks(stacks, _MAX_ANSWER_CHARS)
        text = await self._describe()
        return text if len(text) <= _MAX_ANSWER_CHARS else text[:_MAX_ANSWER_CHARS] + _CUT

    async def describe_all(self, ask_workers: AskWorkers) -> str:
        """Return the stacks and requests of this process and of all workers."""
        own = await self._describe()
        answers = {os.getpid(): own, **await ask_workers(None)}
        return "\n".join(
            f"process {pid}\n{_NO_ANSWER + chr(10) if text is None else text}"
            for pid, text in answers.items()
        )

    async def profile_all(self, seconds: float, ask_workers: AskWorkers) -> Counter[str]:
        """Return the samples of this process and of all workers; see :class:`Profiler`."""
        profiling: Deferred[Any] = Deferred.fromCoroutine(self._profiler.profile(seconds))
        asking: Deferred[Any] = ask_workers(seconds)
        own, answers = await gatherResults([profiling, asking], consumeErrors=True)
        found = _below(os.getpid(), own)
        for pid, text in answers.items():
            found += _below(pid, Counter({_NO_ANSWER: 1}) if text is None else parse_stacks(text))
        return found

    async def _describe(self) -> str:
        now = self._reactor.seconds()
        requests = [
            ActiveRequest(
                request.method.decode("latin-1"),
                request.path.decode("latin-1"),
                request.client_address,
                getattr(request, "user", b"").decode("utf-8", "replace"),
                now - request.started_at,
            )
            for connection in self._site.connections
            if (request := connection.request) is not None
        ]
        return await describe_activity(requests, self._reactor)


def _below(pid: int, stacks: Mapping[str, int]) -> Counter[str]:
    return Counter({f"process {pid};{stack}": count for stack, count in stacks.items()})
