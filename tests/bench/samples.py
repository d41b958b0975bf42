"""How a case takes one sample: what is asked, of which answers, by how many clients."""

from __future__ import annotations

import os
import time
from base64 import b64encode
from contextlib import nullcontext
from typing import TYPE_CHECKING

import generator
from attrs import evolve, field, frozen
from seed import MANIFEST_TYPE, MOUNTABLE, REPOSITORY, Content
from servers import MIB
from wire import Answer, ask

if TYPE_CHECKING:
    from collections.abc import Callable

ACCEPT = {"Accept": MANIFEST_TYPE}
#: What the background of a case pushes, and with how many clients.
BESIDE_SIZE, BESIDE_CLIENTS = 16 * MIB, 8


@frozen
class Sample:
    """One round of one case at one server.

    :param value: in the unit of the case.
    :param p50: the median time of a request, a download or a push, in ms.
    :param p99: likewise the time that one in a hundred exceeds.
    :param count: how many there were.
    :param processor: the time that each took of the server's processors, in ms.
    :param more: what is written as JSON besides.
    """

    value: float
    p50: float | None = None
    p99: float | None = None
    errors: int = 0
    fault: str = ""
    count: int = 0
    processor: float | None = None
    more: dict[str, float] = field(factory=dict)


def sampled(seen: generator.Load, value: float) -> Sample:
    """What a generator saw, with the value that the case makes of it."""
    return Sample(value, seen.p50, seen.p99, seen.errors, seen.fault, seen.count)


@frozen
class Run:
    """What a case is given: the content, the seconds it may take, and a mark of its own."""

    content: Content
    seconds: float
    mark: str


@frozen
class Get:
    """The same request over and over; a whole answer is compared before and after."""

    target: Callable[[Content], str]
    body: Callable[[Content, Answer], bool]
    connections: int = 1
    method: str = "GET"
    status: int = 200
    headers: Callable[[Content], dict[str, str]] = lambda _content: ACCEPT
    beside: bool = False

    def __call__(self, server, run: Run) -> Sample:
        target, headers = self.target(run.content), self.headers(run.content)
        answer, fault = self._look(server, run, target, headers)
        if fault:
            return Sample(0, errors=1, fault=fault)
        with self._beside(server, run) as pushes:
            if pushes:
                time.sleep(min(0.5, run.seconds / 4))  # the uploads shall be under way
            seen = generator.requests(
                server.url, target, method=self.method, headers=headers,
                connections=self.connections, seconds=run.seconds, answer=answer,
            )  # fmt: skip
            pushed = pushes.result() if pushes else None
        _, after = self._look(server, run, target, headers)
        sample = sampled(seen, seen.rate)
        if after:
            sample = evolve(sample, errors=sample.errors + 1, fault=after)
        if pushed is None:
            return sample
        if server.store:
            server.forget(pushed.digests)
        return evolve(
            sample,
            value=seen.p99,
            count=0,  # the processor time is that of the pushes, too
            errors=sample.errors + pushed.errors,
            fault=sample.fault or pushed.fault,
            more={"requests/s": seen.rate, "pushed MiB/s": pushed.rate * BESIDE_SIZE / MIB},
        )

    def _look(self, server, run, target, headers) -> tuple[Answer, str]:
        answer = ask(server.url, self.method, target, headers)
        if answer.status != self.status:
            return answer, f"status {answer.status} instead of {self.status}"
        return answer, "" if self.body(run.content, answer) else "a body that differs"

    def _beside(self, server, run: Run):
        if not self.beside:
            return nullcontext()
        return generator.Generator(
            "pushes", url=server.url, repository="bench/beside", mark=run.mark,
            size=BESIDE_SIZE, clients=BESIDE_CLIENTS, seconds=1.5 * run.seconds + 0.5,
        )  # fmt: skip


@frozen
class Download:
    """Clients that each read the large blob."""

    clients: int

    def __call__(self, server, run: Run) -> Sample:
        blob = run.content.large
        seen = generator.load(
            "downloads", url=server.url, target=f"/v2/{REPOSITORY}/blobs/{blob.digest}",
            size=blob.size, last=b64encode(blob.parts[-1]).decode(), clients=self.clients, times=1,
        )  # fmt: skip
        return sampled(seen, seen.rate * blob.size / MIB)


@frozen
class Push:
    """Clients that push blobs of ``size``, each its own; None is the large size, one each."""

    size: int | None
    clients: int

    def __call__(self, server, run: Run) -> Sample:
        size = self.size or run.content.sizes.large
        amount = {"seconds": run.seconds} if self.size else {"times": 1}
        os.sync()  # what one round left to write shall not burden the next
        seen = generator.load(
            "pushes", url=server.url, repository="bench/pushed", mark=run.mark,
            size=size, clients=self.clients, **amount,
        )  # fmt: skip
        if server.store and not self.size:
            server.forget(seen.digests)
        value = seen.rate if self.size else seen.rate * size / MIB
        return sampled(seen, value)


def mount(server, run: Run) -> Sample:
    """One client that mounts blobs into a repository that has none of them."""
    digests = [blob.digest for blob in run.content.mountable]
    seen = generator.load(
        "mounts", url=server.url, repository=f"bench/mounted-{run.mark}", source=MOUNTABLE,
        digests=digests, clients=1, times=len(digests),
    )  # fmt: skip
    return sampled(seen, seen.rate)


def start(server, _run: Run) -> Sample:
    """From the start of the process to the first 200, over an empty store."""
    with server.fresh() as fresh:
        return Sample(1000 * fresh.started)


def idle_memory(server, _run: Run) -> Sample:
    """What a process holds after its first 200."""
    with server.fresh() as fresh:
        return Sample(fresh.memory("VmRSS"))


def peak_memory(server, _run: Run) -> Sample:
    """The most that the process had in all cases so far."""
    return Sample(server.memory("VmHWM"), more={"CPU seconds": server.processor_seconds()})
