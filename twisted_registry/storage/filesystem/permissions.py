"""Permissions of the folder in which registries keep secrets.

Files and folders that the driver makes there are for the owner only. Those that something else has
made may be wider: an earlier release, a copy, a restored backup. All functions block.
"""

from __future__ import annotations

from pathlib import Path
from stat import S_IMODE, S_IRWXG, S_IRWXO, S_ISDIR
from typing import TYPE_CHECKING

from attrs import frozen

from twisted_registry.storage.filesystem.tree import (
    PRIVATE_FILE_MODE,
    PRIVATE_FOLDER,
    PRIVATE_FOLDER_MODE,
)

if TYPE_CHECKING:
    from collections.abc import Iterable


@frozen
class WidePermissions:
    """A file or folder that other users could access.

    :ivar path: its path in the file system.
    :ivar mode: the permissions that it had.
    :ivar problem: why they could not be restricted; empty if they were.
    """

    path: str
    mode: int
    problem: str = ""


def restrict_permissions(root: str, secrets: Iterable[str], user: int) -> list[WidePermissions]:
    """Remove the permissions of group and others from the private folder and from secrets in it.

    Only what the user owns is changed.

    :param root: the root folder of the driver.
    :param secrets: paths below it, of files and folders; missing ones are skipped.
    :param user: the numeric id of the user of this process.
    :returns: what was too wide, whether it was changed or not.
    """
    found = []
    for path in (PRIVATE_FOLDER, *secrets):
        os_path = Path(root, path)
        try:
            status = os_path.stat()
        except OSError:
            continue
        if not status.st_mode & (S_IRWXG | S_IRWXO):
            continue
        problem = ""
        if user == status.st_uid:
            allowed = PRIVATE_FOLDER_MODE if S_ISDIR(status.st_mode) else PRIVATE_FILE_MODE
            try:
                os_path.chmod(status.st_mode & allowed)
            except OSError as error:
                problem = error.strerror or repr(error)
        else:
            problem = "it belongs to another user"
        found.append(WidePermissions(str(os_path), S_IMODE(status.st_mode), problem))
    return found
