"""Checks of files and folders, with the rights of this process. They block."""

from __future__ import annotations

import os
import pwd
import stat
from contextlib import suppress
from grp import getgrgid
from pathlib import Path
from typing import TYPE_CHECKING

from twisted_registry.doctor.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Callable

#: The size of ``sun_path`` on Linux, without the null byte at its end.
_MAX_SOCKET_PATH_BYTES = 107


def check_file(
    key: str,
    path: str,
    *,
    parse: Callable[[bytes], object] | None = None,
    is_secret: bool = False,
    is_created: bool = False,
) -> list[Finding]:
    """Check a file that the registry reads.

    :param key: the key of the configuration that names it.
    :param path: an absolute path.
    :param parse: raises ValueError if the content is not what it should be; the text has no secret.
    :param is_secret: whether other users must not read it.
    :param is_created: whether the registry creates it if it is missing.
    """
    file = Path(path)
    try:
        content = file.read_bytes()
        status = file.stat()
    except FileNotFoundError:
        if is_created:
            return check_folder(key, str(file.parent))
        return [Finding(key, f"{path} does not exist", "open", "create it, or correct the key")]
    except IsADirectoryError:
        return [Finding(key, f"{path} is a directory", "open", "name the file in it")]
    except PermissionError:
        return [_explain_refusal(key, file, "r")]
    except OSError as error:
        return [Finding(key, f"{path} cannot be read", f"{error.strerror}", "check the disk")]
    found = []
    if is_secret and status.st_mode & stat.S_IRWXO:
        found.append(
            Finding(
                key,
                f"{path} can be read by every user",
                describe_rights(file),
                f"chmod o-rwx {path}",
                is_warning=True,
            )
        )
    if parse is not None:
        try:
            parse(content)
        except ValueError as error:
            found.append(Finding(key, f"{path}: {error}", "content of the file", "correct it"))
    return found


def check_appendable(key: str, path: str) -> list[Finding]:
    """Check a file or socket that the registry writes to, and creates if it is missing."""
    file = Path(path)
    try:
        status = file.stat()
    except FileNotFoundError:
        if file.parent.is_dir():
            return check_folder(key, str(file.parent))
        return [
            Finding(key, f"{file.parent} does not exist", "stat", f"mkdir -p {file.parent}"),
        ]
    except OSError:
        return [_explain_refusal(key, file, "w")]
    if stat.S_ISDIR(status.st_mode):
        return [Finding(key, f"{path} is a directory", "stat", "name a file in it")]
    if not os.access(path, os.W_OK):
        return [_explain_refusal(key, file, "w")]
    return []


def check_socket(key: str, path: str) -> list[Finding]:
    """Check the path of a Unix socket that the registry creates."""
    socket = Path(path).absolute()
    if len(os.fsencode(path)) > _MAX_SOCKET_PATH_BYTES:
        problem = f"{path} is longer than the {_MAX_SOCKET_PATH_BYTES} bytes of a socket's path"
        return [Finding(key, problem, "unix(7)", "use a shorter path")]
    found = check_appendable(key, str(socket))
    if not found and socket.exists() and not socket.is_socket():
        problem = f"{path} exists, and is not a socket"
        found.append(Finding(key, problem, "stat", "remove it, or use another path"))
    return found


def check_folder(key: str, path: str, *, is_written: bool = True) -> list[Finding]:
    """Check a folder that the registry uses, and creates if it is missing.

    :param is_written: whether files are created in it.
    """
    folder, rights = Path(path), "rwx" if is_written else "rx"
    try:
        mode = folder.stat().st_mode
    except FileNotFoundError:
        return _check_creatable(key, folder, is_written=is_written)
    except PermissionError:
        return [_explain_refusal(key, folder, rights)]
    except OSError as error:
        return [Finding(key, f"{path} cannot be used", f"{error.strerror}", "correct the key")]
    if not stat.S_ISDIR(mode):
        return [Finding(key, f"{path} is not a directory", "stat", "name a directory")]
    if not os.access(path, os.R_OK | os.X_OK | (os.W_OK if is_written else 0)):
        return [_explain_refusal(key, folder, rights)]
    return []


def _check_creatable(key: str, folder: Path, *, is_written: bool) -> list[Finding]:
    if not is_written:
        return [Finding(key, f"{folder} does not exist", "stat", "correct the key")]
    above = _nearest_existing(folder)
    if os.access(above, os.W_OK | os.X_OK):
        return []
    if _is_read_only(above):
        return [_explain_refusal(key, above, "rwx")]
    return [
        Finding(
            key,
            f"{folder} does not exist, and {user_name()} may not create it",
            f"{above}: {describe_rights(above)}",
            f"install -d -m 0750 -o {user_name()} {folder}",
        )
    ]


def describe_rights(path: Path) -> str:
    """Return mode and owner of a file: ``mode 0600, owner root:root``."""
    try:
        status = path.stat()
    except OSError as error:
        return f"stat: {error.strerror}"
    owner, group = str(status.st_uid), str(status.st_gid)
    with suppress(KeyError):
        owner = pwd.getpwuid(status.st_uid).pw_name
    with suppress(KeyError):
        group = getgrgid(status.st_gid).gr_name
    return f"mode {stat.S_IMODE(status.st_mode):04o}, owner {owner}:{group}"


def user_name() -> str:
    """Return the name of the user of this process, or the number of one without a name."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _group_name() -> str:
    try:
        return getgrgid(os.getegid()).gr_name
    except KeyError:
        return str(os.getegid())


def _nearest_existing(path: Path) -> Path:
    for above in path.parents:
        with suppress(OSError):
            above.stat()
            return above
    return Path("/")


def _explain_refusal(key: str, path: Path, rights: str) -> Finding:
    """Name the folder that cannot be entered, or the file whose mode refuses.

    :param rights: what the registry needs, as in ``chmod``.
    """
    if "w" in rights and _is_read_only(path):
        return Finding(
            key, f"{path} is on a read-only file system", "statvfs", "use another, or mount it rw"
        )
    verbs = {"r": "read", "w": "write", "rwx": "use", "rx": "read"}
    problem = f"{user_name()} may not {verbs[rights]} {path}"
    for folder in reversed(path.parents):
        if not os.access(folder, os.X_OK):
            evidence = f"{folder}: {describe_rights(folder)}"
            return Finding(key, problem, evidence, _grant(folder, "x"))
    return Finding(key, problem, describe_rights(path), _grant(path, rights))


def _is_read_only(path: Path) -> bool:
    """Return whether a file is on a file system that is mounted read-only."""
    try:
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def _grant(path: Path, rights: str) -> str:
    return f"chgrp {_group_name()} {path} && chmod g+{rights} {path}"
