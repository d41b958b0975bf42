"""What a crash leaves in a tree of files: unfinished ones under hidden names.

A file gets its name when it is whole, and a folder that is deleted takes a hidden one first. A
process that is killed in between leaves them where no path leads. Nobody but a sweep by age can
know that they are nobody's any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field

from twisted_registry.storage.filelist import is_broken_or_cyclic_link
from twisted_registry.storage.newfile import is_temporary_name

if TYPE_CHECKING:
    from os import DirEntry

    from twisted_registry.storage.filetree import FileTree

#: Folders that are looked at in one go: about ten milliseconds when the disk is warm.
_FOLDERS_PER_TURN = 200


@define(eq=False, repr=False)
class LeftoverScan:
    """One pass over a tree, a bit at a time, so that no thread is taken for long.

    :ivar before: seconds since the epoch; what changed later is left alone.
    :ivar dry_run: whether to remove nothing.
    :ivar found: files and folders that are gone, or would be.
    """

    tree: FileTree
    before: float
    dry_run: bool = False
    found: int = field(init=False, default=0)
    _folders: list[str] = field(init=False, factory=lambda: [""])

    def scan_some(self) -> bool:
        """Look at some more folders, on a thread, and return whether there are more to come."""
        for _ in range(_FOLDERS_PER_TURN):
            if not self._folders:
                break
            self._look_into(self._folders.pop())
        return bool(self._folders)

    def _look_into(self, folder: str) -> None:
        try:
            with self.tree.files.scandir(self.tree.os_path(folder)) as entries:
                for entry in entries:
                    self._look_at(entry, f"{folder}/{entry.name}" if folder else entry.name)
        except (FileNotFoundError, NotADirectoryError):
            # Deleted meanwhile.
            return

    def _look_at(self, entry: DirEntry[str], path: str) -> None:
        if is_temporary_name(entry.name):
            self._remove_if_old(entry)
        elif not entry.name.startswith(".") and _is_folder_to_enter(self.tree, entry):
            self._folders.append(path)

    def _remove_if_old(self, entry: DirEntry[str]) -> None:
        try:
            # When it got its name, or was written to last.
            found = entry.stat(follow_symlinks=False)
            if max(found.st_mtime, found.st_ctime) >= self.before:
                return
            if self.dry_run:
                pass
            elif entry.is_dir(follow_symlinks=False):
                self.tree.remove_tree(entry.path)
            else:
                self.tree.files.unlink(entry.path)
        except FileNotFoundError:
            return
        self.found += 1


def _is_folder_to_enter(tree: FileTree, entry: DirEntry[str]) -> bool:
    return entry.is_dir() and not is_broken_or_cyclic_link(tree, entry)
