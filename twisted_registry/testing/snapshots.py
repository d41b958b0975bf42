"""Snapshots of all repositories of a store, over any driver.

A snapshot copies every file: up to 1 MiB in memory, more to a temporary file that disappears with
the snapshot. Blobs that are still there are not written again by a restore.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import frozen

from twisted_registry.http.body import BufferedBody
from twisted_registry.repository import layout
from twisted_registry.repository.streaming import stream_body
from twisted_registry.testing.blobs import PIECE_BYTES, Blob, Spool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.storage.interfaces import Entry, IStorageDriver

#: Files of one page.
_PAGE = 1000
_ROOTS = (layout.BLOBS, layout.REPOSITORIES)


@frozen(repr=False)
class Snapshot:
    """The state of all repositories at one time.

    :ivar files: where the content of each file is: offset and size in bytes.
    """

    files: Mapping[str, tuple[int, int]]
    _content: Blob

    def file(self, path: str) -> Blob:
        """Return the content of a file."""
        return self._content.section(*self.files[path])


async def take_snapshot(driver: IStorageDriver) -> Snapshot:
    """Copy all repositories; no request may change them meanwhile."""
    spool = Spool()
    files: dict[str, tuple[int, int]] = {}
    async for entry in _walk(driver):
        start = spool.size
        reader = await driver.open(entry.path)
        await reader.feed(spool.write)
        files[entry.path] = (start, spool.size - start)
    return Snapshot(files, spool.blob())


async def restore_snapshot(driver: IStorageDriver, snapshot: Snapshot, clock: IReactorTime) -> None:
    """Make all repositories as they were; no request may use them meanwhile.

    :param clock: paces the reading of large files.
    """
    present = {entry.path: entry.size async for entry in _walk(driver)}
    for path in _unwanted(present, snapshot.files):
        await driver.delete(path, durable=False)
    # Blobs first: a link never names content that is missing.
    for path in sorted(snapshot.files, key=lambda name: not name.startswith(layout.BLOBS)):
        size = snapshot.files[path][1]
        if path.startswith(layout.BLOBS) and present.get(path) == size:
            continue  # its content has the digest in its path
        content = snapshot.file(path)
        if size <= PIECE_BYTES:
            await driver.put(path, content.read(), durable=False)
        else:
            await _write(driver, path, content, clock)


async def _write(driver: IStorageDriver, path: str, content: Blob, clock: IReactorTime) -> None:
    # A writer continues an existing file.
    await driver.put(path, b"", durable=False)
    writer = await driver.writer(path, 0)
    try:
        with content.open() as file:
            body: Any = BufferedBody(file, clock)  # type: ignore[arg-type]
            await stream_body(body, writer)
        await writer.commit()
    finally:
        await writer.close()


async def _walk(driver: IStorageDriver) -> AsyncIterator[Entry]:
    for root in _ROOTS:
        after = ""
        while entries := await driver.walk(root, after, _PAGE):
            for entry in entries:
                yield entry
            after = entries[-1].path


def _unwanted(present: Iterable[str], wanted: Iterable[str]) -> set[str]:
    """Return the highest paths that have something present and nothing wanted below them."""
    kept = {parent for path in wanted for parent in _with_parents(path)}
    found = set()
    for path in present:
        if path not in kept:
            *_, highest = (each for each in _with_parents(path) if each not in kept)
            found.add(highest)
    return found


def _with_parents(path: str) -> list[str]:
    """Return a path and the folders above it, the nearest first, without the roots."""
    parts = path.split("/")
    above = ["/".join(parts[:end]) for end in range(len(parts), 0, -1)]
    return [each for each in above if each.startswith(tuple(f"{root}/" for root in _ROOTS))]
