"""``storage.maintenance.watermark`` joined to constructors: a part of service.py."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.application.service import MultiService
    from twisted.internet.defer import Deferred

    from twisted_registry.api.endpoint import RegistryResource
    from twisted_registry.config.schema import Configuration
    from twisted_registry.maintenance.watermark import Watermark

#: Seconds between two looks.
_WATERMARK_INTERVAL_S = 5.0
_WARNING = "the storage of this registry is nearly full"


def make_watermark(
    parent: MultiService, configuration: Configuration, api: RegistryResource, reactor: Any
) -> Watermark | None:
    """Give a service a child that lets the API warn, and refuse pushes, as the disk fills up.

    :returns: the child, if it is wanted.
    """
    filesystem = configuration.storage.filesystem
    marks = configuration.storage.maintenance.watermark
    if filesystem is None or not (marks.warn or marks.refuse):
        return None
    # Only here: few ask for it.
    from twisted_registry.maintenance.watermark import FillLevel, Watermark  # noqa: PLC0415
    from twisted_registry.storage.threads import Threads  # noqa: PLC0415

    # A disk that does not answer must hold up nothing else.
    threads = Threads(reactor, 1, "watermark")
    root = filesystem.rootdirectory

    def tell(level: FillLevel) -> None:
        api.set_storage_state(_WARNING if level >= FillLevel.HIGH else "", full=level is FillLevel.FULL)

    def look() -> Deferred[float]:
        return threads.run_blocking(used_fraction, root)

    both = (marks.warn, marks.refuse)
    watermark = Watermark(look, tell, reactor, _WATERMARK_INTERVAL_S, both, threads.close)
    watermark.setServiceParent(parent)
    return watermark


def used_fraction(path: str, statvfs: Callable[[str], os.statvfs_result] = os.statvfs) -> float:
    """Which part of a filesystem is used, from 0 to 1: of its blocks or its inodes.

    What only root may use counts as used, as ``df`` reckons.

    :raises OSError: if it can not be told.
    """
    found = statvfs(path)
    used = found.f_blocks - found.f_bfree
    parts = [used / max(1, used + found.f_bavail)]
    if found.f_files:
        inodes = found.f_files - found.f_ffree
        parts.append(inodes / max(1, inodes + found.f_favail))
    return max(parts)
