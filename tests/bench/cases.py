"""What is measured: each case is a name, a unit, and a function that makes one sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve, frozen
from samples import (
    ACCEPT,
    Download,
    Get,
    Push,
    Run,
    Sample,
    idle_memory,
    mount,
    peak_memory,
    start,
)
from seed import KIB, REPOSITORY, TAG, TAGGED, Content
from wire import MIB, Answer

if TYPE_CHECKING:
    from collections.abc import Callable


@frozen
class Case:
    """One line of the table.

    :param unit: of a sample's value; a rate is better the larger it is, all else the smaller.
    :param local: whether it needs the server's process or store, not only its address.
    :param pushes: whether the fsyncs of a push belong beside it.
    :param large: whether it needs the large blob.
    :param static: whether a server of plain files can do it.
    """

    name: str
    unit: str
    sample: Callable[[object, Run], Sample]
    local: bool = False
    pushes: bool = False
    large: bool = False
    static: bool = False

    def suits(self, server) -> bool:
        """Whether the case can be run at this server."""
        if server.is_static:
            return self.static
        return server.store is not None or not self.local

    @property
    def is_rate(self) -> bool:
        return self.unit.endswith("/s")


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
        Case(
            f"{name}, {number} conn.",
            "req/s",
            evolve(get, connections=number),
            static=get.status == 200,
        )
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
        Case("blob GET 64 KiB, 16 conn.", "req/s", layer, static=True),
        Case(f"blob GET {large}, 4 conn.", "MiB/s", Download(4), large=True, static=True),
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
