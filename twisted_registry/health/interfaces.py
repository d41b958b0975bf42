"""Interfaces of health checks, and the state of a registry that follows from them."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any

from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from collections.abc import Coroutine

# zope's methods have no self, and their bodies are their docstrings.
# mypy: disable-error-code="empty-body"


class HealthState(IntEnum):
    """STARTING: some check has not run yet; FAILING: requests are answered 503."""

    STARTING = 0
    HEALTHY = 1
    FAILING = 2


class CheckFailed(Exception):
    """A check has found that something does not work; the text says what."""


class ICheck(Interface):
    """Looks at one thing that the registry needs."""

    name: str = Attribute("The name in logs and on the debug address; without secrets.")

    def run() -> Coroutine[Any, Any, None]:
        """Look once. The coroutine may be cancelled.

        :raises Exception: if the check fails; the text is the reason.
        """


class IHealth(Interface):
    """Says in what state the registry is."""

    def state() -> int:
        """Return a :class:`HealthState`, as a number; called for each request."""
