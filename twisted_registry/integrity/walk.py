"""List the files of a store, also where a part of it cannot be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve

from twisted_registry.integrity.findings import Finding, FindingKind
from twisted_registry.repository.inventory import list_folder
from twisted_registry.storage.interfaces import StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from twisted_registry.storage.interfaces import Entry, IStorageDriver

_PAGE_ENTRIES = 1000


async def walk_files(
    driver: IStorageDriver, folder: str, after: str = ""
) -> AsyncIterator[Sequence[Entry] | Finding]:
    """Yield the files below a folder in the order of whole paths, a page at a time.

    A folder that cannot be read is yielded as a finding, in the place of its files.

    :param after: only paths greater than this.
    """
    while True:
        try:
            page = await driver.walk(folder, after, _PAGE_ENTRIES)
        except StorageError:
            break
        yield page
        if len(page) < _PAGE_ENTRIES:
            return
        after = page[-1].path
    # Some folder below cannot be read. List folder by folder, so that the others are seen.
    async for found in _walk_by_folder(driver, folder, after):
        yield found


async def _walk_by_folder(
    driver: IStorageDriver, folder: str, after: str
) -> AsyncIterator[Sequence[Entry] | Finding]:
    try:
        entries = await list_folder(driver, folder)
    except StorageError as error:
        yield Finding(FindingKind.FOLDER_UNREADABLE, folder, error.reason)
        return
    # As the paths below them sort: ``a-b`` comes before ``a/b``.
    for name, entry in sorted((e.path + "/" if e.is_folder else e.path, e) for e in entries):
        path = f"{folder}/{name}"
        if entry.is_folder:
            if path > after or after.startswith(path):
                async for found in walk_files(driver, path[:-1], after):
                    yield found
        elif path > after:
            yield [evolve(entry, path=path)]
