"""How far a run through a store has come, for the next one to go on from."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from attrs import define

from twisted_registry.repository import layout
from twisted_registry.storage.interfaces import PathNotFound

if TYPE_CHECKING:
    from twisted_registry.storage.interfaces import IStorageDriver

#: Bytes of a path.
_MAX_PATH_BYTES = 4096


@define(eq=False)
class ScrubPosition:
    """The bookmark of the scrub. A power cut may lose it: then a run begins anew."""

    driver: IStorageDriver

    async def read(self) -> str:
        """The path after which to go on; empty to begin."""
        with suppress(PathNotFound):
            return (await self.driver.get(layout.SCRUB, _MAX_PATH_BYTES)).decode("utf-8", "replace")
        return ""

    async def write(self, path: str) -> None:
        """Note how far it is."""
        await self.driver.put(layout.SCRUB, path.encode("utf-8"), durable=False)

    async def remove(self) -> None:
        """It is through."""
        with suppress(PathNotFound):
            await self.driver.delete(layout.SCRUB)
