"""Cost of warm requests: ``python -m tests.bench.calls``.

Prints for each request how many Python functions one makes, and the least processor time of one in
microseconds, over a registry with files in this process. The number of calls does not depend on
how busy the machine is. The time includes the client's end of the connection.
"""

from __future__ import annotations

import gc
import sys
import tempfile
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen
from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock, react

from tests.support.manifests import digest_of
from tests.support.passwords import password_lines
from tests.support.served_image import BLOB, IMAGE, SocketConnection, serve_image
from tests.support.tokens import (
    ISSUER,
    REALM,
    SERVICE,
    claims,
    jwk,
    jwks,
    key,
    make_signer,
    mint,
)
from twisted_registry.auth.access import OpenAccess, SchemeAccess
from twisted_registry.auth.basic import make_basic_scheme
from twisted_registry.auth.bearer import Bearer, TokenVerifier
from twisted_registry.auth.keys import make_keyring
from twisted_registry.auth.password_file import PasswordFile
from twisted_registry.auth.rules import AccessPolicy, AccessRule, Right
from twisted_registry.auth.scopes import ResourceActions, Scope
from twisted_registry.storage.memory import MemoryDriver
from twisted_registry.tokens.logins import Authenticator, Realm, TokenScheme
from twisted_registry.tokens.records import TokenStore
from twisted_registry.tokens.signing import TokenClaims

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

#: Requests in one measurement of time; the clock is too coarse for one.
_BATCH_REQUESTS = 50
_UPLOAD = b"u" * 4096


@frozen
class Cost:
    """The cost of one request.

    :ivar calls: of Python functions, those of Twisted and of the standard library among them.
    :ivar cpu_us: processor time in microseconds.
    """

    request: str
    calls: int
    cpu_us: float


def main(arguments: list[str]) -> None:
    """Measure and print a table."""
    parser = ArgumentParser(prog="python -m tests.bench.calls", description=__doc__)
    parser.add_argument("--batches", type=int, default=40, help="of 50 requests each (%(default)s)")
    options = parser.parse_args(arguments)

    async def run(_: object) -> None:
        print(f"{'request':<32}{'calls':>8}{'CPU us':>10}")
        async for cost in measure(options.batches):
            print(f"{cost.request:<32}{cost.calls:>8}{cost.cpu_us:>10.1f}", flush=True)

    react(lambda _: Deferred.fromCoroutine(run(_)))


async def measure(batches: int) -> AsyncIterator[Cost]:
    """Measure each request.

    :param batches: how many times of 50 requests to take the least of.
    """
    with tempfile.TemporaryDirectory(prefix="registry-calls-") as folder:
        for name, access, headers in (
            ("", OpenAccess(), b""),
            (", token", _token_access(), _token_header()),
            (", own token", *await _own_token(Path(folder, "users"))),
        ):
            place = Path(folder, name or "open")
            async with serve_image(place, access) as connection:
                for request, line, ending in _PULLS:
                    head = line + b" HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n" + headers + b"\r\n"
                    for _ in range(3):
                        await connection.request(head, ending)
                    yield await _measure_pull(request + name, connection, head, ending, batches)
        async with serve_image(Path(folder, "upload"), OpenAccess()) as connection:
            yield await _measure_upload(connection, batches)


_MANIFEST = IMAGE.manifest.read()
_PULLS = (
    ("manifest GET by tag", b"GET /v2/a/b/manifests/latest", _MANIFEST),
    ("manifest GET by digest", f"GET /v2/a/b/manifests/{IMAGE.digest}".encode(), _MANIFEST),
    ("manifest HEAD by tag", b"HEAD /v2/a/b/manifests/latest", b"\r\n\r\n"),
    ("blob GET", f"GET /v2/a/b/blobs/{digest_of(BLOB)}".encode(), BLOB),
    ("blob HEAD", f"HEAD /v2/a/b/blobs/{digest_of(BLOB)}".encode(), b"\r\n\r\n"),
)


async def _measure_pull(
    name: str, connection: SocketConnection, head: bytes, ending: bytes, batches: int
) -> Cost:
    """Measure a request whose response is sent before ``dataReceived`` returns."""

    def request() -> None:
        # New bytes each time, as from a socket: those of a literal have cached their hash.
        connection.protocol.dataReceived(bytes(bytearray(head)))

    calls = count_calls(request)
    assert connection.receive().endswith(ending), "the response waits for something"
    best = float("inf")
    gc.collect()
    gc.disable()
    try:
        for _ in range(batches):
            began = time.process_time()
            for _ in range(_BATCH_REQUESTS):
                request()
                connection.receive()
            best = min(best, time.process_time() - began)
    finally:
        gc.enable()
    return Cost(name, calls, 1e6 * best / _BATCH_REQUESTS)


async def _measure_upload(connection: SocketConnection, batches: int) -> Cost:
    """Measure the PUT that brings and closes an upload; its threads and the reactor count too."""
    counts, times = [], []
    for number in range(10 + batches):
        content = b"%d" % number + _UPLOAD
        start = await connection.request(
            b"POST /v2/a/b/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
            b"\r\n\r\n",
            0.0,
        )
        (location,) = (
            line.partition(b": ")[2]
            for line in start.split(b"\r\n")
            if line.startswith(b"Location: ")
        )
        target = location.partition(b"//x")[2] + b"&digest=" + digest_of(content).encode()
        put = b"PUT %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (
            target,
            len(content),
            content,
        )
        began, names = time.process_time(), []
        if number < 10:
            sys.setprofile(_profiler(names))
        try:
            response = await connection.request(put, b"\r\n\r\n", 0.0)
        finally:
            sys.setprofile(None)
        assert response.startswith(b"HTTP/1.1 201 "), response
        if number < 10:
            counts.append(len(names))
        else:
            times.append(time.process_time() - began)
    return Cost("upload PUT of 4 KiB", min(counts), 1e6 * min(times))


def count_calls(function: Callable[[], object]) -> int:
    """Count the Python functions that ``function()`` calls, itself included."""
    names: list[str] = []
    sys.setprofile(_profiler(names))
    try:
        function()
    finally:
        sys.setprofile(None)
    return len(names)


def _profiler(names: list[str]) -> Callable[[object, str, object], None]:
    def note(frame: object, event: str, _: object) -> None:
        if event == "call":
            names.append(frame.f_code.co_qualname)  # type: ignore[attr-defined]

    return note


def _token_header() -> bytes:
    """Return the line of an Authorization header with a valid token."""
    token = mint(key("P-256"), "ES256", claims(reactor.seconds()), kid="k")
    return f"Authorization: Bearer {token}\r\n".encode()


def _token_access() -> SchemeAccess:
    """Return an access controller that verifies tokens and applies a rule."""
    keys = make_keyring(None, jwks(jwk(key("P-256"), kid="k")))
    verifier = TokenVerifier(ISSUER, SERVICE, keys, reactor.seconds, frozenset({"ES256"}))
    right = Right.make(["a/**", "!a/c"], ["push"])
    return SchemeAccess(
        Bearer(REALM, verifier, reactor), AccessPolicy((AccessRule(right, frozenset({"me"})),))
    )


async def _own_token(users: Path) -> tuple[SchemeAccess, bytes]:
    """Return a controller for the registry's own tokens, and the line with a valid token.

    :param users: the file of users.
    """
    users.write_bytes(password_lines(me="secret"))  # noqa: ASYNC240 - before the measurement
    # A clock that stands still: otherwise the keys are read again every few seconds.
    clock = Clock()
    clock.advance(reactor.seconds() + 1)
    file = PasswordFile(str(users), maybeDeferred, clock)
    signer = make_signer(clock)
    authenticator = Authenticator(
        make_basic_scheme("here", file, clock), TokenStore(MemoryDriver(clock), clock)
    )
    scheme = TokenScheme(Realm(), "here", signer, authenticator, clock)
    access = SchemeAccess(
        scheme, AccessPolicy((AccessRule(Right.make(["a/**"], ["push"]), frozenset({"me"})),))
    )
    scope = Scope((ResourceActions("repository", "a/b", ("pull",)),))
    account = await file.account_version("me")
    assert account is not None
    token = await signer.sign(TokenClaims("me", scope, account))
    return access, f"Authorization: Bearer {token}\r\n".encode()


if __name__ == "__main__":
    main(sys.argv[1:])
