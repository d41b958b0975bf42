"""What lies in a folder, and below it, in the order of names and a page at a time.

Symbolic links are followed, so that an operator can put a folder on another disk; one that
leads back to a folder above is passed over. So are hidden names (the driver's own unfinished
files, a file server's snapshots) and names that no path can spell, such as those that are not
UTF-8.
"""

from __future__ import annotations

import stat
from heapq import nsmallest
from itertools import islice
from typing import TYPE_CHECKING

from twisted.logger import Logger

from twisted_registry.storage.interfaces import Entry, PathInvalid, PathNotFound
from twisted_registry.storage.paths import is_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from os import DirEntry, stat_result

    from twisted_registry.storage.filetree import FileTree

log = Logger()


def entry_of(path: str, found: stat_result) -> Entry:
    """Describe a file or folder."""
    return Entry(path, None if stat.S_ISDIR(found.st_mode) else found.st_size, found.st_mtime_ns)


def list_folder(tree: FileTree, path: str, after: str, limit: int) -> Sequence[Entry]:
    """Answer the first ``limit`` entries of a folder whose name is greater than ``after``.

    However many entries the folder has, no more than ``limit`` of them are kept in memory.
    """
    found: list[Entry] = []
    while len(found) < limit:
        missing = limit - len(found)
        names = _names(tree, path, after, missing)
        for name in names:
            entry = _entry_at(tree, f"{path}/{name}" if path else name, name)
            if entry is not None:
                found.append(entry)
        if len(names) < missing:
            break
        # Some may have gone since the scan: a short page would mean that the folder ends.
        after = names[-1]
    return found


def walk_files(tree: FileTree, prefix: str, after: str, limit: int) -> Sequence[Entry]:
    """Answer the first ``limit`` files below a folder whose path is greater than ``after``."""
    return list(islice(_walk(tree, prefix, after), limit))


def is_broken_or_cyclic_link(tree: FileTree, entry: DirEntry[str]) -> bool:
    """Whether an entry is a link to nothing, to itself, or to a folder that it lies in."""
    if not entry.is_symlink():
        return False
    try:
        tree.files.stat(entry.path)
    except OSError:
        return True
    here, name = entry.path.rsplit("/", 1)
    there = tree.files.realpath(entry.path)
    return f"{tree.files.realpath(here)}/{name}".startswith(f"{there}/")


def _names(tree: FileTree, path: str, after: str, limit: int) -> list[str]:
    try:
        with tree.files.scandir(tree.os_path(path)) as entries:
            visible = (entry.name for entry in entries if _is_visible(tree, entry))
            return nsmallest(limit, (name for name in visible if name > after))
    except FileNotFoundError as error:
        raise PathNotFound(path) from error
    except NotADirectoryError as error:
        # The path of a file, or one that leads through a file.
        tree.stat(path)
        raise PathInvalid(path, "is a file") from error


def _walk(tree: FileTree, folder: str, after: str) -> Iterator[Entry]:
    prefix = f"{folder}/" if folder else ""
    try:
        with tree.files.scandir(tree.os_path(folder)) as entries:
            visible = [entry for entry in entries if _is_visible(tree, entry)]
    except (FileNotFoundError, NotADirectoryError):
        return
    straight = (entry for entry in visible if not is_broken_or_cyclic_link(tree, entry))
    for path in sorted(prefix + _sort_key(entry) for entry in straight):
        if not path.endswith("/"):
            entry = _entry_at(tree, path, path) if path > after else None
            if entry is not None and not entry.is_folder:
                yield entry
        elif path > after or after.startswith(path):
            yield from _walk(tree, path[:-1], after)


def _sort_key(entry: DirEntry[str]) -> str:
    """Answer the name; a folder's with a slash, to sort where the paths below it do.

    ``a-b`` comes before ``a/b``, and that before ``a0``.
    """
    return f"{entry.name}/" if entry.is_dir() else entry.name


def _is_visible(tree: FileTree, entry: DirEntry[str]) -> bool:
    if is_name(entry.name):
        return True
    if not entry.name.startswith(".") and not tree.odd_name_logged:
        tree.odd_name_logged = True
        log.warn("passing over {path!r} and other names that no path can spell", path=entry.path)
    return False


def _entry_at(tree: FileTree, path: str, name: str) -> Entry | None:
    try:
        return entry_of(name, tree.stat(path))
    except PathNotFound:
        return None
