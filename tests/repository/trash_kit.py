"""Stores with a trash, of each kind."""

from __future__ import annotations

from itertools import count

from tests.gc.collected_store import DAY, Store, drive
from tests.repository.bucket_world import BucketWorld
from tests.repository.worlds import DiskWorld, World
from twisted_registry.gc.expire_trash import TrashExpiry
from twisted_registry.gc.mark import MarkPhase
from twisted_registry.gc.sweep import Sweeper
from twisted_registry.repository.inventory import Inventory
from twisted_registry.repository.trash import Trash, TrashDeleter

WEEK = 7 * DAY


def ticks(clock):
    """Yield times of a clock, in nanoseconds and all different."""
    for number in count():
        yield int(clock.seconds() * 1e9) + number


class DatedDisk(DiskWorld):
    """A disk whose files have the time of the test's clock."""

    def restart(self):
        super().restart()
        self.disk.ticks = ticks(self.clock)


class KeptStore(Store):
    """A store with a trash."""

    def __init__(self, world):
        super().__init__(world)
        self.serve_with_trash()

    def serve_with_trash(self):
        self.deleter = TrashDeleter(self.world.driver, self.world.clock)
        self.world.deleter = self.deleter
        self.world.registry = self.world.another()

    def collector(self, **settings):
        collector = super().collector(trash=Trash(self.world.driver), **settings)
        collector.sweeper = Sweeper(self.world.driver, self.deleter)
        return collector

    def empty(self, keep=WEEK):
        driver = self.world.driver
        mark_phase = MarkPhase(Inventory(driver), self.references)
        return drive(self.world, TrashExpiry(Trash(driver), mark_phase, keep).run())

    def trash(self, kind=None):
        async def found():
            return [item async for page in Trash(self.world.driver).pages() for item in page]

        return [item for item in drive(self.world, found()) if kind in (None, item.kind)]


#: Each kind of store, by its name.
WORLDS = {"memory": World, "disk": DatedDisk, "bucket": BucketWorld}
