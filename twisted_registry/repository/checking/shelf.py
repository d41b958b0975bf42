"""The quarantine: what was taken out of the way, under the path that it had.

Nothing reads it. Whoever wants something back copies the folder of a run over the store.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from attrs import define, field

from twisted_registry.repository import layout
from twisted_registry.storage.interfaces import PathNotFound

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.storage.interfaces import IStorageDriver


@define(eq=False)
class Quarantine:
    """Takes files away, without destroying them.

    :ivar clock: names the folder of a run by the time of its beginning.
    """

    driver: IStorageDriver
    clock: IReactorTime
    run_name: str = field(init=False)

    @run_name.default
    def _make_run_name(self) -> str:
        return datetime.fromtimestamp(self.clock.seconds(), UTC).strftime("%Y%m%dT%H%M%SZ")

    async def isolate(self, path: str) -> bool:
        """Take a file away, and its folder if nothing else lies in it.

        :returns: whether it was there.
        """
        try:
            await self.driver.move(path, layout.quarantine_path(self.run_name, path))
        except PathNotFound:
            return False
        await self.driver.prune([path.rpartition("/")[0]])
        return True
