"""Which proxy stands between us and the store, as the environment says.

The variables are those that Distribution heeds: ``HTTP_PROXY``, ``HTTPS_PROXY`` and ``NO_PROXY``,
also in lower case. This machine itself is never asked through a proxy.
"""

from __future__ import annotations

from base64 import b64encode
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, unquote, urlsplit

from attrs import field, frozen

from twisted_registry.storage.s3.address import AddressError

if TYPE_CHECKING:
    from collections.abc import Mapping

_PORTS: Final = {"http": 80, "https": 443}


@frozen
class Proxy:
    """Where it listens, over plain HTTP.

    :ivar authorization: what it wants to see of us, or empty.
    """

    host: str
    port: int
    authorization: str = field(default="", repr=False)


def find_proxy(environ: Mapping[str, str], scheme: str, netloc: str) -> Proxy | None:
    """Answer the proxy for a host, or None if we go there directly.

    :param scheme: how the host is asked: http or https.
    :param netloc: the host, with a port if it is not the usual one.
    :raises AddressError: if a variable does not name one that we can use.
    """
    name = f"{scheme.upper()}_PROXY"
    value = _variable(environ, name)
    store = urlsplit(f"//{netloc}")
    host, port = store.hostname or "", store.port or _PORTS[scheme]
    if not value or _is_loopback(host) or _is_excluded(_variable(environ, "NO_PROXY"), host, port):
        return None
    url = urlsplit(value if "://" in value else f"http://{value}")
    try:
        if url.scheme == "http" and url.hostname:
            return Proxy(url.hostname, url.port or _PORTS["http"], _authorization(url))
    except ValueError:
        pass
    # Not the value: it may hold a password.
    raise AddressError(f"{name} is no proxy that can be used: http://HOST:PORT is expected")


def _variable(environ: Mapping[str, str], name: str) -> str:
    return (environ.get(name) or environ.get(name.lower()) or "").strip()


def _authorization(url: SplitResult) -> str:
    if url.username is None:
        return ""
    pair = f"{unquote(url.username)}:{unquote(url.password or '')}"
    return f"Basic {b64encode(pair.encode()).decode()}"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_excluded(rules: str, host: str, port: int) -> bool:
    """Whether a host is on the list: ``*``, names and what is below them, addresses, networks."""
    return any(
        _matches(rule.strip().lower(), host, port) for rule in rules.split(",") if rule.strip()
    )


def _matches(rule: str, host: str, port: int) -> bool:
    if rule == "*":
        return True
    try:
        return ip_address(host) in ip_network(rule, strict=False)
    except ValueError:
        pass
    name, colon, wanted = rule.rpartition(":")
    if colon and wanted.isdecimal():
        if int(wanted) != port:
            return False
        rule = name
    name = rule.removeprefix("*").removeprefix(".")
    below = host.endswith(f".{name}")
    return below or (host == name and not rule.startswith(("*", ".")))
