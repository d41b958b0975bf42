"""Cases that read: one request, repeated."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from tests.bench import generator
from tests.bench.content import check_blob
from tests.bench.samples import Measure, Run, Sample, failed, sampled
from tests.bench.seed import REPOSITORY, Content
from tests.bench.wire import MIB, Answer, ask
from tests.support.manifests import OCI_IMAGE

if TYPE_CHECKING:
    from collections.abc import Callable

ACCEPT = {"Accept": OCI_IMAGE}
#: What the background of a case pushes, and with how many clients.
BESIDE_SIZE, BESIDE_CLIENTS = 16 * MIB, 8
#: Seconds of each warm-up.
_WARM = 0.2


@frozen
class Get(Measure):
    """A request with a small response.

    :ivar body: whether the body of an answer is right.
    :ivar beside: whether pushes are under way meanwhile; the value is then the p99.
    """

    target: Callable[[Content], str]
    body: Callable[[Content, Answer], bool]
    connections: int = 1
    method: str = "GET"
    status: int = 200
    headers: Callable[[Content], dict[str, str]] = lambda _content: ACCEPT
    beside: bool = False

    def check(self, server, run: Run) -> str:
        answer, fault = self._look(server, run)
        if not fault:
            self._load(server, evolve(run, seconds=_WARM), answer)
        return fault

    def __call__(self, server, run: Run) -> Sample:
        answer, fault = self._look(server, run)
        if fault:
            return failed(fault)
        with self._beside(server, run) as pushes:
            if pushes:
                time.sleep(min(0.5, run.seconds / 4))  # the uploads shall be under way
            seen = self._load(server, run, answer)
            pushed = pushes.result() if pushes else None
        _, after = self._look(server, run)
        sample = sampled(seen, seen.rate)
        if after:
            sample = evolve(sample, errors=sample.errors + 1, fault=sample.fault or after)
        if pushed is None:
            return sample
        if server.store:
            server.forget(pushed.digests)
        return evolve(
            sample,
            value=seen.p99,
            count=0,  # the processor time is that of the pushes, too
            generator=seen.processor + pushed.processor,
            errors=sample.errors + pushed.errors,
            fault=sample.fault or pushed.fault,
            more={"requests/s": seen.rate, "pushed MiB/s": pushed.rate * BESIDE_SIZE / MIB},
        )

    def seconds(self, run: Run) -> float:
        return (2 if self.beside else 1) * run.seconds + 0.1

    def _load(self, server, run: Run, answer: Answer) -> generator.Load:
        return generator.requests(
            server, self.target(run.content), method=self.method, seconds=run.seconds,
            headers=self.headers(run.content), connections=self.connections, answer=answer,
        )  # fmt: skip

    def _look(self, server, run: Run) -> tuple[Answer, str]:
        answer = ask(server, self.method, self.target(run.content), self.headers(run.content))
        if answer.status != self.status:
            return answer, f"status {answer.status} instead of {self.status}"
        return answer, "" if self.body(run.content, answer) else "a body that differs"

    def _beside(self, server, run: Run):
        if not self.beside:
            return nullcontext()
        return generator.Generator(
            "pushes", server, repository="bench/beside", mark=run.mark, size=BESIDE_SIZE,
            clients=BESIDE_CLIENTS, seconds=1.5 * run.seconds + 0.5,
        )  # fmt: skip


@frozen
class Download(Measure):
    """Clients that read the large blob, four downloads in all."""

    clients: int

    def check(self, server, run: Run) -> str:
        return check_blob(server, REPOSITORY, run.content.large)

    def __call__(self, server, run: Run) -> Sample:
        blob, times = run.content.large, max(1, 4 // self.clients)
        target = f"/v2/{REPOSITORY}/blobs/{blob.digest}"
        seen = generator.downloads(server, target, blob, clients=self.clients, times=times)
        return sampled(seen, seen.rate * blob.size / MIB)

    def seconds(self, run: Run) -> float:
        return max(4, self.clients) * run.content.sizes.large / (800 * MIB) + 0.1
