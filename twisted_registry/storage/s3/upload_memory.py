"""The memory that all uploads of a process share: a hard bound, given in order of request.

A writer may accept bytes only if they fit into memory that its buffer was given before. The buffer
asks for the rest of the piece, or for less if the client is slow. A writer that has to wait stores
what it has and returns the memory, unless that is little, so that those who wait cannot block each
other. Memory that becomes free goes to the first in the queue.

While others wait, a writer whose client does not fill its memory in :data:`PATIENCE_S` seconds
gives it back.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred
from zope.interface import Interface

from twisted_registry.storage.writers import TRIM_THRESHOLD_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

# zope's methods have no self, and their bodies are their docstrings.
# ruff: noqa: N805
# mypy: disable-error-code="empty-body"

#: Bytes that a producer may write at once: one read of a socket.
READ_BYTES: Final = 1024 * 1024
#: Seconds in which a client should fill the memory that its buffer asks for.
_FILL_S: Final = 1.0
#: Seconds for which a writer may keep memory that it does not fill while others wait.
PATIENCE_S: Final = 1.0
#: The part of the memory that those who wait may keep.
_KEPT_FRACTION: Final = 4
#: Smaller writes are joined, so that the blocks of a piece take no more memory than its bytes.
_MIN_BLOCK_BYTES: Final = 16 * 1024


class IMemoryUser(Interface):
    """A user of the memory that can return a part of it early."""

    def give_up(before: float) -> None:
        """Return the memory that was granted before a time and is still empty.

        :param before: seconds, by the clock of the memory.
        """


@frozen(eq=False)
class _Request:
    """A request that waits.

    :ivar size: returns the bytes that it is for, at the moment.
    """

    size: Callable[[], int]
    granted: Deferred[int]


@define(eq=False)
class UploadMemory:
    """A number of bytes, given in order of request.

    :ivar limit: all bytes.
    :ivar clock: for the patience with slow users.
    :ivar on_idle: called when nothing is used any more, after :data:`TRIM_THRESHOLD_BYTES` were.
    :ivar used: bytes that are given.
    """

    limit: int
    clock: IReactorTime
    _on_idle: Callable[[], object] = lambda: None
    _given: int = field(init=False, default=0)
    used: int = field(init=False, default=0)
    _requests: deque[_Request] = field(init=False, factory=deque)
    _users: dict[IMemoryUser, None] = field(init=False, factory=dict)
    _call: IDelayedCall | None = field(init=False, default=None)

    def add_user(self, user: IMemoryUser) -> None:
        """Ask a user to give up memory when others wait."""
        self._users[user] = None

    def remove_user(self, user: IMemoryUser) -> None:
        """Ask a user no more."""
        self._users.pop(user, None)

    def take(self, size: int) -> bool:
        """Take bytes at once, and return whether they were free and nobody waits."""
        if self._requests or not self._fits(size):
            return False
        self._give(size)
        return True

    def take_excess(self, size: int) -> None:
        """Count bytes that are in memory already, even above the limit."""
        self._give(size)

    def acquire(self, size: Callable[[], int]) -> Deferred[int]:
        """Wait for bytes; fire with their number. Cancelling leaves the queue.

        More than the limit is given when nothing else is used.

        :param size: returns the number; called again whenever the request is the first.
        """

        def leave(_: Deferred[int]) -> None:
            self._requests.remove(request)
            self._serve()

        request = _Request(size, Deferred(leave))
        self._requests.append(request)
        self._serve()
        if self._requests and self._call is None:
            self._call = self.clock.callLater(PATIENCE_S, self._ask_users)
        return request.granted

    def may_keep(self, size: int) -> bool:
        """Return whether a user may keep bytes while it waits.

        If all that wait keep as many, most of the memory is left for others.
        """
        return size * len(self._requests) <= self.limit // _KEPT_FRACTION

    def release(self, size: int) -> None:
        """Return bytes."""
        if size:
            self.used -= size
            self._serve()
            if not self.used and self._given >= TRIM_THRESHOLD_BYTES:
                self._given = 0
                self._on_idle()

    def _fits(self, size: int) -> bool:
        return not self.used or self.used + size <= self.limit

    def _give(self, size: int) -> None:
        self.used += size
        self._given += size

    def _serve(self) -> None:
        """Give the first requests what is free. A request that is served may call any method."""
        while self._requests:
            size = self._requests[0].size()
            if not self._fits(size):
                return
            self._give(size)
            self._requests.popleft().granted.callback(size)
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _ask_users(self) -> None:
        self._call = None
        before = self.clock.seconds() - PATIENCE_S
        for user in tuple(self._users):
            user.give_up(before)
        if self._requests and self._call is None:
            self._call = self.clock.callLater(PATIENCE_S, self._ask_users)


@define(eq=False)
class BlockBuffer:
    """Collects blocks of bytes, and returns them in pieces of any size.

    :ivar size: bytes.
    """

    size: int = field(init=False, default=0)
    _blocks: list[bytes] = field(init=False, factory=list)
    _small: bytearray = field(init=False, factory=bytearray)

    def append(self, data: bytes) -> None:
        """Add bytes at the end."""
        self.size += len(data)
        if len(data) >= _MIN_BLOCK_BYTES:
            self._flush_small()
            self._blocks.append(data)
        else:
            self._small += data
            if len(self._small) >= _MIN_BLOCK_BYTES:
                self._flush_small()

    def take(self, size: int) -> list[bytes]:
        """Remove and return the first bytes.

        :param size: number of bytes, at most those collected.
        """
        self._flush_small()
        self.size -= size
        count = 0
        for block in self._blocks:
            if size < len(block):
                break
            size -= len(block)
            count += 1
        taken, self._blocks = self._blocks[:count], self._blocks[count:]
        if size:
            view = memoryview(self._blocks[0])
            taken.append(bytes(view[:size]))
            self._blocks[0] = bytes(view[size:])
        return taken

    def clear(self) -> None:
        """Remove all bytes."""
        self.take(self.size)

    def _flush_small(self) -> None:
        if self._small:
            self._blocks.append(bytes(self._small))
            self._small.clear()


@define(eq=False)
class UploadBuffer(BlockBuffer):
    """The bytes that a writer collects, in memory that was given for them.

    :ivar most: returns the most bytes that the writer can collect at the moment; 0 if it has them.
    :ivar on_grant: called when memory was given.
    """

    _memory: UploadMemory
    _most: Callable[[], int]
    _on_grant: Callable[[], object]
    _granted: int = field(init=False, default=0)
    _granted_at: float = field(init=False, default=0.0)
    #: bytes since the last grant, and how many are expected in the next seconds
    _received: int = field(init=False, default=0)
    _fill_bytes: int = field(init=False, default=READ_BYTES)
    _request: Deferred[int] | None = field(init=False, default=None)

    @property
    def has_room(self) -> bool:
        """Whether the next bytes of a producer fit."""
        return self._granted - self.size >= READ_BYTES

    def append(self, data: bytes) -> None:
        """Add bytes at the end. They are counted even if they do not fit."""
        super().append(data)
        self._received += len(data)
        excess = self.size - self._granted
        if excess > 0:
            self._memory.take_excess(excess)
            self._granted += excess

    def take(self, size: int) -> list[bytes]:
        """Remove and return the first bytes. The caller has to release their memory."""
        self._granted -= size
        return super().take(size)

    def take_room(self, size: int) -> bool:
        """Take memory for other bytes, and return whether there is enough.

        The caller has to release it.
        """
        if self._granted - self.size >= size:
            self._granted -= size
            return True
        return self._memory.take(size)

    def clear(self) -> None:
        """Remove all bytes, and release their memory."""
        size = self.size
        super().clear()
        self._memory.release(size)

    def ask(self) -> bool:
        """Ask for memory for the next bytes, unless the writer has all that it can collect.

        :returns: whether the writer should store what it has, because others need the memory.
        """
        if self._request is not None or not self._wanted():
            return False
        self._measure_client()
        self._request = request = self._memory.acquire(self._wanted)
        request.addCallbacks(self._grant, lambda failure: failure.trap(CancelledError))
        if request.called:
            return False
        self.return_unused()
        return not self._memory.may_keep(self.size)

    def is_slow(self, before: float) -> bool:
        """Return whether the client has not filled the memory that was given before a time.

        The next request is then for less.

        :param before: seconds, by the clock of the memory.
        """
        if not self._granted or self._granted_at > before or not self._most():
            return False
        if self._request is None:
            self._measure_client()
        return True

    def return_unused(self) -> None:
        """Return the memory that is not filled."""
        unused = self._granted - self.size
        self._granted -= unused
        self._memory.release(unused)

    def stop_asking(self) -> None:
        """Return the memory that is not filled, and do not wait for more."""
        request, self._request = self._request, None
        if request is not None:
            request.cancel()
        self.return_unused()

    def _measure_client(self) -> None:
        """Estimate what the client sends in :data:`_FILL_S` seconds by what it has sent."""
        if self._granted:
            elapsed_s = self._memory.clock.seconds() - self._granted_at
            sent = self._received * _FILL_S / max(elapsed_s, 0.001)
            self._fill_bytes = max(int(sent), READ_BYTES)

    def _wanted(self) -> int:
        """Return how many more bytes to ask for, with the overshoot of a read."""
        most = self._most()
        if not most:
            return 0
        wanted = min(most, self.size + self._fill_bytes) + READ_BYTES
        return max(wanted - self._granted, 0)

    def _grant(self, size: int) -> None:
        self._request = None
        self._granted += size
        self._granted_at, self._received = self._memory.clock.seconds(), 0
        self._on_grant()
