"""What readers and writers promise: how the bytes of a driver's files stream.

See :mod:`twisted_registry.storage.interfaces` for drivers, paths and errors.
"""

# zope's methods have no self, and their bodies are their docstrings.
# ruff: noqa: N805
# mypy: disable-error-code="empty-body"

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.interfaces import IConsumer
from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.defer import Deferred

    from twisted_registry.storage.interfaces import Change


class IReader(Interface):
    """An open stretch of a file. It stays readable when the path is moved or deleted."""

    size: int = Attribute("Bytes that deliver() will write.")

    def deliver(consumer: IConsumer) -> Deferred[None]:
        """Write the whole stretch to ``consumer`` as a push producer, and close.

        Cancelling the Deferred stops at once and closes. It fails with a ``StorageError`` if fewer
        bytes than ``size`` could be read, after what there was has been written.
        """

    def feed(observe: Callable[[bytes], object]) -> Deferred[None]:
        """Call ``observe`` with the whole stretch, in order, and close.

        The calls are made on the thread that reads: where a hash is best computed. Fails and
        cancels as :meth:`deliver` does.
        """

    def fileno() -> int | None:
        """Return a descriptor of a local file for a kernel copy, or None.

        It belongs to the reader, whose position it does not use: read with offsets.
        """

    def offset() -> int:
        """Return where in the file of :meth:`fileno` the stretch begins."""

    def close() -> None:
        """Free what is held, and cancel what is under way. Safe to call twice."""


class IWriter(IConsumer):
    """The one writer of a path.

    ``write`` never blocks. The registered producer (push only) is paused while more than a
    few MiB wait to be stored, and told to stop when storing fails; the error itself comes
    from the next ``flush``, ``commit`` or ``close``, and from every later ``flush`` and
    ``commit``; ``size`` is then what is stored. The path is locked until ``close`` or
    ``cancel``, which free everything even when they fail.
    """

    size: int = Attribute("Bytes under the path, those still in flight included.")
    mark: str = Attribute(
        "Which bytes are stored, once ``flush`` or ``commit`` has fired: a writer that finds the"
        " same mark finds the same bytes. Where no other writer can come between: always empty."
    )

    def flush() -> Deferred[int]:
        """Fire with the size once all written so far is stored, readable and power-cut proof."""

    def commit() -> Deferred[int]:
        """Declare the file whole, and fire with the size once its bytes are power-cut proof.

        Nothing more will be written. The file can be read, moved or deleted while the writer
        still keeps others away; its name is power-cut proof once it is moved (or after
        ``flush``), which saves syncing a name that does not stay.
        """

    def finalize(decide: Callable[[int], Sequence[Change]]) -> Deferred[int]:
        """Commit, make the changes that ``decide`` answers, close; fire with the size.

        All in one go where that saves time. ``decide`` is called with the size, on the thread
        that stores, when everything is stored and was observed. The changes are made in order,
        under the lock of this path, and are power-cut proof when the Deferred fires; before a
        ``Remove`` what stands before it is. The first that fails ends it. If that, or an
        exception of ``decide``, fails the Deferred, the writer is still open.
        """

    def close() -> Deferred[int]:
        """Stop writing, keep what is stored for a later writer, and unlock.

        What was written is stored, but only ``flush`` and ``commit`` make it last. Safe to call
        after any of them, and twice.
        """

    def cancel() -> Deferred[None]:
        """Stop writing, remove the file, and unlock."""
