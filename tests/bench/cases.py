"""What is measured: each case is a name, a unit, and a function that makes one sample."""

from __future__ import annotations

import os
import time
from base64 import b64encode
from contextlib import nullcontext
from typing import TYPE_CHECKING

import generator
from attrs import evolve, field, frozen
from seed import KIB, MANIFEST_TYPE, MOUNTABLE, REPOSITORY, TAG, TAGGED, Content
from servers import MIB
from wire import Answer, ask

if TYPE_CHECKING:
    from collections.abc import Callable

ACCEPT = {"Accept": MANIFEST_TYPE}
#: What the background of a case pushes, and with how many clients.
BESIDE_SIZE, BESIDE_CLIENTS = 16 * MIB, 8


@frozen
class Sample:
    """One round of one case at one server. Times are in ms."""

    value: float
    p50: float | None = None
    p99: float | None = None
    errors: int = 0
    fault: str = ""
    more: dict[str, float] = field(factory=dict)


@frozen
class Run:
    """What a case is given: the content, the seconds it may take, and a mark of its own."""

    content: Content
    seconds: float
    mark: str


@frozen
class Case:
    """One line of the table.

    :param unit: of a sample's value; a rate is better the larger it is, all else the smaller.
    :param local: whether it needs the server's process or store, not only its address.
    :param pushes: whether the fsyncs of a push belong beside it.
    :param large: whether it needs the large blob.
    """

    name: str
    unit: str
    sample: Callable[[object, Run], Sample]
    local: bool = False
    pushes: bool = False
    large: bool = False

    @property
    def is_rate(self) -> bool:
        return self.unit.endswith("/s")


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
        sample = Sample(seen.rate, seen.p50, seen.p99, seen.errors, seen.fault)
        if after:
            sample = evolve(sample, errors=sample.errors + 1, fault=after)
        if pushed is None:
            return sample
        if server.store:
            server.forget(pushed.digests)
        return evolve(
            sample,
            value=seen.p99,
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
        return Sample(seen.rate * blob.size / MIB, seen.p50, seen.p99, seen.errors, seen.fault)


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
        return Sample(value, seen.p50, seen.p99, seen.errors, seen.fault)


def mount(server, run: Run) -> Sample:
    """One client that mounts blobs into a repository that has none of them."""
    digests = [blob.digest for blob in run.content.mountable]
    seen = generator.load(
        "mounts", url=server.url, repository=f"bench/mounted-{run.mark}", source=MOUNTABLE,
        digests=digests, clients=1, times=len(digests),
    )  # fmt: skip
    return Sample(seen.rate, seen.p50, seen.p99, seen.errors, seen.fault)


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


def _manifest(reference: str | None) -> Callable[[Content], str]:
    return lambda content: f"/v2/{REPOSITORY}/manifests/{reference or content.manifest_digest}"


def _is_manifest(content: Content, answer: Answer) -> bool:
    return answer.body == content.manifest


def _is_empty(_content: Content, answer: Answer) -> bool:
    return answer.body == b""


def _unless(content: Content) -> dict[str, str]:
    return {**ACCEPT, "If-None-Match": f'"{content.manifest_digest}"'}


def _is_page(after: int) -> Callable[[Content, Answer], bool]:
    """Whether a page of the catalog is right: its length, and what of it is in the long list."""

    def check(content: Content, answer: Answer) -> bool:
        names = answer.json()["repositories"]
        ours = [name for name in names if name.startswith("catalog/")]
        start = content.repositories[after:]
        return len(names) == content.sizes.page and ours == start[: len(ours)] and bool(ours)

    return check


def all_cases(content: Content) -> list[Case]:
    """Every case, named after the sizes it has in this run."""
    sizes = content.sizes
    large = f"{sizes.large // MIB} MiB"
    middle = sizes.repositories // 2
    by_tag = Get(_manifest(TAG), _is_manifest)
    manifests = {
        "manifest GET by tag": by_tag,
        "manifest GET by digest": Get(_manifest(None), _is_manifest),
        "manifest HEAD by tag": Get(_manifest(TAG), _is_empty, method="HEAD"),
        "manifest GET 304": Get(_manifest(TAG), _is_empty, status=304, headers=_unless),
    }
    cases = [
        Case(f"{name}, {number} conn.", "req/s", evolve(get, connections=number))
        for name, get in manifests.items()
        for number in (1, 16)
    ]
    layer = Get(
        lambda content: f"/v2/{REPOSITORY}/blobs/{content.layer.digest}",
        lambda content, answer: answer.body == b"".join(content.layer.parts),
        connections=16,
    )
    tags = Get(
        lambda _content: f"/v2/{TAGGED}/tags/list",
        lambda content, answer: sorted(answer.json()["tags"]) == content.tags,
    )
    first = Get(lambda _content: f"/v2/_catalog?n={sizes.page}", _is_page(0))
    later = Get(
        lambda content: f"/v2/_catalog?n={sizes.page}&last={content.repositories[middle - 1]}",
        _is_page(middle),
    )
    return [
        *cases,
        Case("blob GET 64 KiB, 16 conn.", "req/s", layer),
        Case(f"blob GET {large}, 4 conn.", "MiB/s", Download(4), large=True),
        Case(f"tags list of {sizes.tags}", "req/s", tags, local=True),
        Case(f"catalog n={sizes.page} of {sizes.repositories}", "req/s", first, local=True),
        Case(f"catalog n={sizes.page}, middle page", "req/s", later, local=True),
        Case("cross mount", "req/s", mount),
        Case("push 4 KiB, 1 client", "push/s", Push(4 * KIB, 1), pushes=True),
        Case("push 4 KiB, 8 clients", "push/s", Push(4 * KIB, 8), pushes=True),
        Case(f"push {large}, 1 client", "MiB/s", Push(None, 1), pushes=True),
        Case(f"push {large}, 4 clients", "MiB/s", Push(None, 4), pushes=True),
        Case(
            "manifest GET p99 beside 8 pushes",
            "ms",
            evolve(by_tag, connections=4, beside=True),
            pushes=True,
        ),
        Case("start to first 200", "ms", start, local=True),
        Case("idle memory", "MiB", idle_memory, local=True),
        Case("peak memory", "MiB", peak_memory, local=True),
    ]
