"""Entries of the audit log for commands that change something.

They name the user of the operating system. A command does not start if its entry could not be
written, and writes none if the log is standard output, which has its own output.
"""

from __future__ import annotations

import os
import pwd
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from attrs import define, evolve

from twisted_registry.app.audit import open_audit_log
from twisted_registry.auth.audit import AuditRecord
from twisted_registry.frame.errors import CommandFailed, StartError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twisted_registry.config.loading import LoadedConfiguration

#: The field ``login`` of these entries.
_LOGIN = "command"


@define(eq=False)
class CommandEntry:
    """The entry of a command that is running.

    :ivar record: what is written when the command has ended.
    """

    record: AuditRecord

    def note(self, target: str = "", **detail: int | str) -> None:
        """Add what is known at the end only.

        :param target: what was acted on; the one that is set is kept if empty.
        :param detail: further fields; with ``failed`` above 0 it is the entry of a failure.
        """
        if detail.get("failed"):
            self.fail()
        record = self.record
        self.record = evolve(
            record, target=target or record.target, detail={**record.detail, **detail}
        )

    def fail(self) -> None:
        """Make it the entry of a command that has failed."""
        self.record = evolve(self.record, outcome="failure")


@contextmanager
def audited(
    loaded: LoadedConfiguration, event: str, *, repository: str = "", target: str = ""
) -> Iterator[CommandEntry]:
    """Write an entry when the block ends: a failure if it raises.

    :raises CommandFailed: if the audit log cannot be opened.
    """
    entry = CommandEntry(
        AuditRecord(event, user=_user(), login=_LOGIN, repository=repository, target=target)
    )
    try:
        log = open_audit_log(loaded.configuration, None, lambda: datetime.now(UTC).timestamp())
    except StartError as error:
        raise CommandFailed(f"{loaded.origin}: {error}") from error
    try:
        yield entry
    except BaseException:
        entry.fail()
        raise
    finally:
        if log is not None:
            log.record(entry.record)
            log.close()


def _user() -> str:
    """Return the name of the user who runs the command, or the number of one without a name."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
