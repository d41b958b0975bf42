"""The cases: each has a name, a unit, and a measurement."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve, frozen

from tests.bench.copies import SKOPEO, CopyIn, CopyOut
from tests.bench.deletes import Delete
from tests.bench.fetches import Fetch
from tests.bench.footprint import Idle, Peak, Start
from tests.bench.pulls import ACCEPT, Download, Get
from tests.bench.pushes import Mount, Push
from tests.bench.seed import CLIENTS, KIB, REPOSITORY, TAG, TAGGED, Content, Part, format_size
from tests.bench.setups import PLAIN, Setup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.bench.kinds import Serves
    from tests.bench.samples import Measure
    from tests.bench.wire import Response

TLS = Setup(tls=True)
ACCESS_LOG = Setup(access_log=True)
GATED = Setup(gated=True)
PASSWORDS = Setup(login="htpasswd")
TOKENS = Setup(login="token")
METRICS = Setup(metrics=True)
NOTIFICATIONS = Setup(notifications=True)
TWO_WORKERS = Setup(workers=2)
REDIRECTED = Setup(bucket="redirected")
STREAMED = Setup(bucket="streamed")
#: Names before the measured pages of the catalog of a bucket.
_SKIPPED_NAMES = 50


@frozen
class Case:
    """One line of the table.

    :ivar unit: the unit of a sample's value; more is better for rates, less for other units.
    :ivar group: the name for ``--group``.
    :ivar setup: the setup of the servers.
    :ivar needs: the parts of the content that it needs.
    :ivar local: whether it needs the server's process or store, and not only its address.
    :ivar pushed: bytes of each push whose fsyncs are counted; 0 for other cases.
    :ivar static: whether a server of plain files can run it.
    :ivar bare: whether a process without content can run it.
    :ivar headline: whether it is in the short table, and not only in the charts.
    """

    name: str
    unit: str
    measure: Measure
    group: str
    setup: Setup = PLAIN
    needs: frozenset[Part] = frozenset({"small"})
    local: bool = False
    pushed: int = 0
    static: bool = False
    bare: bool = False
    headline: bool = False

    def suits(self, serves: Serves, *, local: bool) -> bool:
        """Return whether a server can run the case.

        :param serves: what the server serves.
        :param local: whether its process and store are accessible.
        """
        if serves == "files":
            return self.static
        if serves == "page":
            return self.bare
        return local or not self.local

    @property
    def is_rate(self) -> bool:
        return self.unit.endswith("/s")

    def with_setup(self, setup: Setup, group: str) -> Case:
        """Return the same case with another setup of the servers."""
        return evolve(self, name=f"{self.name}, {setup}", setup=setup, group=group)


def all_cases(content: Content) -> list[Case]:
    """Return every case, with the sizes of this run in its name.

    Cases of one setup are adjacent; peak memory is the last of the plain ones.
    """
    manifests = list(_manifests())
    blobs = list(_blobs(content))
    pushes = list(_pushes(content))
    plain = [*manifests, *blobs, *pushes, *_lists(content), *_copies(), *_footprint()]
    by_name = {case.name: case for case in plain}
    large = format_size(content.sizes.large)
    tag, layer = "manifest GET by tag, 16 conn.", "blob GET 64 KiB, 16 conn."
    big, small = f"blob GET {large}, 4 conn.", "push 4 KiB, 8 clients"
    other_setups: list[tuple[Setup, str, Iterable[str]]] = [
        (ACCESS_LOG, "log", (tag, layer, small)),
        (GATED, "gated", (tag, layer, small)),
        (PASSWORDS, "logins", (tag, layer, small)),
        (TOKENS, "logins", (tag, layer, small)),
        (METRICS, "metrics", (tag, layer, small)),
        (NOTIFICATIONS, "notifications", (tag, layer, "push 4 KiB, 1 client", small)),
        (TLS, "tls", (tag, layer, big, small, f"push {large}, 1 client")),
        (
            TWO_WORKERS,
            "workers",
            (
                *(tag, "manifest GET by tag, 64 conn.", layer, big, small),
                *(f"push {large}, 4 clients", "manifest GET p99 beside 8 pushes"),
            ),
        ),
        (Setup(tls=True, workers=2), "workers", (tag, layer, big)),
    ]
    cases = [
        *plain,
        *(
            by_name[name].with_setup(setup, group)
            for setup, group, names in other_setups
            for name in names
        ),
        *_buckets(content),
    ]
    headline_pulls = (tag, "manifest GET by digest, 16 conn.", layer, big)
    return [evolve(case, headline=_is_headline(case, headline_pulls)) for case in cases]


def _is_headline(case: Case, pulls: Iterable[str]) -> bool:
    if case.group == "s3":
        return True
    if case.setup == PLAIN:
        return case.group not in {"manifests", "blobs"} or case.name in pulls
    return case.name.startswith(tuple(pulls)) and "digest" not in case.name


def _manifests() -> Iterable[Case]:
    kinds = {
        "manifest GET by tag": _by_tag,
        "manifest GET by digest": Get(_manifest(None), _is_manifest),
        "manifest HEAD by tag": evolve(_by_tag, body=_is_empty, method="HEAD"),
        "manifest GET 304": evolve(_by_tag, body=_is_empty, status=304, headers=_if_none_match),
    }
    for name, get in kinds.items():
        for number in (1, 16, 64):
            yield Case(
                f"{name}, {number} conn.",
                "req/s",
                evolve(get, connections=number),
                "manifests",
                static=get.status == 200,
            )


def _blobs(content: Content) -> Iterable[Case]:
    for size in content.layers:
        is_large = size == content.sizes.large
        for number in (1, 4, 16):
            yield Case(
                f"blob GET {format_size(size)}, {number} conn.",
                "MiB/s" if is_large else "req/s",
                Download(number) if is_large else _layer(size, number),
                "blobs",
                needs=frozenset({"large" if is_large else "small"}),
                static=True,
            )


def _pushes(content: Content) -> Iterable[Case]:
    for size, unit in ((4 * KIB, "push/s"), (None, "MiB/s")):
        for number in (1, 4, 8):
            yield Case(
                f"push {format_size(size or content.sizes.large)}, {number} "
                f"client{'s' if number > 1 else ''}",
                unit,
                Push(size, number),
                "pushes",
                needs=frozenset(),
                pushed=size or content.sizes.large,
            )
    yield Case(
        "manifest GET p99 beside 8 pushes",
        "ms",
        evolve(_by_tag, connections=4, with_pushes=True),
        "pushes",
    )
    yield Case("cross mount", "req/s", Mount(), "pushes", needs=frozenset({"mountable"}))


def _lists(content: Content) -> Iterable[Case]:
    sizes = content.sizes
    middle = sizes.repositories // 2
    last = content.repositories[middle - 1]
    lists = {
        f"tags list of {sizes.tags}": Get(
            lambda _content: f"/v2/{TAGGED}/tags/list",
            lambda content, response: sorted(response.json()["tags"]) == content.tags,
        ),
        f"catalog n={sizes.page} of {sizes.repositories}": Get(
            lambda _content: f"/v2/_catalog?n={sizes.page}", _is_page_after(0)
        ),
        f"catalog n={sizes.page}, middle page": Get(
            lambda _content: f"/v2/_catalog?n={sizes.page}&last={last}", _is_page_after(middle)
        ),
    }
    for name, get in lists.items():
        yield Case(name, "req/s", get, "lists", needs=frozenset({"lists"}), local=True)
    yield Case(
        f"DELETE by digest among {sizes.deletable} tags",
        "ms",
        Delete(),
        "lists",
        needs=frozenset({"deletable"}),
        local=True,
    )


def _copies() -> Iterable[Case]:
    if SKOPEO is None:
        return
    yield Case("skopeo copies in", "s", CopyIn(), "copies", needs=frozenset())
    yield Case("skopeo copies out", "s", CopyOut(), "copies", needs=frozenset({"images"}))


def _footprint() -> Iterable[Case]:
    none: frozenset[Part] = frozenset()
    for name, unit, measure in (
        ("start to first 200", "ms", Start()),
        ("idle memory", "MiB", Idle()),
    ):
        yield Case(name, unit, measure, "footprint", needs=none, local=True, bare=True)
    yield Case("peak memory", "MiB", Peak(), "footprint", needs=none, local=True)


def _buckets(content: Content) -> Iterable[Case]:
    sizes = content.sizes
    large, many = format_size(sizes.large), f"{sizes.many} blobs of 4 KiB"
    for setup in (REDIRECTED, STREAMED):
        for name, unit, measure, needs in (
            (f"push of {large}", "MiB/s", Push(None, 1), frozenset()),
            (f"pull of {large}", "MiB/s", Fetch(large=True), frozenset({"large"})),
            (f"push of {many}", "push/s", Push(4 * KIB, CLIENTS, sizes.many), frozenset()),
            (f"pull of {many}", "pull/s", Fetch(large=False), frozenset({"many"})),
        ):
            if name.startswith("pull") or setup == REDIRECTED:
                yield Case(f"{name}, {setup}", unit, measure, "s3", setup, needs)
        if setup == REDIRECTED:
            for size in (100, 10):
                yield Case(
                    f"catalog of a bucket, n={size}", "req/s", _bucket_catalog(size), "s3", setup,
                    frozenset({"bucket catalog"}),
                )  # fmt: skip


def _bucket_catalog(size: int) -> Get:
    """Return a page of the catalog near its start, so that reaching it is quick."""

    def target(content: Content) -> str:
        return f"/v2/_catalog?n={size}&last={content.bucket_repositories[_SKIPPED_NAMES - 1]}"

    def check(content: Content, response: Response) -> bool:
        expected = content.bucket_repositories[_SKIPPED_NAMES : _SKIPPED_NAMES + size]
        return bool(response.json()["repositories"] == expected)

    return Get(target, check)


def _manifest(reference: str | None) -> Callable[[Content], str]:
    return lambda content: f"/v2/{REPOSITORY}/manifests/{reference or content.manifest_digest}"


def _is_manifest(content: Content, response: Response) -> bool:
    return response.body == content.manifest


def _is_empty(_content: Content, response: Response) -> bool:
    return response.body == b""


def _if_none_match(content: Content) -> dict[str, str]:
    return {**ACCEPT, "If-None-Match": f'"{content.manifest_digest}"'}


_by_tag = Get(_manifest(TAG), _is_manifest)


def _layer(size: int, connections: int) -> Get:
    return Get(
        lambda content: f"/v2/{REPOSITORY}/blobs/{content.layers[size].digest}",
        lambda content, response: response.body == b"".join(content.layers[size].parts),
        connections=connections,
    )


def _is_page_after(after: int) -> Callable[[Content, Response], bool]:
    """Return a check of the length and the names of a page of the catalog."""

    def check(content: Content, response: Response) -> bool:
        names = response.json()["repositories"]
        ours = [name for name in names if name.startswith("catalog/")]
        start = content.repositories[after:]
        return len(names) == content.sizes.page and ours == start[: len(ours)] and bool(ours)

    return check
