"""When and why something was put into the trash: the names of the files there.

Such a name begins with the time, so that names sort by it, then says why, then ends with some
letters that make it unique. Nothing else need be kept of a blob, and nothing is opened to tell
whether its time has come.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import Enum
from uuid import uuid4

from attrs import frozen


_TIME_FORMAT = "%Y%m%dT%H%M%S.%fZ"


class TrashReason(Enum):
    """Why it was put there.

    COLLECTED: a collector found that nothing needs it. DELETED: somebody asked for it. MOVED: a tag
    names something else.
    """

    COLLECTED = "collected"
    DELETED = "deleted"
    MOVED = "moved"


@frozen
class TrashEntry:
    """The name of a file in the trash.

    :ivar seconds: when it was put there, in seconds since the epoch.
    """

    seconds: float
    reason: TrashReason
    unique: str

    @classmethod
    def make(cls, seconds: float, reason: TrashReason) -> TrashEntry:
        """A new one, unlike all others."""
        return cls(seconds, reason, uuid4().hex[:8])

    @classmethod
    def parse(cls, name: str) -> TrashEntry:
        """Read a name.

        :raises ValueError: if it is none of ours.
        """
        time, reason, unique = name.split("-")
        return cls(_seconds(time), TrashReason(reason), unique)

    def __str__(self) -> str:
        """The name."""
        moment = datetime.fromtimestamp(self.seconds, UTC)
        return f"{moment.strftime(_TIME_FORMAT)}-{self.reason.value}-{self.unique}"


def _seconds(time: str) -> float:
    return datetime.strptime(time, _TIME_FORMAT).replace(tzinfo=UTC).timestamp()
