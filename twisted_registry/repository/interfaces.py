"""What is plugged into the domain: the collector's gate, and whoever wants to hear of events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from attrs import frozen
from zope.interface import Interface, implementer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Sequence
    from contextlib import AbstractAsyncContextManager

    from twisted.internet.defer import Deferred

    from twisted_registry.oci.digest import Digest

# zope's methods have no self.
# ruff: noqa: N805


class IPresenceGate(Interface):
    """Asked before anybody is told that a blob or manifest is here.

    A collector that is about to remove something says no, or notes that it is wanted.
    :mod:`twisted_registry.gc.gate` says how the three work together.
    """

    def may_report_present(repository: str | None, digest: Digest) -> bool | Deferred[bool]:
        """Whether the content may be called present, at once or as a Deferred.

        :param repository: the repository that is asked, None for the store as a whole.
        """

    def wait_until_unlisted(repository: str, digests: Iterable[Digest]) -> Awaitable[None]:
        """Wait until ``digests`` are not being removed, for some seconds at most.

        Asked before a manifest is refused for what it needs: a collector may be about to let go
        of it, or have done so already.
        """

    def protect_push(repository: str, digest: Digest) -> AbstractAsyncContextManager[None]:
        """Keep a blob or manifest from being removed while it is stored, inside the block.

        :raises RegistryError: UNAVAILABLE, if it is being removed just now.
        """

    def find_listed(repository: str, digests: Iterable[Digest]) -> Awaitable[Sequence[Digest]]:
        """Which of ``digests`` are about to be removed, as the store itself says at this moment.

        Asked when a manifest has its link and before its push is answered.
        """


@frozen
class Origin:
    """Who caused an event, as the edge knows it.

    :ivar user: the name that was authenticated, or empty.
    :ivar address: of the client.
    :ivar method: of the request.
    :ivar host: that the client asked for.
    :ivar user_agent: as sent.
    :ivar request_id: as logged.
    """

    user: str = ""
    address: str = ""
    method: str = ""
    host: str = ""
    user_agent: str = ""
    request_id: str = ""


@frozen
class Event:
    """Something that happened to content.

    :ivar kind: what kind of content.
    :ivar digest: None where only a tag was removed.
    :ivar size: bytes, or None if it was not looked up.
    :ivar tag: by which it was reached or that was set, or None.
    :ivar source: the repository that a blob was mounted from, or None.
    """

    action: Literal["push", "pull", "mount", "delete"]
    kind: Literal["blob", "manifest", "tag"]
    repository: str
    digest: Digest | None
    origin: Origin
    size: int | None = None
    media_type: str | None = None
    tag: str | None = None
    source: str | None = None


class IRegistryListener(Interface):
    """Hears of what happened, after it is durable and before the client is answered."""

    def handle_event(event: Event) -> None:
        """Take note; must neither block nor raise."""


@implementer(IRegistryListener)
class NullListener:
    """Listens to nothing."""

    def handle_event(self, event: Event) -> None:
        """Pass over it."""


@frozen
class EventPublisher:
    """Tells the listener of what one request did to one repository."""

    listener: IRegistryListener
    repository: str
    origin: Origin

    def __call__(
        self,
        action: Literal["push", "pull", "mount", "delete"],
        kind: Literal["blob", "manifest", "tag"],
        digest: Digest | None,
        **fields: Any,
    ) -> None:
        """Announce an event; ``fields`` are further fields of :class:`Event`."""
        if isinstance(self.listener, NullListener):
            return
        self.listener.handle_event(
            Event(action, kind, self.repository, digest, self.origin, **fields)
        )
