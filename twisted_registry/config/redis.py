"""The ``redis`` section: the server of the descriptor cache (``storage.cache``).

Its shape is that of Distribution 2.8 (``addr``, ``pool``) or 3 (``addrs``). Keys that describe
clusters, sentinels and retries are accepted without effect, because the cache uses one server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_registry.config.kinds import boolean, duration, integer, text, text_list
from twisted_registry.config.sections import SectionBase, key, section

if TYPE_CHECKING:
    from twisted_registry.config.document import Report


def _timeout_key(doc: str) -> float:
    value: float = key(duration(), doc, default=0.0)
    return value


def _count_key(doc: str) -> int:
    value: int = key(integer(-1), doc, default=0)
    return value


class RedisPool(SectionBase):
    """``redis.pool``, as in Distribution 2.8."""

    maxidle: int = key(integer(0), "The most idle connections.", default=0)
    maxactive: int = key(integer(0), "The most connections; 0 is no limit.", default=0)
    idletimeout: float = key(duration(), "How long an idle connection is kept.", default=0.0)


class RedisTls(SectionBase):
    """``redis.tls``."""

    certificate: str = key(
        text("a path"), "A PEM file with the certificate of the client.", default=""
    )
    keyfile: str = key(
        text("a path"), "A PEM file with the private key of the client.", default="", name="key"
    )
    rootcas: tuple[str, ...] = key(
        text_list("a list of paths"),
        "PEM files with the certificate authorities of the server.",
        default=(),
    )


class Redis(SectionBase):
    """``redis``."""

    addr: str = key(text("HOST:PORT"), "The server (2.8).", default="")
    addrs: tuple[str, ...] = key(text_list("a list of HOST:PORT"), "The servers (3).", default=())
    username: str = key(text(), "The user name.", default="")
    password: str = key(text(), "The password.", default="", secret=True)
    db: int = key(integer(0), "The number of the database.", default=0)
    clientname: str = key(text(), "The name of the client connection.", default="")
    protocol: int = key(integer(0, 3), "The version of the protocol.", default=0)
    sentinelusername: str = key(text(), "The user name for sentinels.", default="")
    sentinelpassword: str = key(text(), "The password for sentinels.", default="", secret=True)
    mastername: str = key(text(), "The name of the master that sentinels monitor.", default="")
    dialtimeout: float = _timeout_key("The timeout of connecting.")
    readtimeout: float = _timeout_key("The timeout of reading a reply.")
    writetimeout: float = _timeout_key("The timeout of sending a command.")
    contexttimeoutenabled: bool = key(boolean(), "Observe deadlines of requests.", default=False)
    maxretries: int = _count_key("The most retries of a command.")
    minretrybackoff: float = _timeout_key("The shortest wait before a retry.")
    maxretrybackoff: float = _timeout_key("The longest wait before a retry.")
    poolfifo: bool = key(boolean(), "Use idle connections in turn.", default=False)
    poolsize: int = _count_key("The number of connections in the pool.")
    pooltimeout: float = _timeout_key("The timeout of waiting for a free connection.")
    minidleconns: int = _count_key("The fewest idle connections.")
    maxidleconns: int = _count_key("The most idle connections.")
    maxactiveconns: int = _count_key("The most connections.")
    connmaxidletime: float = _timeout_key("How long an idle connection is kept.")
    connmaxlifetime: float = _timeout_key("How long any connection is kept.")
    maxredirects: int = _count_key("The most redirects within a cluster.")
    readonly: bool = key(boolean(), "Read from replicas.", default=False)
    routebylatency: bool = key(boolean(), "Read from the closest node.", default=False)
    routerandomly: bool = key(boolean(), "Read from a random node.", default=False)
    disableidentity: bool = key(boolean(), "Do not send the client's identity.", default=False)
    identitysuffix: str = key(text(), "A suffix of the client's identity.", default="")
    unstableresp3: bool = key(boolean(), "Accepted; has no effect.", default=False)
    pool: RedisPool = section(RedisPool, "The connection pool (2.8).")
    tls: RedisTls = section(RedisTls, "TLS to the server.")

    @property
    def address(self) -> str:
        """HOST:PORT of the one server that is used, or an empty text."""
        return self.addr or (self.addrs[0] if self.addrs else "")

    @property
    def is_one_server(self) -> bool:
        """Whether one server is configured, neither a cluster nor sentinels."""
        return bool(self.address) and len(self.addrs) <= 1 and not self.mastername


def check_redis(redis: Redis | None, report: Report) -> None:
    """Report a section that the descriptor cache cannot use."""
    if redis is None:
        report.add_fault(
            "storage.cache.blobdescriptor", "got 'redis'", "a redis section in the file as well"
        )
    elif not redis.address:
        report.add_fault("redis.addr", "not set", "HOST:PORT")
    elif not redis.is_one_server:
        report.add_fault(
            "redis.addrs",
            "got a cluster or sentinels",
            "one server; the descriptor cache supports no others",
        )
