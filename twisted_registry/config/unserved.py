"""Sections about other servers: Redis, an upstream registry, listeners, and health checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
from twisted_registry.config.sections import Section, SectionBase, key, schema, section

if TYPE_CHECKING:
    from collections.abc import Mapping


@schema
class RedisPool(SectionBase):
    """``redis.pool``, as in Distribution 2.8."""

    maxidle: int = key(integer(0), "Idle connections that are kept.", default=0)
    maxactive: int = key(integer(0), "Connections at once; 0 is no limit.", default=0)
    idletimeout: float = key(duration(), "How long an idle one is kept.", default=0.0)


@schema
class RedisTls(SectionBase):
    """``redis.tls``."""

    certificate: str = key(text("a path"), "A PEM file.", default="")
    keyfile: str = key(text("a path"), "A PEM file.", default="", name="key")
    rootcas: tuple[str, ...] = key(text_list("a list of paths"), "PEM files.", default=())


def _wait(doc: str) -> float:
    value: float = key(duration(), doc, default=0.0)
    return value


def _count(doc: str) -> int:
    value: int = key(integer(-1), doc, default=0)
    return value


@schema
class Redis(SectionBase):
    """``redis``, in the shape of Distribution 2.8 (``addr``, ``pool``) or 3."""

    addr: str = key(text("HOST:PORT"), "The server (2.8).", default="")
    addrs: tuple[str, ...] = key(text_list("a list of HOST:PORT"), "The servers (3).", default=())
    username: str = key(text(), "User name.", default="")
    password: str = key(text(), "Password.", default="", secret=True)
    db: int = key(integer(0), "Number of the database.", default=0)
    clientname: str = key(text(), "Name that the client gives itself.", default="")
    protocol: int = key(integer(0, 3), "Version of the protocol.", default=0)
    sentinelusername: str = key(text(), "User name at the sentinels.", default="")
    sentinelpassword: str = key(text(), "Password at the sentinels.", default="", secret=True)
    mastername: str = key(text(), "Name of the master that sentinels watch.", default="")
    dialtimeout: float = _wait("For connecting.")
    readtimeout: float = _wait("For an answer.")
    writetimeout: float = _wait("For sending.")
    contexttimeoutenabled: bool = key(boolean(), "Honour deadlines of requests.", default=False)
    maxretries: int = _count("Attempts after the first.")
    minretrybackoff: float = _wait("Shortest wait before another attempt.")
    maxretrybackoff: float = _wait("Longest wait before another attempt.")
    poolfifo: bool = key(boolean(), "Use idle connections in turn.", default=False)
    poolsize: int = _count("Connections kept.")
    pooltimeout: float = _wait("For a free connection.")
    minidleconns: int = _count("Least idle connections.")
    maxidleconns: int = _count("Most idle connections.")
    maxactiveconns: int = _count("Most connections.")
    connmaxidletime: float = _wait("How long an idle connection is kept.")
    connmaxlifetime: float = _wait("How long any connection is kept.")
    maxredirects: int = _count("Redirects within a cluster.")
    readonly: bool = key(boolean(), "Read from replicas.", default=False)
    routebylatency: bool = key(boolean(), "Ask the nearest node.", default=False)
    routerandomly: bool = key(boolean(), "Ask any node.", default=False)
    disableidentity: bool = key(boolean(), "Do not tell the client's name.", default=False)
    identitysuffix: str = key(text(), "Added to the client's name.", default="")
    unstableresp3: bool = key(boolean(), "Accepted; has no effect.", default=False)
    pool: RedisPool = section(RedisPool, "Connections kept (2.8).")
    tls: RedisTls = section(RedisTls, "TLS to the server.")

    @property
    def address(self) -> str:
        """The one server that is asked, or an empty text."""
        return self.addr or (self.addrs[0] if self.addrs else "")

    @property
    def is_one_server(self) -> bool:
        """Whether there is one server to ask, neither a cluster nor one that sentinels name."""
        return bool(self.address) and len(self.addrs) <= 1 and not self.mastername


@schema
class Exec(SectionBase):
    """``proxy.exec``."""

    command: str = key(text("a path"), "A docker-credential-helper.", default="")
    lifetime: float | None = key(duration(), "How long its answer is good for.")


@schema
class Proxy(SectionBase):
    """``proxy``."""

    remoteurl: str = key(text("a URL"), "The registry to pull through.", default="")
    username: str = key(text(), "User name there.", default="")
    password: str = key(text(), "Password there.", default="", secret=True)
    exec: Exec | None = key(Section("a section", Exec), "A program that knows the password.")
    ttl: float = key(duration(), "How long content is kept; 0 is for ever.", default=168 * 3600.0)
    cachewritetimeout: float = key(duration(), "For storing what came.", default=300.0)


@schema
class Ignore(SectionBase):
    """``notifications.endpoints[].ignore``."""

    mediatypes: tuple[str, ...] = key(text_list(), "Media types that are left out.", default=())
    actions: tuple[str, ...] = key(
        ListOf("a list of actions", choice("pull", "push", "mount", "delete")),
        "Actions that are left out.", default=(),
    )  # fmt: skip


@schema
class Endpoint(SectionBase):
    """``notifications.endpoints[]``."""

    name: str = key(text(), "A name for logs and metrics.", default="", required=True)
    disabled: bool = key(boolean(), "Leave it out.", default=False)
    url: str = key(
        Scalar("an absolute http or https URL", values.url), "Where events go.", default="",
        required=True,
    )  # fmt: skip
    headers: Mapping[str, tuple[str, ...]] = key(
        headers(), "Headers of each request.", default={}, secret=True
    )
    timeout: float = key(duration(), "For an answer.", default=1.0)
    threshold: int = key(integer(0), "Failures before a pause.", default=10)
    backoff: float = key(duration(), "How long a pause is.", default=1.0)
    ignoredmediatypes: tuple[str, ...] = key(text_list(), "The old ``ignore``.", default=())
    ignore: Ignore = section(Ignore, "Events that are left out.")


@schema
class Events(SectionBase):
    """``notifications.events``."""

    includereferences: bool = key(boolean(), "Name what a manifest refers to.", default=False)


@schema
class Notifications(SectionBase):
    """``notifications``."""

    events: Events = section(Events, "What events say.")
    endpoints: tuple[Endpoint, ...] = key(
        ListOf("a list of endpoints", Section("a section", Endpoint)), "Who is told.", default=()
    )


@schema
class StorageHealth(SectionBase):
    """``health.storagedriver``."""

    enabled: bool = key(boolean(), "Look at the store now and then.", default=False)
    interval: float = key(duration(), "How often.", default=10.0)
    threshold: int = key(integer(0), "Failures in a row that count.", default=0)


@schema
class FileHealth(SectionBase):
    """``health.file[]``."""

    file: str = key(text("a path"), "Unhealthy while it exists.", default="", required=True)
    interval: float = key(duration(), "How often to look.", default=10.0)
    threshold: int = key(integer(0), "Accepted; has no effect.", default=0)


@schema
class HttpHealth(SectionBase):
    """``health.http[]``."""

    uri: str = key(
        Scalar("an absolute http or https URL", values.url), "What to ask for by HEAD.",
        default="", required=True,
    )  # fmt: skip
    headers: Mapping[str, tuple[str, ...]] = key(
        headers(), "Headers of the request.", default={}, secret=True
    )
    statuscode: int = key(integer(0, 999), "The status that is healthy.", default=200)
    timeout: float = key(duration(), "For the answer.", default=0.0)
    interval: float = key(duration(), "How often.", default=10.0)
    threshold: int = key(integer(0), "Failures in a row that count.", default=0)


@schema
class TcpHealth(SectionBase):
    """``health.tcp[]``."""

    addr: str = key(text("HOST:PORT"), "Where to connect to.", default="", required=True)
    timeout: float = key(duration(), "For the connection.", default=0.0)
    interval: float = key(duration(), "How often.", default=10.0)
    threshold: int = key(integer(0), "Failures in a row that count.", default=0)


@schema
class Health(SectionBase):
    """``health``."""

    storagedriver: StorageHealth = section(StorageHealth, "The store.")
    file: tuple[FileHealth, ...] = key(
        ListOf("a list", Section("a section", FileHealth)), "Files.", default=()
    )
    http: tuple[HttpHealth, ...] = key(
        ListOf("a list", Section("a section", HttpHealth)), "HTTP servers.", default=()
    )
    tcp: tuple[TcpHealth, ...] = key(
        ListOf("a list", Section("a section", TcpHealth)), "TCP servers.", default=()
    )
