"""Repositories that hold nothing, and how they leave the catalog.

A repository is listed for its folders. When its manifests, tags and blobs are gone, these may be
left: the mark that Distribution 2.8.3 wants, links of referrers, empty folders. Uploads are no
content: they stay, and a repository that has nothing else is not listed.

It is safe beside pushes by the order of steps. A manifest PUT writes its link and then looks for
the mark; here the mark goes and then links are looked for. So one of the two sees the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_registry.repository import catalog, layout
from twisted_registry.repository.failures import translate_storage_errors
from twisted_registry.storage.interfaces import PathNotFound

if TYPE_CHECKING:
    from twisted_registry.storage.interfaces import IStorageDriver

_PAGE_ENTRIES = 1000


@translate_storage_errors
async def prune_empty_repository(driver: IStorageDriver, name: str) -> bool:
    """Let a repository leave the catalog if it holds nothing; return whether it has left.

    A file of which nobody knows what it is counts as something.
    """
    mark = layout.layers_marker(name)
    if await _has_files(driver, layout.layers(name), except_path=mark):
        return False
    if await _has_files(driver, layout.manifests(name)):
        return False
    # Only what was there when it was looked at: a push may bring more.
    while entries := await driver.walk(layout.all_referrers(name), "", _PAGE_ENTRIES):
        await driver.delete_many([entry.path for entry in entries])
        if len(entries) < _PAGE_ENTRIES:
            break
    await driver.delete_many([mark])
    for folder in layout.layers(name), layout.manifests(name), layout.all_referrers(name):
        await driver.prune(await list_subfolders(driver, folder))
    parts = name.split("/")
    above = ["/".join(parts[:end]) for end in range(len(parts), 0, -1)]
    await driver.prune([layout.uploads(name), *map(layout.repository, above)])
    if not await _has_files(driver, layout.manifests(name)):
        return True
    await catalog.mark_repository(driver, name)
    return False


async def list_subfolders(driver: IStorageDriver, path: str) -> list[str]:
    """A folder and all that are in it, the deepest first; for what is nearly empty."""
    found = []
    last = ""
    while True:
        try:
            names = await driver.list_folders(path, last, _PAGE_ENTRIES)
        except PathNotFound:
            break
        for name in names:
            found += await list_subfolders(driver, f"{path}/{name}")
        if len(names) < _PAGE_ENTRIES:
            break
        last = names[-1]
    return [*found, path]


async def _has_files(driver: IStorageDriver, folder: str, except_path: str = "") -> bool:
    """Whether there is any file in a folder, besides one."""
    return any(entry.path != except_path for entry in await driver.walk(folder, "", 2))
