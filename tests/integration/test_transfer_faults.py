"""Hundreds of blobs through a store whose connections fail: nothing wrong is stored, nothing leaks.

The registry is a process of its own. A proxy damages the first transfer of every object, and all
attempts for some, in one way at a time. A push is acknowledged or answered with an error of the
specification, and so is a pull, unless bytes are missing at its end. A pull of bytes that were
corrupted behind the store is recognized by its digest, as every client does. Afterwards all blobs
in the bucket are read without the proxy and the registry.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.client import IncompleteRead
from pathlib import Path
from threading import Lock
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4
from zlib import crc32

import pytest
from attrs import define, field, frozen

from tests.integration.faultproxy import LOST, FaultProxy
from tests.integration.images import noise
from tests.integration.impatient_registry import ATTEMPTS
from tests.integration.remote import Remote, UnexpectedResponse
from tests.integration.servers import end, tail
from tests.support.manifests import digest_of
from tests.support.processes import ROOT
from tests.support.s3_servers import BUCKET, client

pytestmark = pytest.mark.integration

KIB, MIB = 1024, 1024 * 1024
CLIENTS = 16
#: Attempts of a client, each of which may end with an error.
CLIENT_ATTEMPTS = 12
#: Growth of memory and of open descriptors after a warm-up, whatever and however often fails.
MAX_GROWTH_BYTES = 48 * MIB
MAX_MORE_DESCRIPTORS = 2 * CLIENTS

#: How data is damaged on its way to the store, and on its way back.
FAULTS = {
    "flipped": ("corrupted upload", "corrupted"),
    "cut": ("reset upload", "reset within"),
    "truncated": ("reset upload", "truncated"),
    "stalled": ("stall upload", "stall within"),
    "500": ("500", "500"),
    "503": ("503", "503"),
    "lost": (LOST, "reset"),
}


@frozen
class Blob:
    """A blob to push: at once, or in chunks of ``step`` bytes."""

    content: bytes = field(repr=False)
    step: int
    digest: str = field(init=False)

    @digest.default
    def _compute_digest(self):
        return digest_of(self.content)


def make_blobs(seed, count):
    """Yield blobs: most are small, some above 256 KiB, some of several parts, some in chunks."""
    for number in range(count):
        size, step = 100 + 37 * number, 0
        if number % 100 == 7:
            size = 11 * MIB + number
        elif number % 100 == 57:
            size, step = 6 * MIB + number, 2 * MIB
        elif number % 20 == 3:
            size = 300 * KIB + number * KIB
        elif number % 50 == 13:
            size, step = 3000 + number, 1000
        yield Blob(noise(f"{seed} {number}", size), step)


@define(eq=False)
class FirstTransfers:
    """Chooses a fault for the first transfer of each object or part, for some every attempt.

    :ivar upload: the fault of requests that write data.
    :ivar download: the fault of requests that read data.
    """

    upload: str
    download: str
    _seen: Counter = field(factory=Counter)
    _lock: Lock = field(factory=Lock)

    def __call__(self, method, path):
        url = urlsplit(path)
        query = parse_qs(url.query)
        is_upload = method in {"PUT", "POST"}
        # Lists and the heads of responses have no digest.
        if method not in {"GET", "PUT", "POST"} or {"list-type", "delete"} & query.keys():
            return None
        resource = f"{method} {url.path} {query.get('partNumber', '')}"
        spread = crc32(resource.encode())
        fault = self.upload if is_upload else self.download
        # Each fault that takes time is injected rarely, and links have faults less often than data.
        is_data = method != "POST" and (url.path.endswith("/data") or "/.data/" in url.path)
        interval = 8 if "stall" in fault else 1 if is_data else 4
        if spread % interval or ("stall" in fault and not is_data):
            return None
        with self._lock:
            seen, self._seen[resource] = self._seen[resource], self._seen[resource] + 1
        return fault if seen < (ATTEMPTS if spread % 40 == 0 else 1) else None


@define(eq=False)
class RegistryOverProxy:
    """The registry as a process, with its store behind a proxy.

    :ivar usage: memory and descriptors after the warm-up.
    :ivar verified: keys of the blobs whose content was read and is right.
    """

    store: object
    root: str
    proxy: FaultProxy
    log: Path
    process: subprocess.Popen
    remote: Remote
    usage: tuple[int, int] = (0, 0)
    verified: set[str] = field(factory=set)

    def measure(self):
        """Return the memory of the process in bytes, and the number of its descriptors."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        descriptors = len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))
        return pages * os.sysconf("SC_PAGE_SIZE"), descriptors

    def verify_blobs(self):
        """Read the new blobs of the bucket: each must have the digest in its key."""
        s3 = client(self.store)
        pages = s3.get_paginator("list_objects_v2").paginate(
            Bucket=BUCKET, Prefix=f"{self.root}/docker/registry/v2/blobs/"
        )
        keys = {each["Key"] for page in pages for each in page.get("Contents", [])}

        def verify(key):
            content = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
            assert key == self.key_of(digest_of(content))
            self.verified.add(key)

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(verify, keys - self.verified))

    def key_of(self, digest):
        algorithm, _, name = digest.partition(":")
        return f"{self.root}/docker/registry/v2/blobs/{algorithm}/{name[:2]}/{name}/data"


@pytest.fixture(scope="module", params=["swift", "ceph"])
def registry(request, object_stores, tmp_path_factory):
    store = object_stores.get(request.param)
    proxy = FaultProxy(store.endpoint)
    log = tmp_path_factory.mktemp("registry") / "log"
    root = f"transfers-{uuid4().hex}"
    module = "tests.integration.impatient_registry"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                module,
                proxy.endpoint,
                store.access_key,
                store.secret_key,
                root,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=ROOT,
            text=True,
        )
    try:
        address = process.stdout.readline().strip()
        assert address, tail(log)
        made = RegistryOverProxy(store, root, proxy, log, process, Remote(address))
        transfer(made, make_blobs("warm-up", 100))
        made.usage = made.measure()
        yield made
    finally:
        end(process)
        process.stdout.close()
        proxy.close()


def push(remote, blob, outcomes):
    """Push a blob until it is acknowledged; every failure must be a clean error."""
    for _ in range(CLIENT_ATTEMPTS):
        try:
            if blob.step:
                remote.push_in_chunks("a", blob.content, blob.step)
            elif len(blob.content) > MIB:
                remote.push_blob("a", blob.content)
            else:
                remote.post_blob("a", blob.content)
        except UnexpectedResponse as error:
            response = error.response
            assert response.status == 503, response
            assert response.json()["errors"][0]["code"] == "UNAVAILABLE", response
            outcomes["push refused"] += 1
        else:
            outcomes["pushed"] += 1
            return
    raise AssertionError(f"never pushed: {blob}")


def pull(remote, blob, outcomes):
    """Pull a blob until its bytes are right; other outcomes must be recognizable."""
    for _ in range(CLIENT_ATTEMPTS):
        try:
            response = remote.blob("a", blob.digest)
        except IncompleteRead:
            outcomes["pull cut"] += 1
            continue
        if response.status != 200:
            assert response.status == 503, response
            assert response.json()["errors"][0]["code"] == "UNAVAILABLE", response
            outcomes["pull refused"] += 1
        elif response.body != blob.content:
            assert len(response.body) == len(blob.content)
            outcomes["pull corrupted"] += 1
        else:
            outcomes["pulled"] += 1
            return
    raise AssertionError(f"never pulled: {blob}")


def transfer(registry, blobs):
    """Push and pull blobs, many at a time; return how often each outcome occurred."""
    outcomes = Counter()

    def push_and_pull(blob):
        push(registry.remote, blob, outcomes)
        pull(registry.remote, blob, outcomes)
        return blob.digest

    with ThreadPoolExecutor(CLIENTS) as threads:
        digests = list(threads.map(push_and_pull, blobs))
    return outcomes, digests


@pytest.mark.parametrize(
    "count", [200, pytest.param(1000, marks=[pytest.mark.nightly, pytest.mark.timeout(1800)])]
)
@pytest.mark.parametrize("fault", FAULTS)
def test_blobs_survive_damaged_transfers(registry, fault, count, record_property):
    registry.proxy.injected.clear()
    registry.proxy.choose = FirstTransfers(*FAULTS[fault])
    try:
        outcomes, digests = transfer(registry, make_blobs(f"{fault} {count}", count))
    finally:
        registry.proxy.choose = lambda *_: None
    injected = Counter(name for name, _, _ in registry.proxy.injected)
    assert {*injected} == {*FAULTS[fault]}
    assert outcomes["pushed"] == outcomes["pulled"] == count
    assert fault == "flipped" or not outcomes["pull corrupted"]

    registry.verify_blobs()
    assert registry.verified >= {registry.key_of(digest) for digest in digests}

    (memory, descriptors), (memory_before, descriptors_before) = registry.measure(), registry.usage
    figures = {
        **outcomes, **injected,
        "more MiB": (memory - memory_before) // MIB,
        "more descriptors": descriptors - descriptors_before,
    }  # fmt: skip
    record_property("figures", figures)
    print(f"{fault}: {figures}")
    assert memory - memory_before < MAX_GROWTH_BYTES, figures
    assert descriptors - descriptors_before < MAX_MORE_DESCRIPTORS, figures
    assert "Traceback" not in registry.log.read_text()
