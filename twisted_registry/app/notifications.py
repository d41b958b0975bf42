"""The notifications of a configuration: listener, queue and senders.

Imported only where endpoints are configured: it imports SQLite and an HTTP client.
"""

from __future__ import annotations

import os
import socket
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.logger import Logger

from twisted_registry.config.notifications import (
    DEFAULT_BACKOFF_S,
    DEFAULT_THRESHOLD,
    DEFAULT_TIMEOUT_S,
)
from twisted_registry.doctor.files import check_folder
from twisted_registry.frame.errors import StartError
from twisted_registry.http.client import make_agent
from twisted_registry.http.client_proxies import ProxyInvalid, find_proxy
from twisted_registry.notifications.envelope import EventSource
from twisted_registry.notifications.listener import EventFilter, NotificationListener
from twisted_registry.notifications.queue import IN_MEMORY, EventCount, EventQueue, QueueDamaged
from twisted_registry.notifications.sender import Attempt, EndpointSender, EndpointSettings
from twisted_registry.repository import layout
from twisted_registry.storage.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted.web.iweb import IAgent

    from twisted_registry.config.notifications import Endpoint, Notifications
    from twisted_registry.config.schema import Configuration
    from twisted_registry.metrics.interfaces import INotificationsObserver
    from twisted_registry.tracing.export import Tracing

log = Logger()


def queue_path(configuration: Configuration, *, read_only: bool) -> str:
    """Return the path of the queue, or :data:`~twisted_registry.notifications.queue.IN_MEMORY`.

    :param read_only: whether the registry was started read-only.
    """
    configured = configuration.notifications.queue.path
    filesystem = configuration.storage.filesystem
    if configured:
        return str(Path(configured).absolute())
    if filesystem is None or read_only:
        return IN_MEMORY
    return str(Path(filesystem.rootdirectory).absolute() / layout.EVENT_QUEUE)


class NotificationService(MultiService):
    """The notifications of one process.

    All processes of a registry store events in one queue, which the first one sends. A queue in
    memory belongs to its process, which sends its own events.

    :ivar listener: takes the events of this process.
    """

    def __init__(
        self,
        configuration: Configuration,
        reactor: Any,
        observer: INotificationsObserver | None,
        *,
        instance_id: str,
        is_first: bool,
        has_own_store: bool,
        read_only: bool,
        environ: Mapping[str, str],
        tracing: Tracing | None = None,
    ) -> None:
        """Make all parts; nothing is opened yet.

        :param observer: counts what becomes of events.
        :param instance_id: identifies the registry in events; another one after each start.
        :param is_first: whether this is the first process of the registry.
        :param has_own_store: whether the store is the one that the configuration names.
        :param read_only: whether the registry was started read-only.
        :param environ: environment variables, which may name proxies.
        :param tracing: makes attempts part of the traces of their events; None for no tracing.
        :raises StartError: if a variable that applies to an endpoint is not a supported proxy.
        """
        super().__init__()
        self.setName("notifications")
        notifications = configuration.notifications
        endpoints = notifications.enabled_endpoints
        for endpoint in endpoints:
            _check_proxy(endpoint, environ)
        path = queue_path(configuration, read_only=read_only)
        if not (has_own_store or notifications.queue.path):
            path = IN_MEMORY
        self._is_lasting = path != IN_MEMORY
        self._is_configured = bool(notifications.queue.path)
        self._queue = EventQueue(path, notifications.queue.maxevents)
        self._thread = Threads(reactor, 1, "notifications")
        self._names = [endpoint.name for endpoint in notifications.endpoints]
        self._observer = observer
        self._preparing: Deferred[None] | None = None
        self._reactor = reactor
        self._environ = environ
        self._wrap_agent = _unchanged if tracing is None else tracing.wrap_agent
        self._sends = is_first or not self._is_lasting
        self._senders = [self._make_sender(endpoint) for endpoint in endpoints if self._sends]
        for sender in self._senders:
            sender.setServiceParent(self)
        self.listener = NotificationListener(
            [make_filter(endpoint) for endpoint in endpoints],
            self._queue,
            self._thread,
            reactor,
            EventSource(_own_address(configuration), instance_id),
            notifications.events.includereferences,
            self._events_stored,
            dict if tracing is None else tracing.headers,
        )

    def privilegedStartService(self) -> None:
        """Check that the configured file can be written.

        :raises StartError: if it cannot.
        """
        key, path = "notifications.queue.path", Path(self._queue.path)
        if self._is_configured:
            for finding in check_folder(key, str(path.parent)):
                raise StartError(str(finding))
            if path.exists() and not (path.is_file() and os.access(path, os.R_OK | os.W_OK)):
                raise StartError(f"{key}: {path} is not a file that the registry may write")
        super().privilegedStartService()

    def startService(self) -> None:
        """Remove the events of endpoints that are not configured any more, and begin to send."""
        if self._senders:
            self._preparing = Deferred.fromCoroutine(self._prepare())
        super().startService()

    async def use_endpoints(self, notifications: Notifications) -> None:
        """Send to other endpoints from now on. Those that are the same continue."""
        endpoints = notifications.enabled_endpoints
        self._names = [endpoint.name for endpoint in notifications.endpoints]
        self.listener.use_filters([make_filter(endpoint) for endpoint in endpoints])
        if not self._sends:
            return
        wanted = [make_settings(endpoint) for endpoint in endpoints]
        gone = [sender for sender in self._senders if sender.settings not in wanted]
        await DeferredList([maybeDeferred(sender.disownServiceParent) for sender in gone])
        kept = [sender for sender in self._senders if sender not in gone]
        known = [sender.settings for sender in kept]
        added = [
            self._make_sender(endpoint)
            for endpoint, settings in zip(endpoints, wanted, strict=True)
            if settings not in known
        ]
        self._senders = [*kept, *added]
        self._preparing = Deferred.fromCoroutine(self._prepare())
        for sender in added:
            sender.setServiceParent(self)

    def _make_sender(self, endpoint: Endpoint) -> EndpointSender:
        timeout_s = endpoint.timeout or DEFAULT_TIMEOUT_S
        return EndpointSender(
            make_settings(endpoint),
            self._queue,
            self._thread,
            self._wrap_agent(make_agent(self._reactor, timeout_s, self._environ)),
            self._reactor,
            self._attempt_ended,
        )

    async def close(self) -> None:
        """Store the last events, and close the queue; after the last request has ended."""
        await self.listener.close()
        if self._preparing is not None:
            await self._preparing
        if not self._is_lasting:
            count = sum(waiting for waiting, _ in (await self.counts()).values())
            if count:
                log.warn("notifications: {count} events were not sent, and are lost", count=count)
        await self._thread.run_blocking(self._queue.close)
        await self._thread.close()

    async def counts(self) -> Mapping[str, tuple[int, int]]:
        """Return how many events wait, and how many were refused, by endpoint.

        Endpoints without events are in it; it is empty if the queue cannot be used.
        """
        try:
            found = await self._thread.run_blocking(self._queue.counts)
        except (sqlite3.Error, OSError, QueueDamaged):
            return {}
        counts = {name: found.get(name, EventCount()) for name in self._names}
        return {name: (count.waiting, count.refused) for name, count in counts.items()}

    def _events_stored(self, added: Mapping[str, int], dropped: Mapping[str, int]) -> None:
        for sender in self._senders:
            sender.wake()
        if self._observer is not None:
            for endpoint, count in added.items():
                self._observer.events_stored(endpoint, count)
            for endpoint, count in dropped.items():
                self._observer.events_dropped(endpoint, count)

    def _attempt_ended(self, endpoint: str, attempt: Attempt) -> None:
        if self._observer is not None:
            self._observer.attempt_ended(endpoint, attempt.status, not attempt.error)

    async def _prepare(self) -> None:
        def work() -> tuple[Mapping[str, int], Mapping[str, EventCount]]:
            return self._queue.remove_other_endpoints(self._names), self._queue.counts()

        try:
            gone, counts = await self._thread.run_blocking(work)
        except (sqlite3.Error, OSError, QueueDamaged) as error:
            log.error(
                "notifications: queue={path}: it cannot be used: {error}",
                path=self._queue.path, error=str(error),
            )  # fmt: skip
            return
        for name in self._names:
            found = counts.get(name, EventCount())
            log.info(
                "notifications: endpoint={endpoint} waiting={waiting} refused={refused}",
                endpoint=name, waiting=found.waiting, refused=found.refused,
            )  # fmt: skip
        for name, count in gone.items():
            log.warn(
                "notifications: endpoint={endpoint}: not configured any more, {count} events are"
                " removed",
                endpoint=name, count=count,
            )  # fmt: skip


def make_settings(endpoint: Endpoint) -> EndpointSettings:
    """Make the settings of a sender."""
    return EndpointSettings(
        endpoint.name,
        endpoint.url,
        endpoint.headers,
        endpoint.timeout or DEFAULT_TIMEOUT_S,
        endpoint.threshold or DEFAULT_THRESHOLD,
        endpoint.backoff or DEFAULT_BACKOFF_S,
        endpoint.format,
        endpoint.secret,
    )


def make_filter(endpoint: Endpoint) -> EventFilter:
    """Make the filter of an endpoint."""
    ignore = endpoint.ignore
    media_types = frozenset((*ignore.mediatypes, *endpoint.ignoredmediatypes))
    return EventFilter(endpoint.name, media_types, frozenset(ignore.actions))


def _check_proxy(endpoint: Endpoint, environ: Mapping[str, str]) -> None:
    url = urlsplit(endpoint.url)
    try:
        find_proxy(environ, url.scheme, url.netloc.rpartition("@")[2])
    except ProxyInvalid as error:
        raise StartError(f"notifications.endpoints: {endpoint.name}: {error}") from error


def _unchanged(agent: IAgent) -> IAgent:
    return agent


def _own_address(configuration: Configuration) -> str:
    port = configuration.http.address.port
    return f"{socket.gethostname()}:{port}" if port else socket.gethostname()
