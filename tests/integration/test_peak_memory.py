"""Layers of any size pass through the server without resting in its memory.

The data are made while they are sent: a block of noise with its number in front, so that a
block lost, doubled or moved shows in the digest.
"""

from __future__ import annotations

import hashlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest

from tests.integration.images import noise
from tests.integration.remote import with_digest
from tests.integration.servers import AGAINST, OURS, Bucket

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.servers import Served

pytestmark = pytest.mark.integration

MIB = 1024 * 1024
#: What the server may use at its peak, in bytes.
CEILING = 150 * MIB
NOISE = noise("memory", MIB - 16)


def blocks(layer: int, mebibytes: int) -> Iterator[bytes]:
    """The bytes of layer number ``layer``, a MiB at a time."""
    for number in range(mebibytes):
        yield layer.to_bytes(8) + number.to_bytes(8) + NOISE


def digest_of(parts: Iterator[bytes]) -> str:
    """The digest of bytes that come in parts."""
    running = hashlib.sha256()
    for part in parts:
        running.update(part)
    return "sha256:" + running.hexdigest()


def push(served: Served, layer: int, mebibytes: int) -> str:
    """Stream a layer up; answers its digest."""
    location = served.remote.start_upload("memory")
    split = urlsplit(location)
    connection = HTTPConnection(served.address, timeout=600)
    try:
        connection.request(
            "PATCH",
            f"{split.path}?{split.query}",
            blocks(layer, mebibytes),
            {
                "Content-Length": str(mebibytes * MIB),
                "Content-Type": "application/octet-stream",
            },
        )
        response = connection.getresponse()
        response.read()
        assert response.status == 202
        location = response.headers["Location"]
    finally:
        connection.close()
    digest = digest_of(blocks(layer, mebibytes))
    split = urlsplit(with_digest(location, digest))
    connection = HTTPConnection(served.address, timeout=600)
    try:
        connection.request("PUT", f"{split.path}?{split.query}", b"")
        assert connection.getresponse().status == 201
    finally:
        connection.close()
    return digest


def pull(served: Served, digest: str) -> None:
    """Stream a layer down; its digest must be right."""
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
    shown = {"idle": idle // MIB, "pushed": pushed // MIB, "pulled": peak // MIB}
    record_property("peak_mebibytes", shown)
    print(f"{layers} x {mebibytes} MiB, the server's peak in MiB: {shown}")
    assert peak < CEILING, shown


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_peak_memory_stays_below_the_ceiling_over_a_bucket(
    launcher, object_stores, record_property
):
    """Eight layers of a GiB at a time, to a store that keeps up with none of them."""
    layers, mebibytes = 8, 1024
    served = launcher.start(OURS, Bucket(object_stores.get("ceph on disk"), "memory"))
    idle = served.peak_memory()
    with ThreadPoolExecutor(layers) as threads:
        digests = list(threads.map(lambda n: push(served, n, mebibytes), range(layers)))
    peak = served.peak_memory()
    shown = {"idle": idle // MIB, "pushed": peak // MIB}
    record_property("peak_mebibytes", shown)
    print(f"{layers} x {mebibytes} MiB into a bucket, the server's peak in MiB: {shown}")
    pull(served, digests[-1])
    # Its log may tell of a store that had no time for it, as it should.
    served.kill()
    assert peak < CEILING, shown
