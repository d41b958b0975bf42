"""Peak memory of the server does not grow with the size of layers.

The data is generated while it is sent: blocks of noise with a number at the start, so that a lost,
doubled or moved block changes the digest.
"""

from __future__ import annotations

import hashlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.request import urlopen

import pytest

from tests.integration.images import noise
from tests.integration.remote import Remote, with_digest
from tests.integration.servers import AGAINST, OURS, Bucket

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.servers import Served

pytestmark = pytest.mark.integration

MIB = 1024 * 1024
#: Upper limit for the peak memory of the server in bytes.
CEILING = 150 * MIB
NOISE = noise("memory", MIB - 16)


def blocks(layer: int, mebibytes: int) -> Iterator[bytes]:
    """Yield the bytes of layer number ``layer``, a MiB at a time."""
    for number in range(mebibytes):
        yield layer.to_bytes(8) + number.to_bytes(8) + NOISE


def digest_of(parts: Iterator[bytes]) -> str:
    """Return the digest of bytes in parts."""
    running = hashlib.sha256()
    for part in parts:
        running.update(part)
    return "sha256:" + running.hexdigest()


def push(served: Served, layer: int, mebibytes: int) -> str:
    """Push a layer as a stream; return its digest."""
    remote = Remote(served.address, timeout_s=600)
    response = remote.request(
        "PATCH",
        remote.start_upload("memory"),
        blocks(layer, mebibytes),
        {"Content-Length": str(mebibytes * MIB), "Content-Type": "application/octet-stream"},
    )
    assert response.status == 202
    digest = digest_of(blocks(layer, mebibytes))
    response = remote.request("PUT", with_digest(response.headers["location"], digest), b"")
    assert response.status == 201
    return digest


def pull(served: Served, digest: str) -> None:
    """Pull a layer as a stream, and check its digest."""
    with urlopen(f"http://{served.address}/v2/memory/blobs/{digest}", timeout=600) as response:
        assert digest_of(iter(lambda: response.read(MIB), b"")) == digest


@pytest.mark.parametrize(
    ("layers", "mebibytes"),
    [
        (1, 256),
        (8, 16),
        pytest.param(1, 4096, marks=[pytest.mark.nightly, pytest.mark.timeout(1800)]),
        pytest.param(50, 100, marks=[pytest.mark.nightly, pytest.mark.timeout(1800)]),
    ],
)
def test_peak_memory_stays_below_the_ceiling(
    launcher, tmp_path, record_property, layers, mebibytes
):
    root = tmp_path / "root"
    served = launcher.start(AGAINST, root)
    idle = served.peak_memory()
    try:
        with ThreadPoolExecutor(layers) as threads:
            digests = list(threads.map(lambda n: push(served, n, mebibytes), range(layers)))
            pushed = served.peak_memory()
            list(threads.map(lambda digest: pull(served, digest), digests))
        peak = served.peak_memory()
    finally:
        served.stop()
        shutil.rmtree(root)
    peaks = {"idle": idle // MIB, "pushed": pushed // MIB, "pulled": peak // MIB}
    record_property("peak_mebibytes", peaks)
    print(f"{layers} x {mebibytes} MiB, the server's peak in MiB: {peaks}")
    assert peak < CEILING, peaks


@pytest.mark.parametrize(
    ("store", "layers", "mebibytes"),
    [
        # More than fit into the memory of uploads, even if each had a tenth of a piece.
        ("ceph", 80, 12),
        # The store is slower than the clients.
        pytest.param("ceph on disk", 8, 1024, marks=[pytest.mark.nightly]),
    ],
)
@pytest.mark.timeout(1800)
def test_peak_memory_stays_below_the_ceiling_over_a_bucket(
    launcher, object_stores, record_property, store, layers, mebibytes
):
    served = launcher.start(OURS, Bucket(object_stores.get(store), "memory"))
    idle = served.peak_memory()
    with ThreadPoolExecutor(layers) as threads:
        digests = list(threads.map(lambda n: push(served, n, mebibytes), range(layers)))
    peak = served.peak_memory()
    peaks = {"idle": idle // MIB, "pushed": peak // MIB}
    record_property("peak_mebibytes", peaks)
    print(f"{layers} x {mebibytes} MiB into a bucket, the server's peak in MiB: {peaks}")
    pull(served, digests[-1])
    # Killed, because its log may rightly have errors about an overloaded store.
    served.kill()
    assert peak < CEILING, peaks
