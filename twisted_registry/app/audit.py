"""The audit log of a configuration (``log.audit``): a file, or standard output.

Each entry is one line of JSON. Several processes, commands as well, write to the same file: it is
opened with ``O_APPEND``, and a line is one call, which the kernel neither divides nor mixes with
another. A lock would let a process that stands still hold up all others. The file is opened again
when its path names another file, so that it can be rotated.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from attrs import define, field, frozen
from twisted.logger import Logger
from zope.interface import implementer

from twisted_registry.auth.audit import AuditRecord, IAuditLog
from twisted_registry.config.loading import masked_data
from twisted_registry.frame.errors import StartError
from twisted_registry.repository import layout
from twisted_registry.storage.interfaces import PathNotFound, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted_registry.config.schema import Configuration
    from twisted_registry.storage.interfaces import IStorageDriver

log = Logger()

#: The value of ``log.audit`` for standard output.
STANDARD_OUTPUT = "stdout"
#: The file has no secrets, and programs that ship logs read it by their group.
_FILE_MODE = 0o640
#: Seconds between two complaints that entries cannot be written.
_COMPLAINT_INTERVAL_S = 60.0
#: Bytes of the stored digest of the rules that are read, at most.
_MAX_DIGEST_BYTES = 64


@implementer(IAuditLog)
@define(eq=False, repr=False)
class AuditFile:
    """An audit log in a file.

    :ivar path: the file.
    :ivar now: returns the time in seconds since the epoch.
    """

    path: str
    _now: Callable[[], float]
    _descriptor: int = field(init=False, default=-1)
    _next_complaint: float = field(init=False, default=0.0)
    _is_torn: bool = field(init=False, default=False)

    def open(self) -> None:
        """Open the file, and create it if it is missing.

        :raises OSError: if that is not possible.
        """
        # O_NONBLOCK: a pipe that nobody reads is an error instead of a wait.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
        try:
            descriptor = os.open(self.path, flags | os.O_CREAT | os.O_EXCL, _FILE_MODE)
        except FileExistsError:
            descriptor = os.open(self.path, flags)
        else:
            self._give_to_owner_of_folder(descriptor)
        self.close()
        self._descriptor = descriptor

    def close(self) -> None:
        """Close the file."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def record(self, entry: AuditRecord) -> None:
        """Write an entry. If that is not possible, complain in the log."""
        line = entry.to_line(self._now())
        try:
            if not self._is_current():
                self.open()
            self._write(b"\n" + line if self._is_torn else line)
        except OSError as error:
            self._complain(error)

    def _write(self, line: bytes) -> None:
        # Stays true if the disk is full, perhaps in the middle of the line.
        self._is_torn = True
        if os.write(self._descriptor, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._is_torn = False

    def reopen(self) -> None:
        """Open the file again, because it was rotated; complain if that is not possible."""
        try:
            self.open()
        except OSError as error:
            self._complain(error)

    def _is_current(self) -> bool:
        if self._descriptor < 0:
            return False
        try:
            found = os.stat(self.path)  # noqa: PTH116 - for each entry
        except OSError:
            return False
        opened = os.fstat(self._descriptor)
        return (found.st_dev, found.st_ino) == (opened.st_dev, opened.st_ino)

    def _give_to_owner_of_folder(self, descriptor: int) -> None:
        """Let the registry write to a file that a command has created as root."""
        if os.geteuid() == 0:
            folder = Path(self.path).parent.stat()
            os.fchown(descriptor, folder.st_uid, folder.st_gid)

    def _complain(self, error: OSError) -> None:
        now = self._now()
        if now >= self._next_complaint:
            self._next_complaint = now + _COMPLAINT_INTERVAL_S
            log.error(
                "log.audit: {path}: {reason}: entries are lost",
                path=self.path,
                reason=error.strerror,
            )


@implementer(IAuditLog)
@frozen
class AuditStream:
    """An audit log on a text stream.

    :ivar stream: writes a line at once, and never into a line of another process.
    :ivar now: returns the time in seconds since the epoch.
    """

    stream: TextIO
    _now: Callable[[], float]

    def record(self, entry: AuditRecord) -> None:
        """Write an entry."""
        self.stream.write(entry.to_line(self._now()).decode("ascii"))

    def reopen(self) -> None:
        """Do nothing: the other end of a stream is rotated elsewhere."""

    def close(self) -> None:
        """Do nothing: the stream belongs to the access log."""


def open_audit_log(
    configuration: Configuration, stream: TextIO | None, now: Callable[[], float]
) -> AuditFile | AuditStream | None:
    """Open the audit log of a configuration; None without one.

    :param stream: standard output; None if that is not for entries, and they are left out.
    :param now: returns the time in seconds since the epoch.
    :raises StartError: if the file cannot be opened.
    """
    path = configuration.log.audit
    if not path:
        return None
    if path == STANDARD_OUTPUT:
        return None if stream is None else AuditStream(stream, now)
    # Now, as a daemon may change its working directory.
    path = str(Path(path).absolute())
    file = AuditFile(path, now)
    try:
        file.open()
    except OSError as error:
        # On a full disk, what frees space has to start. Each entry tries again.
        if error.errno != errno.ENOSPC:
            raise StartError(f"log.audit: {path}: {error.strerror}") from error
    return file


async def record_change_of_rules(
    audit: IAuditLog, configuration: Configuration, driver: IStorageDriver
) -> None:
    """Record if the store was last served with other rules about users and access.

    The store keeps a digest of the rules.
    """
    now = rules_digest(configuration)
    try:
        try:
            content = await driver.get(layout.RULES_DIGEST, _MAX_DIGEST_BYTES)
        except PathNotFound:
            content = b""
        before = content.decode("ascii", "replace")
        if before == now:
            return
        audit.record(AuditRecord("rules.change", detail={"before": before, "now": now}))
        if not configuration.storage.maintenance.readonly.enabled:
            await driver.put(layout.RULES_DIGEST, now.encode("ascii"))
    except StorageError as error:
        log.warn("log.audit: the digest of the rules cannot be kept: {error}", error=str(error))


def rules_digest(configuration: Configuration) -> str:
    """Return a digest of the sections that say who may do what."""
    data: dict[str, Any] = masked_data(configuration)
    users = data.get("http", {}).get("tls", {}).get("clientusers")
    rules = {"auth": data.get("auth"), "access": data.get("access"), "clientusers": users}
    text = json.dumps(rules, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
