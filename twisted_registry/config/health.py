"""The section ``health``: checks that make the registry answer 503 while they fail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted_registry.config import values
from twisted_registry.config.http import parse_host_and_port
from twisted_registry.config.kinds import ListOf, Scalar, boolean, duration, headers, integer, text
from twisted_registry.config.sections import Section, SectionBase, key, section

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted_registry.config.document import Node

_DEFAULT_INTERVAL_S: Final = 10.0
_INTERVAL: Final = "The time between two checks; 0 is 10s. At least 100ms are used."
_THRESHOLD: Final = "How many checks have to fail in a row before it counts; 0 is 1."


def _ascii_url(node: Node) -> str:
    url = values.url(node)
    if not url.isascii():
        raise ValueError
    return url


def _tcp_address(node: Node) -> str:
    address = values.text(node)
    if not parse_host_and_port(address).port:
        raise ValueError
    return address


class StorageHealth(SectionBase):
    """``health.storagedriver``."""

    enabled: bool = key(boolean(), "Check that the store answers.")
    interval: float = key(duration(), _INTERVAL, default=_DEFAULT_INTERVAL_S)
    threshold: int = key(integer(0), _THRESHOLD)


class FileHealth(SectionBase):
    """``health.file[]``."""

    file: str = key(text("a path"), "The check fails while this file exists.", required=True)
    interval: float = key(duration(), _INTERVAL, default=_DEFAULT_INTERVAL_S)
    threshold: int = key(integer(0), "Accepted; has no effect.")


class HttpHealth(SectionBase):
    """``health.http[]``."""

    uri: str = key(
        Scalar("an absolute http or https URL in ASCII", _ascii_url),
        "The URL that is asked with HEAD; redirects are followed. A user and a password in it are"
        " sent for Basic authentication. Variables such as ``HTTP_PROXY`` have no effect.",
        required=True,
    )
    headers: Mapping[str, tuple[str, ...]] = key(headers(), "Headers of the request.", secret=True)
    statuscode: int = key(
        integer(0, 999), "The status without which the check fails; 0 is 200.", default=200
    )
    timeout: float = key(duration(), "The timeout of a check; 0 is 30s.")
    interval: float = key(duration(), _INTERVAL, default=_DEFAULT_INTERVAL_S)
    threshold: int = key(integer(0), _THRESHOLD)


class TcpHealth(SectionBase):
    """``health.tcp[]``."""

    addr: str = key(
        Scalar("HOST:PORT", _tcp_address),
        "The address that is connected to; without a host this machine.",
        required=True,
    )
    timeout: float = key(duration(), "The timeout of a check; 0 is 30s.")
    interval: float = key(duration(), _INTERVAL, default=_DEFAULT_INTERVAL_S)
    threshold: int = key(integer(0), _THRESHOLD)


class Health(SectionBase):
    """``health``."""

    storagedriver: StorageHealth = section(
        StorageHealth, "Check of the store: the root of the driver is listed."
    )
    file: tuple[FileHealth, ...] = key(
        ListOf("a list of checks", Section(FileHealth)),
        "Checks of files that operators make to take the registry out of service.",
    )
    http: tuple[HttpHealth, ...] = key(
        ListOf("a list of checks", Section(HttpHealth)), "Checks of HTTP servers."
    )
    tcp: tuple[TcpHealth, ...] = key(
        ListOf("a list of checks", Section(TcpHealth)), "Checks of TCP servers."
    )

    @property
    def has_checks(self) -> bool:
        """Whether anything is checked."""
        return self.storagedriver.enabled or bool(self.file or self.http or self.tcp)
