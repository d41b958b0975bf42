"""The ``notifications`` section: who is told of pushes, pulls, mounts and deletes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted_registry.config import values
from twisted_registry.config.kinds import (
    ListOf,
    Scalar,
    boolean,
    choice,
    duration,
    headers,
    integer,
    text,
    text_list,
)
from twisted_registry.config.sections import Section, SectionBase, key, section

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from twisted_registry.config.document import Report
    from twisted_registry.config.storage import Storage

#: The formats of requests, the default first.
FORMATS: Final = ("distribution", "distribution-v1", "cloudevents")
DEFAULT_TIMEOUT_S: Final = 1.0
DEFAULT_THRESHOLD: Final = 10
DEFAULT_BACKOFF_S: Final = 1.0
DEFAULT_MAX_EVENTS: Final = 100_000


class Ignore(SectionBase):
    """``notifications.endpoints[].ignore``."""

    mediatypes: tuple[str, ...] = key(
        text_list(),
        "Media types whose events are not sent; that of blobs is ``application/octet-stream``.",
    )
    actions: tuple[str, ...] = key(
        ListOf("a list of actions", choice("pull", "push", "mount", "delete")),
        "Actions whose events are not sent.",
    )


class Endpoint(SectionBase):
    """``notifications.endpoints[]``."""

    name: str = key(
        Scalar("text that is not empty", values.nonempty_text),
        "The name in logs, metrics and the queue; events that wait belong to it.",
        required=True,
    )
    disabled: bool = key(boolean(), "Ignore this entry.")
    url: str = key(
        Scalar("an absolute http or https URL", values.url),
        "The URL that events are sent to, each with a POST. User and password in it are sent as"
        " Basic authentication.",
        required=True,
    )
    headers: Mapping[str, tuple[str, ...]] = key(headers(), "Headers of each request.", secret=True)
    timeout: float = key(
        duration(),
        "The time that a request may take until its response has arrived; 0 is the default.",
        default=DEFAULT_TIMEOUT_S,
    )
    threshold: int = key(
        integer(0),
        "The number of consecutive failures after which each attempt is preceded by a pause; 0 is"
        " the default.",
        default=DEFAULT_THRESHOLD,
    )
    backoff: float = key(
        duration(), "The length of the pause; 0 is the default.", default=DEFAULT_BACKOFF_S
    )
    ignoredmediatypes: tuple[str, ...] = key(text_list(), "The old name of ``ignore.mediatypes``.")
    ignore: Ignore = section(Ignore, "Events that are not sent.")
    format: str = key(
        choice(*FORMATS),
        "The format of the body: ``distribution`` is the envelope of Distribution 3 (media type"
        " ``application/vnd.docker.distribution.events.v2+json``), ``distribution-v1`` that of"
        " Distribution 2.8, ``cloudevents`` is CloudEvents 1.0 in JSON.",
        default=FORMATS[0],
        extension=True,
    )
    secret: str = key(
        text(),
        "A secret that the endpoint knows too. With it each request has the header"
        " ``X-Hub-Signature-256``: ``sha256=`` and the HMAC-SHA256 of the body in hexadecimal.",
        secret=True,
        extension=True,
    )


class Events(SectionBase):
    """``notifications.events``."""

    includereferences: bool = key(
        boolean(), "List what a manifest refers to in its events, up to 1000 descriptors."
    )


class Queue(SectionBase):
    """``notifications.queue``."""

    path: str = key(
        text("a path"),
        "The SQLite file of the events that wait, on a local disk; each machine needs a file of its"
        " own. By default ``twisted-registry/notifications/events.sqlite`` in the ``rootdirectory``"
        " of ``storage.filesystem``. With another store, or a read-only one, events wait in memory"
        " if this is not set, and are lost when the registry ends.",
    )
    maxevents: int = key(
        integer(1),
        "The number of events that wait for each endpoint, those that it has refused included."
        " Beyond it the oldest are dropped.",
        default=DEFAULT_MAX_EVENTS,
    )


class Notifications(SectionBase):
    """``notifications``."""

    events: Events = section(Events, "The content of events.")
    endpoints: tuple[Endpoint, ...] = key(
        ListOf("a list of endpoints", Section(Endpoint)), "The receivers of events."
    )
    queue: Queue = section(Queue, "Where events wait until they are sent.", extension=True)

    @property
    def enabled_endpoints(self) -> Sequence[Endpoint]:
        """The endpoints that are not disabled."""
        return tuple(endpoint for endpoint in self.endpoints if not endpoint.disabled)


def check_notifications(notifications: Notifications, storage: Storage, report: Report) -> None:
    """Report endpoints that share a name, and a queue that does not survive the process."""
    seen = set()
    for number, endpoint in enumerate(notifications.endpoints):
        if endpoint.disabled:
            continue
        if endpoint.name in seen:
            report.add_fault(
                f"notifications.endpoints[{number}].name",
                "another endpoint has this name",
                "a name of its own",
            )
        seen.add(endpoint.name)
    is_lasting = storage.filesystem is not None or "inmemory" in storage.drivers
    if seen and not is_lasting and not notifications.queue.path:
        report.add_warning(
            "notifications.queue.path",
            "not set: events that wait are in memory, and are lost when the registry ends",
        )
