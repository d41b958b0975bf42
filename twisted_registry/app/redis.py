"""A descriptor cache in Redis, shared by registries: ``storage.cache.blobdescriptor: redis``.

Imported only if it is configured: it needs the extra ``redis``. If Redis is down or slow, this is
logged, and the store is asked instead. No request waits longer for it than
:data:`REPLY_TIMEOUT_S`, and no client gets an error.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from attrs import define, field
from cryptography.x509 import load_pem_x509_certificates
from OpenSSL import crypto
from twisted.internet import ssl
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.logger import Logger
from zope.interface import implementer

from twisted_registry.frame.errors import StartError, require_extra
from twisted_registry.repository.cache import CacheUse, IDescriptorCache

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
    from twisted.python.failure import Failure

    from twisted_registry.config.schema import Configuration
    from twisted_registry.config.storage import Redis
    from twisted_registry.oci.digest import Digest

log = Logger()

#: Seconds to wait for a reply, by default.
REPLY_TIMEOUT_S = 1.0
#: Seconds to wait while closing.
_CLOSE_TIMEOUT_S = 2.0
#: Number of connections. Commands are pipelined, so few connections serve many requests.
_DEFAULT_CONNECTIONS: Final = 2
_CONNECT_TIMEOUT_S: Final = 5.0
_DEFAULT_PORT: Final = 6379


@implementer(IDescriptorCache)
@define(eq=False, repr=False)
class RedisDescriptorCache:
    """A descriptor cache in Redis.

    :ivar client: has methods ``get``, ``set`` and ``disconnect``, which return Deferreds.
    :ivar connected: a function that returns how many connections the client has.
    :ivar where: the server, for the log.
    :ivar reply_timeout_s: seconds to wait for a reply.
    :ivar use: how often it was asked.
    """

    client: Any
    connected: Any
    _clock: IReactorTime
    where: str
    reply_timeout_s: float = REPLY_TIMEOUT_S
    use: CacheUse = field(init=False, factory=CacheUse)
    _is_down: bool = field(init=False, default=False)

    def size(self, digest: Digest) -> Deferred[int | None]:
        """Fire with the cached size; with None if it is missing or Redis fails."""
        if not self.connected():
            self._log_down("there is no connection")
            self._count_error()
            return succeed(None)
        reply: Deferred[Any] = self.client.get(_key(digest))
        reply.addTimeout(self.reply_timeout_s, self._clock)
        return reply.addCallbacks(self._parse_reply, self._handle_missing_reply)

    def remember_size(self, digest: Digest, size: int) -> None:
        """Store the size, without waiting for the reply."""
        if self.connected():
            reply: Deferred[Any] = self.client.set(_key(digest), str(size))
            reply.addTimeout(self.reply_timeout_s, self._clock)
            reply.addCallbacks(self._log_up, self._handle_failure)

    def close(self) -> Deferred[None]:
        """Close the connections; give up after a timeout."""
        closed: Deferred[Any] = self.client.disconnect()
        closed.addTimeout(_CLOSE_TIMEOUT_S, self._clock, lambda _, __: None)
        return closed.addCallbacks(lambda _: None, lambda _: None)

    def _parse_reply(self, reply: object) -> int | None:
        self._log_up(reply)
        try:
            size = int(str(reply))
        except ValueError:
            size = -1
        if size < 0:
            # It is missing, or another program has stored it.
            self.use.misses += 1
            return None
        self.use.hits += 1
        return size

    def _handle_missing_reply(self, failure: Failure) -> None:
        self._count_error()
        self._handle_failure(failure)

    def _count_error(self) -> None:
        self.use.misses += 1
        self.use.errors += 1

    def _log_up(self, _: object) -> None:
        if self._is_down:
            self._is_down = False
            log.info("redis at {where} replies again", where=self.where)

    def _handle_failure(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            # The client has disconnected.
            failure.raiseException()
        self._log_down(failure.getErrorMessage() or repr(failure.value))

    def _log_down(self, why: str) -> None:
        # Log each outage once, and not for each request.
        if not self._is_down:
            self._is_down = True
            log.warn(
                "redis at {where} does not reply, using the store instead: {why}",
                where=self.where,
                why=why,
            )


def _key(digest: Digest) -> str:
    return f"twisted-registry:size:{digest}"


def make_redis_cache(configuration: Configuration, reactor: Any) -> RedisDescriptorCache:
    """Make the cache, and begin to connect.

    :raises StartError: if txredisapi is missing, or the files of ``redis.tls`` cannot be used.
    """
    options = configuration.redis
    assert options is not None
    with require_extra("redis", "storage.cache.blobdescriptor"):
        # Not at the top: it imports the global reactor.
        library = import_module("txredisapi")
    address = options.address
    factory = library.RedisFactory(
        address,
        options.db or None,
        options.poolsize if options.poolsize > 0 else _DEFAULT_CONNECTIONS,
        isLazy=True,
        password=options.password or None,
        username=options.username or None,
    )
    factory.startConnecting(make_redis_endpoint(options, reactor))
    return RedisDescriptorCache(
        factory.handler,
        lambda: factory.size,
        reactor,
        address,
        options.readtimeout or REPLY_TIMEOUT_S,
    )


def make_redis_endpoint(options: Redis, reactor: Any) -> IStreamClientEndpoint:
    """Make the endpoint of the server. Blocks: it reads the files of ``redis.tls``.

    :raises StartError: if they cannot be used.
    """
    address, timeout_s = options.address, options.dialtimeout or _CONNECT_TIMEOUT_S
    if address.startswith("/"):
        return UNIXClientEndpoint(reactor, address, timeout_s)
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        host, port = address, str(_DEFAULT_PORT)
    host = host.strip("[]")
    plain = HostnameEndpoint(reactor, host, int(port), timeout_s)
    tls = options.tls
    if not (options.enabletls or tls.certificate or tls.keyfile or tls.rootcas):
        return plain
    roots = [
        ssl.Certificate(crypto.X509.from_cryptography(certificate))
        for index, path in enumerate(tls.rootcas)
        for certificate in _read_authorities(f"redis.tls.rootcas[{index}]", path)
    ]
    own = None
    if tls.certificate:
        key_name, key_path = (
            ("key", tls.keyfile) if tls.keyfile else ("certificate", tls.certificate)
        )
        pem = _read_file(f"redis.tls.{key_name}", key_path)
        certificate = _read_file("redis.tls.certificate", tls.certificate)
        try:
            own = ssl.PrivateCertificate.loadPEM(pem + b"\n" + certificate)
        except (ValueError, crypto.Error) as error:
            files = f"{Path(tls.certificate).absolute()}, {Path(key_path).absolute()}"
            raise StartError(
                f"redis.tls: {files}: expected a certificate and a key in PEM"
            ) from error
    trust = ssl.trustRootFromCertificates(roots) if roots else None
    return wrapClientTLS(ssl.optionsForClientTLS(host, trust, own), plain)


def _read_authorities(key: str, path: str) -> list[Certificate]:
    content = _read_file(key, path)
    try:
        return load_pem_x509_certificates(content)
    except ValueError as error:
        raise StartError(f"{key}: {Path(path).absolute()}: expected certificates in PEM") from error


def _read_file(key: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise StartError(f"{key}: {Path(path).absolute()}: {error.strerror}") from error
