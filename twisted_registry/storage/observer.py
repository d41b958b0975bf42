"""Who is told how long storage takes: metrics, usually."""

# zope's methods have no self, and their bodies are their docstrings.
# ruff: noqa: N805

from __future__ import annotations

from zope.interface import Interface


class IStorageObserver(Interface):
    """Told of every call to a driver."""

    def call_ended(driver: str, action: str, seconds: float, failed: bool) -> None:  # noqa: FBT001
        """Take note of a call that has ended.

        :param driver: the driver's name.
        :param action: the method's name.
        :param seconds: from the call until its Deferred fired; for ``open`` and ``writer`` until
            the stream was open.
        :param failed: whether the store broke down. That something is not there, exists or is
            busy is an answer, not a failure.
        """
