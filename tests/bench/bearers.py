"""The cost of a bearer token for a warm GET of a manifest, in this process, without a client.

``python -m tests.bench.bearers``. The time is from the bytes read to the bytes in the
socket. Two registries get the same requests in turn, one of them with a token that it has seen
before, so that a busy moment meets both alike. A whole server under load is what ``--group logins``
of ``python -m bench`` measures.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react

from tests.bench.calls import token_access, token_header
from tests.support.manifests import digest_of
from tests.support.served_image import MANIFEST, SocketConnection, serve_image
from twisted_registry.auth.access import OpenAccess

if TYPE_CHECKING:
    from collections.abc import Iterator

AGAIN, OTHER = "the same request again", "another request"
FIRST, SECOND = "the first of a connection", "the second of a connection"
BOTH = "the first two of a connection"
#: Other headers of clients.
_FIELDS = (
    b"Host: registry.example.com\r\nUser-Agent: containers/5.36 (github.com/containers/image)\r\n"
    b"Accept: application/vnd.oci.image.manifest.v1+json\r\n"
)
_AUTHORIZATION = token_header()
_REFERENCES = (b"latest", digest_of(MANIFEST).encode())
#: kind of request, whether with a token -> seconds
Times = dict[tuple[str, bool], list[float]]


def main(arguments: list[str]) -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="tests.bench.bearers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3000, help="of each kind (3000)")
    rounds = parser.parse_args(arguments).rounds
    react(lambda _: Deferred.fromCoroutine(measured(rounds)).addCallback(_show))


def _show(times: Times) -> None:
    print(f"{'microseconds (medians)':30}{'without':>9}{'with':>9}    ratio, of the quickest tenth")
    for name, without, with_, tenth in rows(times):
        print(f"{name:30}{without:9.1f}{with_:9.1f}    {with_ / without:5.3f}, {tenth:5.3f}")


def rows(times: Times) -> Iterator[tuple[str, float, float, float]]:
    """For each kind: both medians in us, without a token first, and the ratio of the tenths."""
    for name, parts in {
        **{name: (name,) for name in (AGAIN, OTHER, FIRST, SECOND)},
        BOTH: (FIRST, SECOND),
    }.items():
        medians, tenths = (
            [sum(1e6 * of(times[part, shows]) for part in parts) for shows in (False, True)]
            for of in (median, lambda values: quantiles(values, n=10)[0])
        )
        yield name, medians[0], medians[1], tenths[1] / tenths[0]


async def measured(rounds: int) -> Times:
    """Measure the given number of requests of each kind; return their times."""
    with tempfile.TemporaryDirectory(prefix="registry-bench-") as folder:
        places = Path(folder, "open"), Path(folder, "tokens")
        async with (
            serve_image(places[0], OpenAccess()) as one,
            serve_image(places[1], token_access()) as other,
        ):
            pair = {False: one, True: other}
            for _ in range(3):
                for shows, connected in pair.items():
                    for reference in _REFERENCES:
                        await connected.request(_request(reference, shows=shows), MANIFEST)
            gc.collect()
            gc.disable()
            try:
                return await _times(pair, rounds)
            finally:
                gc.enable()


async def _times(pair: dict[bool, SocketConnection], rounds: int) -> Times:
    times: Times = {}
    tag, digest = _REFERENCES
    for _ in range(rounds):
        for shows, kept in pair.items():
            _timed(kept, tag, shows=shows)
            times.setdefault((AGAIN, shows), []).append(_timed(kept, tag, shows=shows))
            times.setdefault((OTHER, shows), []).append(_timed(kept, digest, shows=shows))
            new = SocketConnection(kept.protocol.site)
            times.setdefault((FIRST, shows), []).append(_timed(new, tag, shows=shows))
            times.setdefault((SECOND, shows), []).append(_timed(new, tag, shows=shows))
            new.close()
            await deferLater(reactor, 0)
    return times


def _timed(connected: SocketConnection, reference: bytes, *, shows: bool) -> float:
    request = _request(reference, shows=shows)
    began = time.perf_counter()
    connected.protocol.dataReceived(request)
    ended = time.perf_counter()
    answer = connected.receive()
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    assert answer.endswith(MANIFEST), "it waited for something"
    return ended - began


def _request(reference: bytes, *, shows: bool) -> bytes:
    """Return a new bytes object, as from a socket: a literal has a cached hash."""
    line = b"GET /v2/a/b/manifests/%s HTTP/1.1\r\n" % reference
    return line + _FIELDS + (_AUTHORIZATION if shows else b"") + b"\r\n"


if __name__ == "__main__":
    main(sys.argv[1:])
