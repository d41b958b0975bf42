"""Uploads that nobody goes on with.

When an upload was last touched is told by the newest of its files, which an upload that still
grows keeps young; where the store tells no times, by its ``startedat``; where there is no file at
all, by its folder. An upload of which nothing tells a time is kept.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from twisted_registry.reference import is_upload_id
from twisted_registry.repository import catalog, layout
from twisted_registry.repository.failures import translate_storage_errors
from twisted_registry.storage.interfaces import PathNotFound, WriterBusy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from twisted_registry.storage.interfaces import Entry, IStorageDriver

#: Uploads that are asked of the store at once.
_PAGE_SIZE = 1000
#: Bytes of a ``startedat``.
_MAX_STARTEDAT_BYTES = 1024


class AbandonedUpload:
    """An upload that was not touched for long.

    :ivar repository: the name of its repository.
    :ivar touched: when it was, in seconds since the epoch.
    :ivar before: the time before which it had to be touched last to be called abandoned.
    """

    def __init__(
        self,
        driver: IStorageDriver,
        repository: str,
        id: str,  # noqa: A002 - what the layout calls it
        last_activity: float,
        before: float,
    ) -> None:
        self.driver = driver
        self.repository = repository
        self.id = id
        self.last_activity = last_activity
        self.before = before

    @translate_storage_errors
    async def remove(self) -> bool:
        """Remove it, and return whether it is gone.

        It stays if somebody writes to it, or has gone on with it since it was found.
        """
        path = layout.upload_data(self.repository, self.id)
        writer = None
        try:
            # A writer makes the file if there is none; then nothing can be under way.
            with suppress(PathNotFound):
                await self.driver.stat(path)
                writer = await self.driver.writer(path)
        except WriterBusy:
            return False
        try:
            last_activity = await _last_activity(self.driver, self.repository, self.id)
            if last_activity is None or last_activity >= self.before:
                return False
            with suppress(PathNotFound):
                await self.driver.delete(layout.upload(self.repository, self.id))
            return True
        finally:
            if writer is not None:
                await writer.close()


async def find_abandoned_uploads(
    driver: IStorageDriver, before: float
) -> AsyncIterator[AbandonedUpload]:
    """Find the uploads of all repositories that were last touched before a time.

    :param before: seconds since the epoch.
    """
    async for name in catalog.walk_repositories(driver, markers=layout.UPLOAD_MARKERS):
        last = ""
        while True:
            entries = await _list_uploads(driver, name, last)
            for entry in entries:
                if not entry.is_folder or not is_upload_id(entry.path):
                    continue
                last_activity = await _last_activity(driver, name, entry.path)
                if last_activity is not None and last_activity < before:
                    yield AbandonedUpload(driver, name, entry.path, last_activity, before)
            if len(entries) < _PAGE_SIZE:
                break
            last = entries[-1].path


@translate_storage_errors
async def _list_uploads(driver: IStorageDriver, name: str, after: str) -> Sequence[Entry]:
    try:
        return await driver.list(layout.uploads(name), after, _PAGE_SIZE)
    except PathNotFound:
        return ()


@translate_storage_errors
async def _last_activity(driver: IStorageDriver, name: str, upload_id: str) -> float | None:
    """When an upload was last touched; None if it is gone or nothing tells."""
    try:
        entries = await driver.list(layout.upload(name, upload_id))
    except PathNotFound:
        return None
    times = [entry.modified / 1e9 for entry in entries if entry.modified is not None]
    if times:
        return max(times)
    with suppress(PathNotFound, ValueError):
        content = await driver.get(layout.upload_started(name, upload_id), _MAX_STARTEDAT_BYTES)
        started = datetime.fromisoformat(content.decode("ascii").strip())
        return started.astimezone(UTC).timestamp()
    with suppress(PathNotFound):
        folder = await driver.stat(layout.upload(name, upload_id))
        return None if folder.modified is None else folder.modified / 1e9
    return None
