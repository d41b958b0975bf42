"""The cost of a bearer token for a warm GET of a manifest, in this process, without a client.

``python -m tests.bench.bearers``. The time is from the bytes read to the bytes in the
socket. Two registries get the same requests in turn, one of them with a token that it has seen
before, so that a busy moment affects both. ``python -m tests.bench --group logins`` measures a
whole server under load.
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
    react(lambda _: Deferred.fromCoroutine(measure(rounds)).addCallback(_show))


def _show(times: Times) -> None:
    print(f"{'microseconds (medians)':30}{'without':>9}{'with':>9}    ratio, of the quickest tenth")
    for name, without, with_, tenth in rows(times):
        print(f"{name:30}{without:9.1f}{with_:9.1f}    {with_ / without:5.3f}, {tenth:5.3f}")


def rows(times: Times) -> Iterator[tuple[str, float, float, float]]:
    """Yield for each kind the medians without and with a token in us, and a ratio.

    The ratio is that of the lowest deciles.
    """
    for name, parts in {
        **{name: (name,) for name in (AGAIN, OTHER, FIRST, SECOND)},
        BOTH: (FIRST, SECOND),
    }.items():
        medians, tenths = (
            [
                sum(1e6 * of(times[part, with_token]) for part in parts)
                for with_token in (False, True)
            ]
            for of in (median, lambda values: quantiles(values, n=10)[0])
        )
        yield name, medians[0], medians[1], tenths[1] / tenths[0]


async def measure(rounds: int) -> Times:
    """Measure the given number of requests of each kind; return their times."""
    with tempfile.TemporaryDirectory(prefix="registry-bench-") as folder:
        folders = Path(folder, "open"), Path(folder, "tokens")
        async with (
            serve_image(folders[0], OpenAccess()) as one,
            serve_image(folders[1], token_access()) as other,
        ):
            pair = {False: one, True: other}
            for _ in range(3):
                for with_token, connected in pair.items():
                    for reference in _REFERENCES:
                        await connected.request(
                            _request(reference, with_token=with_token), MANIFEST
                        )
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
        for with_token, connection in pair.items():
            _measure(connection, tag, with_token=with_token)
            times.setdefault((AGAIN, with_token), []).append(
                _measure(connection, tag, with_token=with_token)
            )
            times.setdefault((OTHER, with_token), []).append(
                _measure(connection, digest, with_token=with_token)
            )
            new = SocketConnection(connection.protocol.site)
            times.setdefault((FIRST, with_token), []).append(
                _measure(new, tag, with_token=with_token)
            )
            times.setdefault((SECOND, with_token), []).append(
                _measure(new, tag, with_token=with_token)
            )
            new.close()
            await deferLater(reactor, 0)
    return times


def _measure(connected: SocketConnection, reference: bytes, *, with_token: bool) -> float:
    request = _request(reference, with_token=with_token)
    began = time.perf_counter()
    connected.protocol.dataReceived(request)
    ended = time.perf_counter()
    response = connected.receive()
    assert response.startswith(b"HTTP/1.1 200 "), response
    assert response.endswith(MANIFEST), "the response waits for something"
    return ended - began


def _request(reference: bytes, *, with_token: bool) -> bytes:
    """Return a new bytes object, as from a socket: a literal has a cached hash."""
    line = b"GET /v2/a/b/manifests/%s HTTP/1.1\r\n" % reference
    return line + _FIELDS + (_AUTHORIZATION if with_token else b"") + b"\r\n"


if __name__ == "__main__":
    main(sys.argv[1:])
