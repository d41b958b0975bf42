"""Checks of a store: how they are made of the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted_registry.maintenance.pace import Pace
from twisted_registry.maintenance.repair import Repair
from twisted_registry.maintenance.scrub import Scrub
from twisted_registry.repository.checking.blobs import StoredBlobs
from twisted_registry.repository.checking.bookmark import Bookmark
from twisted_registry.repository.checking.shelf import Shelf
from twisted_registry.repository.removal import Removal

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from twisted_registry.config.schema import Configuration
    from twisted_registry.maintenance.scrub import Scrubbed
    from twisted_registry.storage.interfaces import IStorageDriver


def make_scrub(
    configuration: Configuration, driver: IStorageDriver, reactor: Any
) -> Callable[[], Coroutine[Any, Any, Scrubbed]]:
    """What reads all blobs again, each time that it is called.

    :param driver: of the store of a configuration.
    """

    def run() -> Coroutine[Any, Any, Scrubbed]:
        # Each run anew: what it quarantines lies under the time of its beginning.
        pace = Pace(reactor, configuration.storage.maintenance.scrub.rate)
        blobs = StoredBlobs(driver, Shelf(driver, reactor), pace.pay)
        return Scrub(blobs, Repair(Removal(driver), reactor), Bookmark(driver), reactor).run()

    return run
