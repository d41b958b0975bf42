"""Interfaces of plug-ins of the domain: the collector's gate, and listeners to events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from attrs import define, field, frozen
from zope.interface import Interface, implementer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Sequence
    from contextlib import AbstractAsyncContextManager

    from twisted.internet.defer import Deferred

    from twisted_registry.oci.digest import Digest

# zope's methods have no self.
# ruff: noqa: N805


class IPresenceGate(Interface):
    """Asked before a blob or manifest is reported present.

    A collector that is about to remove content refuses, or records that it is wanted.
    :mod:`twisted_registry.gc.gate` describes the protocol of the four methods.
    """

    def may_report_present(repository: str | None, digest: Digest) -> bool | Deferred[bool]:
        """Return whether content may be reported present, at once or by a Deferred.

        :param repository: the repository of the request, None for the store as a whole.
        """

    def wait_until_unlisted(repository: str, digests: Iterable[Digest]) -> Awaitable[None]:
        """Wait until ``digests`` are not being removed, for some seconds at most.

        Called before a manifest is refused because content that it needs is missing, and before
        HEAD of a manifest by digest denies it: a collector may be about to release the content, or
        have released it since.
        """

    def protect_push(repository: str, digest: Digest) -> AbstractAsyncContextManager[None]:
        """Prevent the removal of a blob or manifest while it is stored, inside the block.

        :raises RegistryError: UNAVAILABLE, if it is being removed.
        """

    def find_listed(repository: str, digests: Iterable[Digest]) -> Awaitable[Sequence[Digest]]:
        """Return which of ``digests`` are about to be removed, by the current list in the store.

        Called after a manifest has its link, and before its push is answered.
        """


@frozen
class Origin:
    """The cause of an event.

    :ivar user: the name of the authenticated user, or empty.
    :ivar address: the address of the client.
    :ivar method: the method of the request.
    :ivar host: the host in the request.
    :ivar user_agent: the field of the request.
    :ivar request_id: as in the log.
    :ivar api_url: the URL of the API as the client sees it, such as ``https://host/v2/``.
    """

    user: str = ""
    address: str = ""
    method: str = ""
    host: str = ""
    user_agent: str = ""
    request_id: str = ""
    api_url: str = ""


@frozen
class Event:
    """A push, pull, mount or delete of content.

    :ivar kind: the kind of content.
    :ivar digest: None if only a tag was deleted.
    :ivar size: in bytes, or None if it was not determined.
    :ivar tag: the tag of the request, or the tag that was set, or None.
    :ivar source: the repository that a blob was mounted from, or None.
    :ivar content: the bytes of a manifest that was pushed or pulled, otherwise None; not compared,
        since the digest is.
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
    content: bytes | None = field(default=None, repr=False, eq=False)


class IRegistryListener(Interface):
    """Receives events, after their effect is durable and before the client gets its response."""

    def handle_event(event: Event) -> None:
        """Handle an event; must neither block nor raise."""


@implementer(IRegistryListener)
@frozen
class CombinedListener:
    """Passes each event to several listeners, in order."""

    listeners: tuple[IRegistryListener, ...]

    def handle_event(self, event: Event) -> None:
        """Pass an event on."""
        for listener in self.listeners:
            listener.handle_event(event)


@define(eq=False)  # one per request; creating a frozen instance is slower
class EventPublisher:
    """Publishes the events of one request to one repository.

    :ivar listener: None discards them.
    """

    listener: IRegistryListener | None
    repository: str
    origin: Origin

    def __call__(
        self,
        action: Literal["push", "pull", "mount", "delete"],
        kind: Literal["blob", "manifest", "tag"],
        digest: Digest | None,
        **fields: Any,
    ) -> None:
        """Publish an event; ``fields`` are further fields of :class:`Event`."""
        if self.listener is not None:
            self.listener.handle_event(
                Event(action, kind, self.repository, digest, self.origin, **fields)
            )
