"""A bucket prefix for each registry, in one Ceph gateway that the run starts."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from attrs import define, field, frozen

from tests.support import s3_servers as objectstores

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tests.support.s3_servers import Daemons, ObjectStore

_START, _PROGRAMS = objectstores.STORES["ceph"]
_PUT_THREADS = 8


def can_be_had() -> bool:
    """Return whether the programs of the gateway are installed."""
    return all(shutil.which(name, path=objectstores.PATH) for name in _PROGRAMS)


@frozen
class Bucket:
    """A place in the store of a gateway: all keys that begin with ``prefix``."""

    _gateway: Gateway
    _store: ObjectStore
    prefix: str

    @property
    def section(self) -> str:
        """The section of the configuration, for ours and Distribution."""
        options = {**self._store.options, "rootdirectory": f"/{self.prefix}", "v4auth": True}
        return f"s3: {json.dumps(options)}"

    def put(self, files: Iterable[tuple[str, bytes]]) -> None:
        """Store small files, given as paths and contents."""
        client = objectstores.client(self._store)

        def put(file: tuple[str, bytes]) -> None:
            path, content = file
            key = f"{self.prefix}/{path}"
            client.put_object(Bucket=objectstores.BUCKET, Key=key, Body=content)

        with ThreadPoolExecutor(_PUT_THREADS) as threads:
            list(threads.map(put, files))

    def forget(self, digests: Iterable[str]) -> None:
        """Delete blobs, because the store is in memory."""
        client = objectstores.client(self._store)
        for digest in digests:
            name = digest.removeprefix("sha256:")
            key = f"{self.prefix}/docker/registry/v2/blobs/sha256/{name[:2]}/{name}/data"
            client.delete_object(Bucket=objectstores.BUCKET, Key=key)
        self._gateway.collect()


@define(eq=False)
class Gateway:
    """The daemons of the gateway; the first bucket starts them."""

    folder: Path
    _started: tuple[ObjectStore, Daemons] | None = field(init=False, default=None)

    def bucket(self, prefix: str) -> Bucket:
        """Return a new prefix for a registry."""
        if self._started is None:
            self.folder.mkdir(parents=True)
            daemons = objectstores.Daemons(self.folder)
            try:
                store = _START(daemons)
                objectstores.make_bucket(store)
            except BaseException:
                daemons.close()
                raise
            self._started = store, daemons
        return Bucket(self, self._started[0], prefix)

    def collect(self) -> None:
        """Free the space of deleted objects now; the gateway would do it after two hours."""
        assert self._started is not None
        self._started[1].run(
            *("radosgw-admin", "-c", self.folder / "ceph.conf", "gc", "process", "--include-all")
        )

    def close(self) -> None:
        """Stop the daemons."""
        if self._started is not None:
            self._started[1].close()
