"""Cases that read: one request, repeated."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from tests.bench import generator
from tests.bench.content import check_blob
from tests.bench.samples import Measure, Run, Sample, failed_sample, sample_from_load
from tests.bench.seed import REPOSITORY, Content
from tests.bench.wire import MIB, Response, send_request
from tests.support.manifests import OCI_IMAGE

if TYPE_CHECKING:
    from collections.abc import Callable

ACCEPT = {"Accept": OCI_IMAGE}
#: Size and number of clients of the pushes in the background of a case.
_PUSHED_BYTES, _PUSH_CLIENTS = 16 * MIB, 8
#: Seconds of each warm-up.
_WARM_UP_S = 0.2


@frozen
class Get(Measure):
    """A request with a small response.

    :ivar body: checks the body of a response.
    :ivar with_pushes: whether clients push meanwhile; the value is then the p99.
    """

    target: Callable[[Content], str]
    body: Callable[[Content, Response], bool]
    connections: int = 1
    method: str = "GET"
    status: int = 200
    headers: Callable[[Content], dict[str, str]] = lambda _content: ACCEPT
    with_pushes: bool = False

    def check(self, server, run: Run) -> str:
        response, fault = self._request(server, run)
        if not fault:
            self._load(server, evolve(run, seconds=_WARM_UP_S), response)
        return fault

    def __call__(self, server, run: Run) -> Sample:
        response, fault = self._request(server, run)
        if fault:
            return failed_sample(fault)
        with self._background_pushes(server, run) as pushes:
            if pushes:
                time.sleep(min(0.5, run.seconds / 4))  # until the uploads have begun
            seen = self._load(server, run, response)
            pushed = pushes.result() if pushes else None
        _, after = self._request(server, run)
        sample = sample_from_load(seen, seen.rate)
        if after:
            sample = evolve(sample, errors=sample.errors + 1, fault=sample.fault or after)
        if pushed is None:
            return sample
        if server.store:
            server.forget(pushed.digests)
        return evolve(
            sample,
            value=seen.p99,
            count=0,  # the processor time includes the pushes
            generator=seen.processor + pushed.processor,
            errors=sample.errors + pushed.errors,
            fault=sample.fault or pushed.fault,
            more={"requests/s": seen.rate, "pushed MiB/s": pushed.rate * _PUSHED_BYTES / MIB},
        )

    def seconds(self, run: Run) -> float:
        return (2 if self.with_pushes else 1) * run.seconds + 0.1

    def _load(self, server, run: Run, response: Response) -> generator.Load:
        return generator.requests(
            server, self.target(run.content), method=self.method, seconds=run.seconds,
            headers=self.headers(run.content), connections=self.connections, expected=response,
        )  # fmt: skip

    def _request(self, server, run: Run) -> tuple[Response, str]:
        response = send_request(
            server, self.method, self.target(run.content), self.headers(run.content)
        )
        if response.status != self.status:
            return response, f"status {response.status} instead of {self.status}"
        return response, "" if self.body(run.content, response) else "a body that differs"

    def _background_pushes(self, server, run: Run):
        if not self.with_pushes:
            return nullcontext()
        return generator.Generator(
            "pushes", server, repository="bench/background", label=run.label, size=_PUSHED_BYTES,
            clients=_PUSH_CLIENTS, seconds=1.5 * run.seconds + 0.5,
        )  # fmt: skip


@frozen
class Download(Measure):
    """Clients that read the large blob, four downloads in all."""

    clients: int

    def check(self, server, run: Run) -> str:
        return check_blob(server, REPOSITORY, run.content.large)

    def __call__(self, server, run: Run) -> Sample:
        blob, times = run.content.large, max(1, 4 // self.clients)
        seen = generator.downloads(server, REPOSITORY, blob, clients=self.clients, times=times)
        return sample_from_load(seen, seen.rate * blob.size / MIB)

    def seconds(self, run: Run) -> float:
        return max(4, self.clients) * run.content.sizes.large / (800 * MIB) + 0.1
