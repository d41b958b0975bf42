"""How much memory the uploads of one process may hold, all together.

An upload sends large parts, which it must hold until the store has them. One alone may hold two
parts; a hundred at once must not hold a hundred times that. When memory is short, whoever holds
enough for a part sends it, however large the configured parts are; and if nobody does, the one
that holds most of what can be sent sends it. Who can send no less than a part, because parts were
sent before, is never kept waiting below that: there are few of those (:class:`Slots`).
"""

# zope's methods have no self, and their bodies are their docstrings.
# mypy: disable-error-code="empty-body"

from __future__ import annotations

from attrs import define, field
from zope.interface import Attribute, Interface


class IHolder(Interface):
    """Somebody who holds bytes until the store has them."""

    collected: int = Attribute("Bytes that are not on their way yet.")
    flying: bool = Attribute("Whether bytes are on their way, so that some will be free soon.")

    can_spill: bool = Attribute("Whether what is collected could be sent now.")

    def spill() -> None:
        """Send what is collected, even if it is little."""

    def resume() -> None:
        """Take more bytes, unless there is another reason not to."""


@define(eq=False)
class Budget:
    """The bytes of all holders.

    :ivar limit: bytes beyond which nobody takes more, as a rule.
    """

    limit: int
    _held: dict[IHolder, int] = field(init=False, factory=dict)
    _total: int = field(init=False, default=0)

    @property
    def is_spent(self) -> bool:
        """Whether there is no memory left to take."""
        return self._total >= self.limit

    def hold(self, holder: IHolder, size: int) -> None:
        """Take note that a holder holds ``size`` bytes now."""
        before = self._held.pop(holder, 0)
        if size:
            self._held[holder] = size
        self._total += size - before
        if size < before and not self.is_spent:
            for other in tuple(self._held):
                other.resume()
        elif size < before:
            self.relieve()

    def relieve(self) -> None:
        """If no memory is left, see to it that some will be."""
        if not self.is_spent or any(holder.flying for holder in self._held):
            return
        able = [holder for holder in self._held if holder.can_spill]
        if able:
            max(able, key=lambda holder: holder.collected).spill()


@define(eq=False)
class Slots:
    """How many may do at once what holds memory that can not be freed early.

    :ivar free: how many more.
    """

    free: int

    def take(self) -> bool:
        """Take one, if there is one."""
        if self.free <= 0:
            return False
        self.free -= 1
        return True

    def give(self) -> None:
        """Give one back."""
        self.free += 1
