"""A bucket prefix for each registry, in one Ceph gateway that the benchmark starts."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from attrs import Factory, define, field, frozen

from tests.integration.servers import Bucket
from tests.support import s3_servers
from tests.support.s3_servers import ObjectStores

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_, _PROGRAMS = s3_servers.STORES["ceph"]
_PUT_THREADS = 8


def is_installed() -> bool:
    """Return whether the programs of the gateway are installed."""
    return all(shutil.which(name, path=s3_servers.PATH) for name in _PROGRAMS)


@frozen
class BenchBucket(Bucket):
    """A part of the store of a gateway: all keys that begin with ``prefix``."""

    _gateway: Gateway

    def put(self, files: Iterable[tuple[str, bytes]]) -> None:
        """Store small files, given as paths and contents."""
        client = s3_servers.client(self.store)

        def put(file: tuple[str, bytes]) -> None:
            path, content = file
            key = f"{self.prefix}/{path}"
            client.put_object(Bucket=s3_servers.BUCKET, Key=key, Body=content)

        with ThreadPoolExecutor(_PUT_THREADS) as threads:
            list(threads.map(put, files))

    def forget(self, digests: Iterable[str]) -> None:
        """Delete blobs, because the store is in memory."""
        client = s3_servers.client(self.store)
        for digest in digests:
            name = digest.removeprefix("sha256:")
            key = f"{self.prefix}/docker/registry/v2/blobs/sha256/{name[:2]}/{name}/data"
            client.delete_object(Bucket=s3_servers.BUCKET, Key=key)
        self._gateway.collect()


@define(eq=False)
class Gateway:
    """The daemons of the gateway; the first bucket starts them."""

    folder: Path
    _stores: ObjectStores = field(
        init=False, default=Factory(lambda self: ObjectStores(self.folder), takes_self=True)
    )

    def bucket(self, prefix: str) -> BenchBucket:
        """Return a new prefix for a registry."""
        return BenchBucket(self._stores.get("ceph"), prefix, self)

    def collect(self) -> None:
        """Free the space of deleted objects now; the gateway would do it after two hours."""
        _, daemons = self._stores.started["ceph"]
        configuration = daemons.folder / "ceph.conf"
        daemons.run("radosgw-admin", "-c", configuration, "gc", "process", "--include-all")

    def close(self) -> None:
        """Stop the daemons."""
        self._stores.close()
