"""The ``http`` section: where the registry listens and what its answers say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_registry.config import values
from twisted_registry.config.address import Address, parse_address
from twisted_registry.config.forms import choice, duration, boolean, headers, size, text
from twisted_registry.config.kinds import Scalar
from twisted_registry.config.sections import Section, SectionBase, key, schema, section
from twisted_registry.config.tls import Tls

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The default place: this machine alone, because nothing guards the door.
DEFAULT_ADDR = "127.0.0.1:5000"


@schema
class Prometheus(SectionBase):
    """``http.debug.prometheus``."""

    enabled: bool = key(boolean(), "Serve metrics.", default=False)
    path: str = key(Scalar("a path that starts with /", values.path), "Where.", default="/metrics")


@schema
class Debug(SectionBase):
    """``http.debug``."""

    addr: str = key(
        text("HOST:PORT or an endpoint of Twisted"),
        "A second address, for people who run it. Whoever reaches it can read everything there.",
        default="",
    )
    prometheus: Prometheus = section(
        Prometheus, "Metrics; they need the extra ``twisted-registry[metrics]``."
    )


@schema
class Http2(SectionBase):
    """``http.http2``."""

    disabled: bool = key(boolean(), "Accepted; HTTP/2 is not served.", default=False)


@schema
class H2c(SectionBase):
    """``http.h2c``."""

    enabled: bool = key(boolean(), "Accepted; HTTP/2 is not served.", default=False)


@schema
class Limits(SectionBase):
    """``http.limits``: bounds on what a client may send and how long it may take."""

    headerbytes: int = key(
        size(1024), "The largest header section, more is 431.", default=16 * 1024, extension=True
    )
    urlbytes: int = key(
        size(1024), "The longest request target, more is 414.", default=8 * 1024, extension=True
    )
    manifestbytes: int = key(
        size(4 * 2**20), "The largest manifest, more is 413.", default=4 * 2**20, extension=True
    )
    headertimeout: float = key(
        duration(positive=True), "For the headers of a request, from its first byte.",
        default=20.0, extension=True,
    )  # fmt: skip
    idletimeout: float = key(
        duration(positive=True), "For a connection between two requests.",
        default=60.0, extension=True,
    )  # fmt: skip
    bodytimeout: float = key(
        duration(positive=True), "For a body that makes no progress.", default=60.0, extension=True
    )


@schema
class Http(SectionBase):
    """``http``."""

    addr: str = key(
        Scalar("HOST:PORT, a socket's path or an endpoint of Twisted", values.nonempty_text),
        "Where to listen. ``HOST:PORT`` (no host: every IPv4 interface); a path if ``net`` is"
        " unix; or any server endpoint of Twisted, as ``unix:/run/registry.sock:mode=660`` or"
        " ``systemd:domain=INET:index=0``.", default=DEFAULT_ADDR,
    )  # fmt: skip
    net: str = key(choice("tcp", "unix"), "The kind of ``addr``.", default="tcp")
    prefix: str = key(
        Scalar("a path that starts and ends with /", values.prefix),
        "Serve under this path: the API is then at ``PREFIXv2/``.", default="",
    )  # fmt: skip
    host: str = key(
        Scalar("an absolute http or https URL without query", values.base_url),
        "The address that clients know, for Location headers. If not set, each request's own"
        " Host, Forwarded and X-Forwarded-* headers decide.", default="",
    )  # fmt: skip
    relativeurls: bool = key(boolean(), "Send Location headers as paths only.", default=False)
    secret: str = key(
        text(), "Signs the state of uploads. If not set, one is made and kept in the"
        " store, so that uploads go on after a restart and on every machine that shares it.",
        default="", secret=True,
    )  # fmt: skip
    draintimeout: float = key(
        duration(), "How long a stop waits for requests that are under way.", default=0.0
    )
    headers: Mapping[str, tuple[str, ...]] = key(
        headers(), "Headers for every answer of the API; with those of CORS, browsers are"
        " let in.", default={},
    )  # fmt: skip
    workers: int = key(
        Scalar(
            f"a whole number from 1 to {values.MAX_WORKERS}, or auto", values.worker_count
        ),
        "How many processes serve. ``auto``: one for each CPU. They share the listening socket"
        " and the store, so the store can not be in memory.", default=1, extension=True,
    )  # fmt: skip
    limits: Limits = section(Limits, "Limits on requests.", extension=True)
    tls: Tls = section(Tls, "TLS: without a certificate there is none.")
    debug: Debug = section(Debug, "Health, metrics and maintenance on an address of their own.")
    http2: Http2 | None = key(Section("a section", Http2, allows_empty=True), "HTTP/2 over TLS.")
    h2c: H2c | None = key(Section("a section", H2c, allows_empty=True), "HTTP/2 without TLS.")

    @property
    def address(self) -> Address:
        """Where to listen.

        :raise ValueError: if ``addr`` says no place; never once the configuration is checked.
        """
        return parse_address(self.addr, unix=self.net == "unix")
