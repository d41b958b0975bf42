"""Sections of Distribution that are read and checked but not served yet.

``health`` adds a warning, ``proxy.remoteurl`` is rejected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_registry.config import values
from twisted_registry.config.kinds import (
    ListOf,
    Scalar,
    boolean,
    duration,
    headers,
    integer,
    text,
)
from twisted_registry.config.sections import Section, SectionBase, key, section

if TYPE_CHECKING:
    from collections.abc import Mapping


class Exec(SectionBase):
    """``proxy.exec``."""

    command: str = key(text("a path"), "The docker-credential-helper.")
    lifetime: float | None = key(duration(), "How long its credentials are used.", default=None)


class Proxy(SectionBase):
    """``proxy``."""

    remoteurl: str = key(text("a URL"), "The upstream registry.")
    username: str = key(text(), "The user name at the upstream registry.")
    password: str = key(text(), "The password at the upstream registry.", secret=True)
    exec: Exec | None = key(Section(Exec), "A program that provides the credentials.")
    ttl: float = key(
        duration(), "How long content is kept; 0 is without a limit.", default=168 * 3600.0
    )
    cachewritetimeout: float = key(
        duration(), "The timeout of storing pulled content.", default=300.0
    )


class StorageHealth(SectionBase):
    """``health.storagedriver``."""

    enabled: bool = key(boolean(), "Check the store at intervals.")
    interval: float = key(duration(), "The time between two checks.", default=10.0)
    threshold: int = key(integer(0), "The number of consecutive failures that count as unhealthy.")


class FileHealth(SectionBase):
    """``health.file[]``."""

    file: str = key(
        text("a path"), "The registry is unhealthy while this file exists.", required=True
    )
    interval: float = key(duration(), "The time between two checks.", default=10.0)
    threshold: int = key(integer(0), "Accepted; has no effect.")


class HttpHealth(SectionBase):
    """``health.http[]``."""

    uri: str = key(
        Scalar("an absolute http or https URL", values.url),
        "The URL that is checked with HEAD.",
        required=True,
    )
    headers: Mapping[str, tuple[str, ...]] = key(headers(), "Headers of the request.", secret=True)
    statuscode: int = key(integer(0, 999), "The expected status.", default=200)
    timeout: float = key(duration(), "The timeout of the request.")
    interval: float = key(duration(), "The time between two checks.", default=10.0)
    threshold: int = key(integer(0), "The number of consecutive failures that count as unhealthy.")


class TcpHealth(SectionBase):
    """``health.tcp[]``."""

    addr: str = key(text("HOST:PORT"), "The address that is connected to.", required=True)
    timeout: float = key(duration(), "The timeout of the connection.")
    interval: float = key(duration(), "The time between two checks.", default=10.0)
    threshold: int = key(integer(0), "The number of consecutive failures that count as unhealthy.")


class Health(SectionBase):
    """``health``."""

    storagedriver: StorageHealth = section(StorageHealth, "Checks of the store.")
    file: tuple[FileHealth, ...] = key(
        ListOf("a list of checks", Section(FileHealth)), "Checks of files."
    )
    http: tuple[HttpHealth, ...] = key(
        ListOf("a list of checks", Section(HttpHealth)), "Checks of HTTP servers."
    )
    tcp: tuple[TcpHealth, ...] = key(
        ListOf("a list of checks", Section(TcpHealth)), "Checks of TCP servers."
    )
