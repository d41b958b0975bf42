"""How much memory the uploads of one process may hold, all together.

An upload sends large parts, which it must hold until the store has them. One alone may hold two
parts; a hundred at once must not hold a hundred times that. When memory is short, whoever holds
enough for a part sends it, however large the configured parts are; and if nobody does, the one
that holds most of what can be sent sends it. Who can send no less than a part, because parts were
sent before, is never kept waiting below that: there are few of those (:class:`PartUploadSlots`).
"""

# zope's methods have no self, and their bodies are their docstrings.
# mypy: disable-error-code="empty-body"

from __future__ import annotations

from attrs import define, field
from zope.interface import Attribute, Interface


class IMemoryUser(Interface):
    """Somebody who holds bytes until the store has them."""

    buffered: int = Attribute("Bytes that are not on their way yet.")
    is_uploading: bool = Attribute("Whether bytes are on their way, so that some will be free soon.")

    can_send_early: bool = Attribute("Whether what is collected could be sent now.")

    def send_early() -> None:
        """Send what is collected, even if it is little."""

    def resume() -> None:
        """Take more bytes, unless there is another reason not to."""


@define(eq=False)
class MemoryBudget:
    """The bytes of all holders.

    :ivar limit: bytes beyond which nobody takes more, as a rule.
    """

    limit: int
    _held_bytes: dict[IMemoryUser, int] = field(init=False, factory=dict)
    _total: int = field(init=False, default=0)

    @property
    def is_exhausted(self) -> bool:
        """Whether there is no memory left to take."""
        return self._total >= self.limit

    def set_held(self, user: IMemoryUser, size: int) -> None:
        """Take note that a holder holds ``size`` bytes now."""
        before = self._held_bytes.pop(user, 0)
        if size:
            self._held_bytes[user] = size
        self._total += size - before
        if size < before and not self.is_exhausted:
            for other in tuple(self._held_bytes):
                other.resume()
        elif size < before:
            self.free_memory()

    def free_memory(self) -> None:
        """If no memory is left, see to it that some will be."""
        if not self.is_exhausted or any(user.is_uploading for user in self._held_bytes):
            return
        able = [user for user in self._held_bytes if user.can_send_early]
        if able:
            max(able, key=lambda user: user.buffered).send_early()


@define(eq=False)
class PartUploadSlots:
    """How many may do at once what holds memory that can not be freed early.

    :ivar free: how many more.
    """

    available: int

    def acquire(self) -> bool:
        """Take one, if there is one."""
        if self.available <= 0:
            return False
        self.available -= 1
        return True

    def release(self) -> None:
        """Give one back."""
        self.available += 1
