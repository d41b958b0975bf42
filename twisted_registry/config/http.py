"""The ``http`` section: address, limits, and the debug address; ``config/tls.py`` has TLS.

An address is HOST:PORT as in Distribution, the path of a socket, or a Twisted endpoint string.
:func:`parse_address` makes all three an endpoint string for ``serverFromString``, and checks it as
far as that is possible without Twisted, so that a wrong port is a fault of the configuration and
not a traceback at the start.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_network
from typing import TYPE_CHECKING, Final

from attrs import frozen

from twisted_registry.config import values
from twisted_registry.config.kinds import (
    ListOf,
    Scalar,
    boolean,
    choice,
    duration,
    headers,
    integer,
    size,
    text,
)
from twisted_registry.config.sections import Section, SectionBase, key, section
from twisted_registry.config.tls import Tls

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted_registry.config.document import Node

#: This machine only, because the default configuration has no authentication.
DEFAULT_ADDR: Final = "127.0.0.1:5000"

#: The positional and keyword arguments of Twisted's own endpoints; others come from plugins.
_ENDPOINT_KEYWORDS: Final = {
    "tcp": {"port", "interface", "backlog"},
    "tcp6": {"port", "interface", "backlog"},
    "unix": {"address", "mode", "backlog", "lockfile"},
    "systemd": {"domain", "index", "name"},
}
_PORT_ENDPOINTS: Final = frozenset({"tcp", "tcp6", "ssl"})
#: Endpoints that accept connections from a plain socket, without a protocol around them.
_SOCKET_ENDPOINTS: Final = frozenset({"tcp", "tcp6", "unix", "systemd"})
_ENDPOINT_NAME: Final = re.compile(r"[a-z][a-z0-9]*")
_ENDPOINT_ARGUMENT: Final = re.compile(r"(?:\\.|[^\\:])*")
_ENDPOINT_KEYWORD: Final = re.compile(r"(?s)([^=\\]*)=(.*)")
_HOST: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9_])?")
_DIGITS: Final = re.compile("[0-9]+")
#: Pages of the debug address, below which metrics cannot be.
_DEBUG_PAGES: Final = tuple(
    f"/debug/{name}" for name in ("health", "vars", "stacks", "profile", "maintenance")
)

#: Loopback, private and link-local addresses, and Unix sockets; the HTTP engine has the same list.
DEFAULT_TRUSTED_PROXIES: Final = (
    *("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),
    *("169.254.0.0/16", "fc00::/7", "fe80::/10", "unix"),
)


@frozen
class Address:
    """An address to listen on.

    :ivar text: as it is configured.
    :ivar endpoint: the same as a server endpoint string of Twisted.
    :ivar host: the interface of a TCP address; empty for all interfaces, or for another type.
    :ivar port: the port of a TCP address, 0 for a free port; None for another type.
    :ivar path: the path of a Unix socket, or empty.
    :ivar dual_stack: whether it is ``:PORT``, for IPv4 and IPv6; ``endpoint`` has IPv4 only then.
    """

    text: str
    endpoint: str
    host: str = ""
    port: int | None = None
    path: str = ""
    dual_stack: bool = False

    def overlaps(self, other: Address) -> bool:
        """Return whether the other address has the same TCP port, of the same interface."""
        is_everywhere = {"", "0.0.0.0", "::"} & {self.host, other.host}  # noqa: S104 - compared
        is_same_host = bool(is_everywhere) or self.host == other.host
        return bool(self.port) and self.port == other.port and is_same_host

    @property
    def shareable(self) -> bool:
        """Whether it is a plain socket, from which several processes can accept connections."""
        return self.endpoint.partition(":")[0] in _SOCKET_ENDPOINTS


def parse_address(text: str, *, unix: bool = False) -> Address:
    """Parse HOST:PORT, a socket path or an endpoint string.

    :param unix: text that is not an endpoint string is the path of a socket.
    :raise ValueError: if it is none of them.
    """
    name, colon, rest = text.partition(":")
    if not text.isprintable() or not text.strip():
        raise ValueError
    known = name in _ENDPOINT_KEYWORDS or name in _PORT_ENDPOINTS
    # The endpoint of a plugin (haproxy:tcp:5000) has more than one colon; HOST:PORT has one.
    if colon and rest and (known or (_ENDPOINT_NAME.fullmatch(name) and ":" in rest)):
        if rest.startswith("//"):
            raise ValueError  # a URL
        return _parse_endpoint(text, name)
    if unix:
        return Address(text, f"unix:{_escape(text)}", path=text)
    return parse_host_and_port(text)


def parse_host_and_port(text: str) -> Address:
    """Parse HOST:PORT; the host may be left out.

    :raise ValueError: if it is something else.
    """
    host, colon, digits = text.rpartition(":")
    if not colon:
        raise ValueError
    port = _parse_port(digits)
    if host.startswith("[") and host.endswith("]"):
        host = str(IPv6Address(host[1:-1]))
        return Address(text, f"tcp6:{port}:interface={_escape(host)}", host, port)
    if not host:
        return Address(text, f"tcp:{port}", "", port, dual_stack=True)
    if not _HOST.fullmatch(host):
        raise ValueError
    return Address(text, f"tcp:{port}:interface={host}", host, port)


def _parse_endpoint(text: str, name: str) -> Address:
    positional, keywords = _split_arguments(text[len(name) + 1 :])
    allowed = _ENDPOINT_KEYWORDS.get(name)
    if allowed is not None and (set(keywords) - allowed or len(positional) > 1):
        raise ValueError
    if name in _PORT_ENDPOINTS:
        digits = keywords["port"] if "port" in keywords else positional[0] if positional else ""
        return Address(text, text, keywords.get("interface", ""), _parse_port(digits))
    if name == "unix":
        path = keywords.get("address", positional[0] if positional else "")
        if not path:
            raise ValueError
        return Address(text, text, path=path)
    if (
        name == "systemd"
        and "name" not in keywords
        and not _DIGITS.fullmatch(keywords.get("index", ""))
    ):
        raise ValueError
    return Address(text, text)


def _split_arguments(text: str) -> tuple[list[str], dict[str, str]]:
    """Return the positional and keyword arguments of an endpoint; a backslash escapes."""
    positional: list[str] = []
    keywords: dict[str, str] = {}
    start = 0
    while start <= len(text):
        match = _ENDPOINT_ARGUMENT.match(text, start)
        if match is None or (match.end() < len(text) and text[match.end()] != ":"):
            raise ValueError
        keyword = _ENDPOINT_KEYWORD.fullmatch(match[0])
        if keyword:
            keywords[keyword[1]] = _unescape(keyword[2])
        else:
            positional.append(_unescape(match[0]))
        start = match.end() + 1
    return positional, keywords


def _parse_port(digits: str) -> int:
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 5):
        raise ValueError
    port = int(digits)
    if port > 65535:
        raise ValueError
    return port


def _escape(text: str) -> str:
    return re.sub(r"([\\:=])", r"\\\1", text)


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def _proxy(node: Node) -> str:
    """Check a network, an address, or the word unix."""
    name = values.text(node).lower()
    return name if name == "unix" else str(ip_network(name))


def _page_path(node: Node) -> str:
    """Check a path of the debug address, which must not hide other pages."""
    path = str(values.path(node))
    if path == "/debug" or path.startswith(_DEBUG_PAGES):
        raise ValueError
    return path


class Prometheus(SectionBase):
    """``http.debug.prometheus``."""

    enabled: bool = key(boolean(), "Serve metrics.")
    path: str = key(
        Scalar("a path such as /metrics, without / at its end, and not that of a page", _page_path),
        "The path of the metrics.",
        default="/metrics",
    )
    repositories: int = key(
        integer(0, 10_000),
        "The number of repositories that have metrics of their own, the first that are used after"
        " the start; further ones are counted together as ``_other``. Each has up to 11 series."
        " 0: none.",
        extension=True,
    )


class Debug(SectionBase):
    """``http.debug``."""

    addr: str = key(
        text("HOST:PORT or a Twisted endpoint string"),
        "A second address, for operators. It has no authentication: every client that can connect"
        " can read everything there.",
    )
    prometheus: Prometheus = section(Prometheus, "Prometheus metrics. Needs the extra ``metrics``.")


class Http2(SectionBase):
    """``http.http2``."""

    disabled: bool = key(boolean(), "Accepted; HTTP/2 is not served.")


class H2c(SectionBase):
    """``http.h2c``."""

    enabled: bool = key(boolean(), "Accepted; HTTP/2 is not served.")


#: Requests per second.
_RATE: Final = Scalar(
    "a number of requests per second, 0 or more, such as 20 or 0.5", values.rate, default=0.0
)


class Limits(SectionBase):
    """``http.limits``."""

    headerbytes: int = key(
        size(1024), "The largest header section; a larger one returns 431.", default=16 * 1024
    )
    urlbytes: int = key(
        size(1024), "The longest request target; a longer one returns 414.", default=8 * 1024
    )
    manifestbytes: int = key(
        size(4 * 2**20), "The largest manifest; a larger one returns 413.", default=4 * 2**20
    )
    manifestdepth: int = key(
        integer(8, 500),
        "The deepest nesting of objects and lists in a manifest; a deeper one returns 400.",
        default=32,
    )
    manifestvalues: int = key(
        integer(1000),
        "The most values in a manifest, counted by its commas, brackets, braces and backslashes;"
        " one with more returns 400. Parsing 100,000 holds up a process for up to 30 ms.",
        default=100_000,
    )
    blobbytes: int = key(
        size(0), "The largest blob; a larger one returns 413, ``DENIED``. 0 is no limit."
    )
    requestsperaddress: float = key(
        _RATE,
        "The most requests per second from one client address (IPv6: from one /64 network), with"
        " bursts of ten times as many; more return 429 with ``Retry-After``. Counted by each"
        " process. 0 is no limit.",
    )
    requestsperuser: float = key(
        _RATE, "The same for each user, whatever the address. 0 is no limit."
    )
    uploadsperuser: int = key(
        integer(0),
        "The most uploads that a user, or a client address without a login, sends to one process"
        " at the same time; more return 429 with ``Retry-After``. docker sends up to 5. 0 is no"
        " limit.",
    )
    headertimeout: float = key(
        duration(positive=True),
        "The timeout of the headers of a request, from its first byte.",
        default=20.0,
    )
    idletimeout: float = key(
        duration(positive=True), "The timeout of a connection between two requests.", default=60.0
    )
    bodytimeout: float = key(
        duration(positive=True), "The timeout of a body that makes no progress.", default=60.0
    )
    bodyrate: int = key(
        size(0),
        "The lowest rate of a request body, in bytes per second, on average over ``bodytimeout``; a"
        " slower one returns 408. Time in which the registry reads nothing, because the store is"
        " busy, is not counted. 0: none.",
        default=512,
    )
    connections: int = key(
        integer(0),
        "How many connections a process has open at a time. Above it, those that have waited"
        " longest for a request are closed; if none waits, new ones are refused. 0: half of the"
        " descriptors that the process may have, and at most 8192.",
    )
    connectionsperaddress: int = key(
        integer(0),
        "The same for one IPv4 address, or IPv6 network of 64 bits, and each process. Addresses in"
        " a ``trustedproxies`` that is set are not limited. 0: none.",
    )


class Http(SectionBase):
    """``http``."""

    addr: str = key(
        Scalar("HOST:PORT, a socket path or a Twisted endpoint string", values.nonempty_text),
        "The address to listen on: ``HOST:PORT``, a path if ``net`` is unix, or a server endpoint"
        " string of Twisted such as ``unix:/run/registry.sock:mode=660`` or"
        " ``systemd:domain=INET:index=0``. ``:PORT`` is every interface, with IPv4 and IPv6;"
        " ``0.0.0.0:PORT`` has IPv4 only.",
        default=DEFAULT_ADDR,
    )
    net: str = key(choice("tcp", "unix"), "The type of ``addr``.", default="tcp")
    prefix: str = key(
        Scalar("a path that starts and ends with /", values.prefix),
        "A path before that of the API, which is then at ``PREFIXv2/``.",
    )
    host: str = key(
        Scalar("an absolute http or https URL without query", values.base_url),
        "The URL of the registry for clients, used in Location headers. If not set, it is taken"
        " from the Host header of each request, or from the Forwarded and X-Forwarded-* headers of"
        " ``trustedproxies``.",
    )
    trustedproxies: tuple[str, ...] = key(
        ListOf(
            "a list of networks",
            Scalar("a network such as 10.0.0.0/8, an IP address, or unix", _proxy),
        ),
        "The proxies whose Forwarded, X-Forwarded-* and X-Real-IP headers are believed: networks,"
        " addresses, and ``unix`` for clients on Unix sockets. By default loopback, private and"
        " link-local addresses and Unix sockets. ``[]``: none.",
        default=DEFAULT_TRUSTED_PROXIES,
        extension=True,
    )
    relativeurls: bool = key(boolean(), "Send Location headers without a host.")
    secret: str = key(
        text(),
        "Signs the state of uploads. If not set, a random secret is created and kept in the store,"
        " so that uploads can continue after a restart and on every machine that shares the store.",
        secret=True,
    )
    draintimeout: float = key(duration(), "How long a shutdown waits for active requests.")
    headers: Mapping[str, tuple[str, ...]] = key(
        headers(),
        "Headers of every response of the API. CORS headers allow access from browsers."
        " ``X-Content-Type-Options`` and ``Content-Security-Policy`` have defaults.",
    )
    workers: int = key(
        Scalar(f"an integer from 1 to {values.MAX_WORKERS}, or auto", values.worker_count),
        "The number of processes that serve. ``auto``: one for each CPU. They share the listening"
        " socket and the store, so the store cannot be in memory.",
        default=1,
        extension=True,
    )
    limits: Limits = section(Limits, "Limits of requests.", extension=True)
    tls: Tls = section(Tls, "TLS. Without a certificate the registry serves plain HTTP.")
    debug: Debug = section(Debug, "Health, metrics and maintenance on a separate address.")
    http2: Http2 | None = key(
        Section(Http2, allows_empty=True), "HTTP/2 over TLS. Accepted; not served."
    )
    h2c: H2c | None = key(
        Section(H2c, allows_empty=True), "HTTP/2 without TLS. Accepted; not served."
    )

    @property
    def address(self) -> Address:
        """The address to listen on.

        :raise ValueError: if ``addr`` is not an address; never once the configuration is checked.
        """
        return parse_address(self.addr, unix=self.net == "unix")

    def listening_addresses(self) -> dict[str, Address]:
        """Return the addresses to listen on, by their keys."""
        addresses = {"http.addr": self.address}
        if self.debug.addr:
            addresses["http.debug.addr"] = parse_address(self.debug.addr)
        return addresses
