"""Random and mutated requests on the sockets of a registry that serves.

    python -m tests.fuzz.fuzz_registry --count 100000 --seed 1

Unlike :mod:`tests.fuzz.fuzz_connection` this fuzzes the whole registry: what the mutated bytes ask
for is looked up, stored and deleted. These properties must hold:

- no response is 5xx, but 501 and 505 of requests that are no HTTP/1.1;
- every connection is closed soon after the client has sent its last byte;
- nothing is logged as an error, and there is no traceback;
- descriptors, threads, objects, memory and unfinished uploads do not grow once caches are full;
- a client with a proper request is answered afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import define, field, frozen

from tests.fuzz.fuzz_inputs import load_corpus, make_request, mutate
from tests.support.held_objects import SERVE_COUNTED, Held, count_held
from tests.support.manifests import OCI_IMAGE, OCI_INDEX, digest_of, image, index
from tests.support.passwords import basic_header, password_lines
from tests.support.process_usage import Usage, count_uploads, growth, usage
from tests.support.processes import RegistryProcess, write_configuration

if TYPE_CHECKING:
    from collections.abc import Sequence

CONFIGURATION = """\
version: 0.1
storage:
  filesystem: {{rootdirectory: {root}}}
  delete: {{enabled: true}}
  cache: {{manifestbytes: 1MiB}}
  maintenance:
    uploadpurging: {{enabled: true, age: 2s, interval: 1s, dryrun: false}}
    gc: {{enabled: true, interval: 5s, grace: 5s}}
http:
  addr: "{addr}"
  secret: do-not-tell
  trustedproxies: [127.0.0.1]
auth:
  htpasswd: {{realm: here, path: {root}-users}}
access:
  anonymous: [pull, push, delete]
  authenticated: [push, delete]
  tokens: {{}}
"""
UPLOAD_AGE_S = 2
#: The connection must be closed this long after the client's last byte, in seconds.
MAX_OPEN_S = 20
#: The share of the inputs that is sent before growth is measured.
WARM_UP = 1 / 3
#: The growth of memory that is no leak: holes between blocks, and what the allocator keeps for each
#: thread.
MAX_MEMORY_KIB = 4096
#: Pools grow up to a thread for each client when the machine is busy, and so does what is open.
MAX_FILES, MAX_THREADS = 40, 40
#: From this number of inputs on, the caches of paths are filled first; more than they hold.
LONG, CACHED_PATHS = 10_000, 20_000
#: The growth of blocks for each input that is no leak. Caches fill during the whole of a short run.
MAX_BLOCKS_LONG, MAX_BLOCKS_SHORT = 0.1, 20.0
SAMPLE_EVERY, PROGRESS_EVERY = 250, 10_000

NAMES = ["a", "a/b", "team/app", "A", "a//b", "_catalog", "a" * 250, "..", "%2e%2e", "a%2Fb", "é"]
BLOB = b"blob"
CONFIG = b"{}"
DIGESTS = [
    digest_of(BLOB), digest_of(CONFIG), digest_of(b"absent"), digest_of(b"x", "sha512"),
    "sha256:", "sha256:" + "0" * 63, "md5:" + "0" * 32, "sha256:" + "G" * 64, "tag", "t" * 129,
]  # fmt: skip
#: Replaced by an upload that the registry has begun.
UPLOAD = "00000000-0000-4000-8000-000000000000"
QUERIES = [
    "", "", "?n=1", "?n=0", "?n=-1", "?n=" + "9" * 30, "?n=1&last=a", "?last=%ff", "?last=~AAAA",
    f"?digest={digest_of(BLOB)}", f"?digest={digest_of(CONFIG)}", "?digest=", "?mount=x&from=a",
    f"?mount={digest_of(BLOB)}&from=a", "?digest-algorithm=sha512", "?artifactType=a/b",
    "?_state=AAAA", "?" + "a=b&" * 200, "?%", "?tag=1&tag=2", "?scope=repository:a:pull,push",
    "?service=x&scope=repository:a/b:*&offline_token=true", "?scope=" + "x" * 3000,
]  # fmt: skip
FIELDS = [
    "Range: bytes=0-1", "Range: bytes=-1", "Range: bytes=9-1", "Range: bytes=" + "0-1," * 300,
    "Range: bytes=99999999999999999999-", "Content-Range: 0-3", "Content-Range: 5-1",
    "Content-Range: bytes 0-3/4", 'If-None-Match: "x"', "If-None-Match: *", "If-Match: *",
    "Authorization: Basic !", "Authorization: Basic " + "A" * 4000, "Authorization: Bearer x.y.z",
    "Authorization: Bearer eyJhbGciOiJub25lIn0.e30.", "Authorization: \xff", "Accept: */*",
    "Accept: " + "a/b;q=0.1," * 200, "X-Forwarded-For: 1.2.3.4, x", "X-Forwarded-Host: \xff",
    "X-Forwarded-Proto: gopher", 'Forwarded: for="[::1]";host="', "Forwarded: " + "for=a;" * 500,
    "Expect: 100-continue", "Expect: 200-ok", "Connection: close", "If-Range: x", "Cookie: a",
]  # fmt: skip
TYPES = [OCI_IMAGE, OCI_INDEX, "application/json", "text/html", "a", "\xff/\xff"]
MANIFESTS = [
    image(CONFIG, BLOB), image(CONFIG, BLOB, media_type=None), index(), b"[]", b"null", b"1", b"",
    b'{"schemaVersion": 2, "schemaVersion": 1}', b'{"a":' * 500, b"[" * 5000, b'{"a": 1e999999}',
    b'{"a": ' + b"9" * 5000 + b"}", b'{"a": "\xff"}', b'{"a": "\\ud800"}', b"\x00" * 100,
    json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [{}] * 50}).encode(),
]  # fmt: skip
FORMS = [
    b"grant_type=password&username=ada&password=wrong", b"grant_type=password",
    b"grant_type=refresh_token&refresh_token=twr_x", b"grant_type=\xff", b"a=b&" * 300, b"%",
    b"grant_type=urn:ietf:params:oauth:grant-type:token-exchange&subject_token=a.b.c",
]  # fmt: skip


def make_api_request(rng: random.Random) -> bytes:
    """Return a request for an endpoint of the API, with parts that are wrong now and then."""
    name, digest = rng.choice(NAMES[:3] if rng.random() < 0.6 else NAMES), rng.choice(DIGESTS)
    method, target, body = rng.choice(
        [
            ("GET", "/v2/", b""),
            ("GET", "/v2/_catalog", b""),
            ("GET", f"/v2/{name}/tags/list", b""),
            ("GET", f"/v2/{name}/manifests/{digest}", b""),
            ("PUT", f"/v2/{name}/manifests/{digest}", rng.choice(MANIFESTS)),
            ("PUT", f"/v2/{name}/manifests/latest", rng.choice(MANIFESTS)),
            ("DELETE", f"/v2/{name}/manifests/{digest}", b""),
            ("GET", f"/v2/{name}/blobs/{digest}", b""),
            ("DELETE", f"/v2/{name}/blobs/{digest}", b""),
            ("POST", f"/v2/{name}/blobs/uploads/", rng.choice([b"", BLOB, CONFIG])),
            ("PATCH", f"/v2/{name}/blobs/uploads/{UPLOAD}", BLOB),
            ("PUT", f"/v2/{name}/blobs/uploads/{UPLOAD}", BLOB),
            ("GET", f"/v2/{name}/referrers/{digest}", b""),
            ("GET", f"/v2/{name}/_oci/ext/discover", b""),
            ("DELETE", f"/v2/_repository/{name}", b""),
            ("GET", "/auth/token", b""),
            ("POST", "/auth/token", rng.choice(FORMS)),
            (
                "GET",
                rng.choice(["/", "/livez", "/readyz", "/ca.crt", "/v2", "/v2/..", "//v2//"]),
                b"",
            ),
        ]
    )
    if rng.random() < 0.1:
        method = rng.choice(["HEAD", "OPTIONS", "TRACE", "CONNECT", "get", "PROPFIND", "M" * 40])
    kind = "application/x-www-form-urlencoded" if target == "/auth/token" else rng.choice(TYPES)
    fields = ["Host: x", f"Content-Type: {kind}"]
    if rng.random() < 0.1:
        fields.append(f"Authorization: {basic_header('ada', rng.choice(['right', 'wrong']))}")
    fields += rng.sample(FIELDS, rng.choice([0, 0, 1, 1, 2, 4]))
    if rng.random() < 0.3:
        fields.append("Transfer-Encoding: chunked")
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
    elif body or rng.random() < 0.5:
        fields.append(f"Content-Length: {len(body)}")
    line = f"{method} {target}{rng.choice(QUERIES)} HTTP/1.1"
    return "\r\n".join([line, *fields]).encode("latin-1") + b"\r\n\r\n" + body


def make_input(rng: random.Random, corpus: list[bytes]) -> bytes:
    """Return what one client sends: mostly requests of the API, with a few changes."""
    kind = rng.random()
    if kind < 0.4:
        return make_api_request(rng)
    if kind < 0.8:
        requests = [make_api_request(rng) for _ in range(rng.choice([1, 1, 1, 2, 3]))]
        return mutate(rng, b"".join(requests))
    if kind < 0.9:
        return mutate(rng, make_request(rng))
    if kind < 0.98:
        return mutate(rng, rng.choice(corpus))
    return rng.randbytes(rng.choice([1, 10, 100, 1000, 20_000]))


_LOCATION = re.compile(rb"/v2/([a-z/]+)/blobs/uploads/([0-9a-f-]{36})\?(_state=[A-Za-z0-9_=-]+)")
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) [A-Za-z ]+\r\n")
#: Of requests with a transfer coding or a version that the registry does not know.
_REFUSALS = {b"501", b"505"}


@define(eq=False)
class Fuzzing:
    """One run.

    :ivar statuses: how many responses had each status.
    :ivar problems: what was found.
    :ivar memory_kib: times and sizes of the process.
    """

    registry: RegistryProcess
    rng: random.Random
    statuses: Counter[bytes] = field(factory=Counter)
    problems: list[str] = field(factory=list)
    memory_kib: list[tuple[float, float]] = field(factory=list)
    _sent: int = field(init=False, default=0)
    _count: int = field(init=False, default=0)
    _upload: tuple[bytes, bytes, bytes] | None = field(init=False, default=None)
    _corpus: list[bytes] = field(init=False, factory=load_corpus)

    async def send(self, count: int, clients: int) -> None:
        """Send so many more inputs with several clients at a time."""
        self._count += count
        await asyncio.gather(*[self._client() for _ in range(clients)])

    async def _client(self) -> None:
        while self._sent < self._count and len(self.problems) < 20:
            self._sent += 1
            number = self._sent
            data = self._with_upload(make_input(self.rng, self._corpus))
            try:
                received = await self._exchange(data)
            except TimeoutError:
                self.problems.append(f"the connection stays open after {data!r}")
                continue
            if location := _LOCATION.search(received):
                self._upload = location[1], location[2], location[3]
            statuses = _STATUS.findall(received)
            self.statuses.update(statuses or [b"closed"])
            wrong = [status for status in statuses if status >= b"500" and status not in _REFUSALS]
            if wrong:
                self.problems.append(f"{wrong} for {data!r}: {received[:500]!r}")
            if number % SAMPLE_EVERY == 0:
                now = usage(self.registry.process.pid)
                self.memory_kib.append((time.monotonic(), now.memory_kib))
                if number % PROGRESS_EVERY == 0:
                    print(f"{number} inputs: {now}", flush=True)

    def _with_upload(self, data: bytes) -> bytes:
        """Replace the upload of a request by one that the registry has begun."""
        if self._upload is None:
            return data
        name, upload, state = self._upload
        path = b"%b/blobs/uploads/%b" % (name, upload)
        for placeholder in (
            b"%b/blobs/uploads/%b" % (each.encode(), UPLOAD.encode()) for each in NAMES
        ):
            data = data.replace(placeholder + b"?", b"%b?%b&" % (path, state))
            data = data.replace(placeholder + b" ", b"%b?%b " % (path, state))
        return data

    async def _exchange(self, data: bytes) -> bytes:
        """Send bytes in pieces, and return all that is received; a few clients do not wait."""
        leaves = self.rng.random() < 0.05
        reader, writer = await asyncio.open_connection("127.0.0.1", self.registry.port)
        received = b""
        try:
            cut = self.rng.randint(0, len(data))
            with suppress(ConnectionError):
                writer.write(data[:cut])
                await writer.drain()
                writer.write(data[cut:])
                if leaves:
                    return b""
                writer.write_eof()
                async with asyncio.timeout(MAX_OPEN_S):
                    while piece := await reader.read(1 << 16):
                        received += piece
        finally:
            writer.transport.abort()
        return received


@frozen
class Sample:
    """What the registry holds while no client is connected.

    :ivar uploads: unfinished uploads in the store.
    """

    usage: Usage
    held: Held
    uploads: int


def fuzz(
    folder: Path,
    count: int,
    seed: int,
    clients: int = 32,
    command: Sequence[str] = SERVE_COUNTED,
) -> Fuzzing:
    """Serve a registry, send it inputs, and return what was found.

    :param count: the number of inputs; each is sent on a connection of its own.
    :param command: starts the registry; the name of the configuration file is added.
    """
    (folder / "store-users").write_bytes(password_lines(ada="right"))
    path = write_configuration(folder, CONFIGURATION)
    with RegistryProcess(*command, path, cwd=folder) as registry:
        _push_image(registry)
        if count > LONG:
            _fill_caches(registry)
        fuzzing = Fuzzing(registry, random.Random(seed))
        warm_up = int(count * WARM_UP)
        asyncio.run(fuzzing.send(warm_up, clients))
        before = _sample(registry, folder / "store")
        fuzzing.memory_kib.clear()
        asyncio.run(fuzzing.send(count - warm_up, clients))
        after = _sample(registry, folder / "store")
        _push_image(registry)
        status, _, lines = registry.stop()
    problems = fuzzing.problems
    problems += [line for line in lines if "Traceback" in line or "level=error" in line]
    if status:
        problems.append(f"the registry ended with {status}")
    max_blocks = (MAX_BLOCKS_LONG if count > LONG else MAX_BLOCKS_SHORT) * (count - warm_up)
    problems += find_growth(before, after, max_blocks)
    if len(fuzzing.memory_kib) > 1:
        problems += find_memory_growth(fuzzing.memory_kib)
    return fuzzing


def _sample(registry: RegistryProcess, store: Path) -> Sample:
    """Wait until the registry has dropped connections and uploads, or should have; count."""
    end = time.monotonic() + 15 * UPLOAD_AGE_S
    while True:
        now, uploads = usage(registry.process.pid), count_uploads(store, NAMES[:3])
        if (now.connections == 1 and not uploads) or time.monotonic() > end:
            return Sample(now, count_held(registry), uploads)
        time.sleep(0.5)


def find_growth(before: Sample, after: Sample, max_blocks: float) -> list[str]:
    """Return what was left, or grew between two samples.

    :param max_blocks: by how much the number of blocks may grow.
    """
    problems = []
    then, now = before.usage, after.usage
    if after.uploads:
        problems.append(f"{after.uploads} uploads were left")
    # The other one listens.
    if now.connections > 1:
        problems.append(f"{now.connections - 1} connections were left")
    more = (after.held.kinds - before.held.kinds).most_common(10)
    kinds = ", ".join(f"{number} {kind}" for kind, number in more)
    for name, grown, limit in (
        ("files", now.files - then.files, MAX_FILES),
        ("threads", now.threads - then.threads, MAX_THREADS),
        (f"blocks, among them {kinds}", after.held.blocks - before.held.blocks, max_blocks),
    ):
        line = f"{grown} more {name}; the limit is {limit:.0f}"
        print(line)
        if grown > limit:
            problems.append(line)
    return problems


def find_memory_growth(memory_kib: Sequence[tuple[float, float]]) -> list[str]:
    """Return whether the memory of the process grew.

    :param memory_kib: times and sizes.
    """
    grown = growth(memory_kib)
    tenths = [round(value / 1024, 1) for _, value in memory_kib[:: max(1, len(memory_kib) // 10)]]
    print(f"memory in MiB: {tenths}; growth {grown / 1024:+.2f} MiB")
    if grown > MAX_MEMORY_KIB:
        return [f"memory grew by {grown:.0f} KiB; the limit is {MAX_MEMORY_KIB}"]
    return []


def _fill_caches(registry: RegistryProcess) -> None:
    """Ask for so many paths that the caches of paths are full: what grows afterwards is a leak."""
    with closing(registry.connection()) as connection:
        for number in range(CACHED_PATHS):
            connection.request("GET", f"/v2/{'a' * 200}/manifests/{number}")
            response = connection.getresponse()
            response.read()
            assert response.status == 404


def _push_image(registry: RegistryProcess) -> None:
    """Push and pull an image as a proper client does."""
    for blob in (BLOB, CONFIG):
        target = f"/v2/a/blobs/uploads/?digest={digest_of(blob)}"
        assert registry.ask("POST", target, blob)[0].status == 201
    content = image(CONFIG, BLOB)
    kind = {"Content-Type": OCI_IMAGE}
    assert registry.ask("PUT", "/v2/a/manifests/proper", content, kind)[0].status == 201
    response, body = registry.ask("GET", "/v2/a/manifests/proper")
    assert (response.status, body) == (200, content)


def main(arguments: list[str] | None = None) -> int:
    """Fuzz; return 1 if something was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        fuzzing = fuzz(Path(folder), options.count, options.seed)
    statuses = {status.decode(): number for status, number in sorted(fuzzing.statuses.items())}
    print(f"{options.count} inputs in {time.monotonic() - begun:.0f} s: {statuses}")
    print("\n".join(fuzzing.problems) or "nothing found")
    return 1 if fuzzing.problems else 0


if __name__ == "__main__":
    sys.exit(main())
