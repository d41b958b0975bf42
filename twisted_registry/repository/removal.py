"""What a collector does to the store: it publishes its list, hears of others, and removes.

:mod:`twisted_registry.repository.gate` is the other side, and tells how the two work together.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from attrs import frozen

from twisted_registry.digest import ALGORITHMS, Digest, DigestInvalid
from twisted_registry.repository import catalog, layout
from twisted_registry.repository.concurrency import each_of_many
from twisted_registry.repository.condemned import read_condemned, remove_torn
from twisted_registry.repository.disposal import Disposal
from twisted_registry.repository.failures import translated
from twisted_registry.repository.gate import RECORD_TERM
from twisted_registry.repository.liveness import is_gone
from twisted_registry.repository.stamps import Cause
from twisted_registry.repository.vacancy import vacate
from twisted_registry.storage.interfaces import MethodUnsupported, PathExists, PathNotFound
from twisted_registry.value import Value

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Container, Sequence

    from twisted_registry.repository.condemned import Condemned, Listed
    from twisted_registry.storage.interfaces import Entry, IStorageDriver

_PAGE = 1000
#: Names of links that are asked for at once: a folder of very many is read for each page.
_NAMES = 5000
#: Seconds after which the record of a dead process is removed.
_FORGOTTEN = 24 * 3600.0
#: Bytes of a record.
_LIMIT = 1024


@frozen(eq=False, repr=False)
class Attending(Value):
    """A serving process.

    :ivar acknowledged: the id of the list that it obeys, or empty.
    """

    id: str
    acknowledged: str


class Removal:
    """The collector's hands.

    :ivar disposal: how what goes is removed; for good, if nothing else is said.
    """

    def __init__(self, driver: IStorageDriver, disposal: Disposal | None = None) -> None:
        self.driver = driver
        self.disposal = Disposal(self.driver) if disposal is None else disposal

    @translated
    async def published(self) -> Listed | None:
        """The list that is published now, whoever's it is."""
        return await read_condemned(self.driver)

    @translated
    async def propose(self, proposed: Condemned) -> bool:
        """Publish a list where there is none, and return whether that is done."""
        try:
            await self.driver.create(layout.CONDEMNED, proposed.to_bytes())
        except PathExists:
            # One that a crash cut short is nobody's, and would stay for ever.
            await remove_torn(self.driver)
            return False
        except MethodUnsupported:
            if await read_condemned(self.driver) is not None:
                return False
            await self.driver.put(layout.CONDEMNED, proposed.to_bytes())
        return True

    @translated
    async def condemn(self, condemned: Condemned) -> bool:
        """Replace the proposed list, and return whether it was still there."""
        found = await read_condemned(self.driver)
        if found is None or found.id != condemned.id:
            return False
        await self.driver.put(layout.CONDEMNED, condemned.to_bytes())
        return True

    @translated
    async def withdraw(self, list_id: str) -> None:
        """Take a list and its leases away, if it is still there."""
        found = await read_condemned(self.driver)
        if found is None or found.id == list_id:
            with suppress(PathNotFound):
                await self.driver.delete(layout.CONDEMNED)
        with suppress(PathNotFound):
            await self.driver.delete(layout.leases(list_id))

    @translated
    async def leased(self, list_id: str) -> set[Digest]:
        """What clients were told of while it was proposed."""
        found: set[Digest] = set()
        for algorithm in ALGORITHMS:
            for entry in await self._entries(f"{layout.leases(list_id)}/{algorithm}"):
                with suppress(DigestInvalid):
                    found.add(Digest.parse(f"{algorithm}:{entry.path}"))
        return found

    @translated
    async def attending(self) -> list[Attending]:
        """The processes that serve; the records of those that are gone are removed."""
        now = await self.time()
        found = []
        for entry in await self._entries(layout.PROCESSES):
            age = None if entry.modified is None else now - entry.modified / 1e9
            path = layout.process(entry.path)
            with suppress(PathNotFound):
                content = await self.driver.get(path, _LIMIT)
                acknowledged, _, owner = content.decode("utf-8", "replace").partition(" ")
                if is_gone(owner) or (age is not None and age > _FORGOTTEN):
                    await self.driver.delete(path)
                elif age is None or age < RECORD_TERM:
                    found.append(Attending(entry.path, acknowledged))
        return found

    @translated
    async def time(self) -> float:
        """What time it is for the store, in seconds since the epoch.

        Ages are reckoned by the clock that stamps files, which may be another machine's.
        """
        await self.driver.put(layout.CLOCK, b"", durable=False)
        entry = await self.driver.stat(layout.CLOCK)
        return (entry.modified or 0) / 1e9

    @translated
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
            gone = await self.disposal.blob(digest, still)
        except PathNotFound:
            return None
        return entry.size if gone else None

    @translated
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
            await self.disposal.revision(name, digest, Cause.COLLECTED)
        except PathNotFound:
            return False
        return True

    async def unlink(self, digests: Collection[Digest]) -> None:
        """Remove the links of repositories to blobs that are gone."""
        by_algorithm: dict[str, set[str]] = {}
        for digest in digests:
            by_algorithm.setdefault(digest.algorithm, set()).add(digest.hex)
        async for name in catalog.walk(self.driver, marks=layout.LAYER_MARKS):
            for algorithm, names in by_algorithm.items():
                await self._unlink(name, algorithm, names)

    async def vacate(self) -> int:
        """Let repositories that hold nothing leave the catalog, and return how many did."""
        gone = 0
        async for name in catalog.walk(self.driver, marks=layout.REMAINS_MARKS):
            gone += await vacate(self.driver, name)
        return gone

    @translated
    async def _unlink(self, name: str, algorithm: str, gone: Container[str]) -> None:
        async def drop(hexadecimal: str) -> None:
            digest = Digest(algorithm, hexadecimal)
            await self.disposal.layer(name, digest, Cause.COLLECTED)

        folder, last = f"{layout.layers(name)}/{algorithm}", ""
        while True:
            try:
                names = await self.driver.folders(folder, last, _NAMES)
            except PathNotFound:
                return
            await each_of_many(drop, [hexadecimal for hexadecimal in names if hexadecimal in gone])
            if len(names) < _NAMES:
                return
            last = names[-1]

    async def _entries(self, folder: str) -> Sequence[Entry]:
        found: list[Entry] = []
        while True:
            try:
                page = await self.driver.list(folder, found[-1].path if found else "", _PAGE)
            except PathNotFound:
                return found
            found += page
            if len(page) < _PAGE:
                return found
