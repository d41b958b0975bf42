"""What a collector does to the store: it publishes its list, hears of others, and removes.

:mod:`twisted_registry.gc.gate` is the other side, and tells how the two work together.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from attrs import frozen

from twisted_registry.gc.delete_list import delete_torn_list, has_exited, read_delete_list
from twisted_registry.gc.gate import RECORD_TTL_S
from twisted_registry.oci.digest import ALGORITHMS, Digest, DigestInvalid
from twisted_registry.repository import catalog, layout
from twisted_registry.repository.catalog import prune_empty_repository
from twisted_registry.repository.concurrency import map_in_batches
from twisted_registry.repository.errors import translate_storage_errors
from twisted_registry.repository.trash import Deleter, TrashReason
from twisted_registry.storage.interfaces import MethodUnsupported, PathExists, PathNotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Container, Sequence

    from twisted_registry.gc.delete_list import DeleteList, DeleteListView
    from twisted_registry.storage.interfaces import Entry, IStorageDriver

_PAGE_SIZE = 1000
#: Names of links that are asked for at once: a folder of very many is read for each page.
_LINK_PAGE_SIZE = 5000
#: Seconds after which the record of a dead process is removed.
_DEAD_RECORD_TTL_S = 24 * 3600.0
#: Bytes of a record.
_MAX_RECORD_BYTES = 1024


@frozen
class LiveProcess:
    """A serving process.

    :ivar acknowledged: the id of the list that it obeys, or empty.
    """

    id: str
    acknowledged: str


class Sweeper:
    """The collector's hands.

    :ivar disposal: how what goes is removed; for good, if nothing else is said.
    """

    def __init__(self, driver: IStorageDriver, deleter: Deleter | None = None) -> None:
        self.driver = driver
        self.deleter = Deleter(self.driver) if deleter is None else deleter

    @translate_storage_errors
    async def published_list(self) -> DeleteListView | None:
        """The list that is published now, whoever's it is."""
        return await read_delete_list(self.driver)

    @translate_storage_errors
    async def propose(self, proposed: DeleteList) -> bool:
        """Publish a list where there is none, and return whether that is done."""
        try:
            await self.driver.create(layout.DELETE_LIST, proposed.to_bytes())
        except PathExists:
            # One that a crash cut short is nobody's, and would stay for ever.
            await delete_torn_list(self.driver)
            return False
        except MethodUnsupported:
            if await read_delete_list(self.driver) is not None:
                return False
            await self.driver.put(layout.DELETE_LIST, proposed.to_bytes())
        return True

    @translate_storage_errors
    async def condemn(self, condemned: DeleteList) -> bool:
        """Replace the proposed list, and return whether it was still there."""
        found = await read_delete_list(self.driver)
        if found is None or found.id != condemned.id:
            return False
        await self.driver.put(layout.DELETE_LIST, condemned.to_bytes())
        return True

    @translate_storage_errors
    async def withdraw(self, list_id: str) -> None:
        """Take a list and its leases away, if it is still there."""
        found = await read_delete_list(self.driver)
        if found is None or found.id == list_id:
            with suppress(PathNotFound):
                await self.driver.delete(layout.DELETE_LIST)
        with suppress(PathNotFound):
            await self.driver.delete(layout.leases(list_id))

    @translate_storage_errors
    async def leased_digests(self, list_id: str) -> set[Digest]:
        """What clients were told of while it was proposed."""
        found: set[Digest] = set()
        for algorithm in ALGORITHMS:
            for entry in await self._entries(f"{layout.leases(list_id)}/{algorithm}"):
                with suppress(DigestInvalid):
                    found.add(Digest.parse(f"{algorithm}:{entry.path}"))
        return found

    @translate_storage_errors
    async def live_processes(self) -> list[LiveProcess]:
        """The processes that serve; the records of those that are gone are removed."""
        now = await self.store_time()
        found = []
        for entry in await self._entries(layout.PROCESSES):
            age = None if entry.modified is None else now - entry.modified / 1e9
            path = layout.process(entry.path)
            with suppress(PathNotFound):
                content = await self.driver.get(path, _MAX_RECORD_BYTES)
                acknowledged, _, owner = content.decode("utf-8", "replace").partition(" ")
                if has_exited(owner) or (age is not None and age > _DEAD_RECORD_TTL_S):
                    await self.driver.delete(path)
                elif age is None or age < RECORD_TTL_S:
                    found.append(LiveProcess(entry.path, acknowledged))
        return found

    @translate_storage_errors
    async def store_time(self) -> float:
        """What time it is for the store, in seconds since the epoch.

        Ages are reckoned by the clock that stamps files, which may be another machine's.
        """
        await self.driver.put(layout.CLOCK, b"", durable=False)
        entry = await self.driver.stat(layout.CLOCK)
        return (entry.modified or 0) / 1e9

    @translate_storage_errors
    async def remove_blob(
        self, digest: Digest, before: float, still: Callable[[], bool]
    ) -> int | None:
        """Remove the bytes of a blob or manifest.

        :param before: seconds since the epoch; bytes that were stored later stay.
        :param still: asked at the last moment, on whatever thread, whether they may go.
        :returns: how many bytes are gone; None if it stays, or was gone.
        """
        try:
            entry = await self.driver.stat(layout.blob(digest))
            if entry.modified is None or entry.modified / 1e9 >= before:
                return None
            gone = await self.deleter.delete_blob(digest, still)
        except PathNotFound:
            return None
        return entry.size if gone else None

    @translate_storage_errors
    async def remove_revision(self, name: str, digest: Digest, before: float) -> bool:
        """Take a manifest out of a repository, and return whether it was there and old enough.

        A folder without a link, which a crash left, is removed as well.

        :param before: seconds since the epoch; one that was pushed again later stays.
        """
        try:
            try:
                entry = await self.driver.stat(layout.revision_link(name, digest))
            except PathNotFound:
                await self.driver.delete(layout.revision(name, digest))
                return True
            if entry.modified is None or entry.modified / 1e9 >= before:
                return False
            await self.deleter.delete_revision(name, digest, TrashReason.COLLECTED)
        except PathNotFound:
            return False
        return True

    async def unlink_blobs(self, digests: Collection[Digest]) -> None:
        """Remove the links of repositories to blobs that are gone."""
        by_algorithm: dict[str, set[str]] = {}
        for digest in digests:
            by_algorithm.setdefault(digest.algorithm, set()).add(digest.hex)
        async for name in catalog.walk_repositories(self.driver, markers=layout.LAYER_MARKERS):
            for algorithm, names in by_algorithm.items():
                await self._unlink(name, algorithm, names)

    async def prune_empty_repository(self) -> int:
        """Let repositories that hold nothing leave the catalog, and return how many did."""
        gone = 0
        async for name in catalog.walk_repositories(self.driver, markers=layout.LEFTOVER_MARKERS):
            gone += await prune_empty_repository(self.driver, name)
        return gone

    @translate_storage_errors
    async def _unlink(self, name: str, algorithm: str, gone: Container[str]) -> None:
        async def delete_link(hexadecimal: str) -> None:
            digest = Digest(algorithm, hexadecimal)
            await self.deleter.delete_layer(name, digest, TrashReason.COLLECTED)

        folder, last = f"{layout.layers(name)}/{algorithm}", ""
        while True:
            try:
                names = await self.driver.list_folders(folder, last, _LINK_PAGE_SIZE)
            except PathNotFound:
                return
            await map_in_batches(
                delete_link, [hexadecimal for hexadecimal in names if hexadecimal in gone]
            )
            if len(names) < _LINK_PAGE_SIZE:
                return
            last = names[-1]

    async def _entries(self, folder: str) -> Sequence[Entry]:
        found: list[Entry] = []
        while True:
            try:
                page = await self.driver.list(folder, found[-1].path if found else "", _PAGE_SIZE)
            except PathNotFound:
                return found
            found += page
            if len(page) < _PAGE_SIZE:
                return found
