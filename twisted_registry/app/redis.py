"""The descriptor cache in Redis: ``redis`` and ``storage.cache.blobdescriptor``.

Imported only if it is configured: it needs the extra ``redis``.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from OpenSSL import SSL
from twisted.internet import ssl
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS

from twisted_registry.app.errors import StartError
from twisted_registry.repository.redis_cache import REPLY_TIMEOUT_S, RedisDescriptorCache

if TYPE_CHECKING:
    from twisted.internet.interfaces import IStreamClientEndpoint

    from twisted_registry.config.redis import Redis
    from twisted_registry.config.schema import Configuration

#: Number of connections. Commands are pipelined, so few connections serve many requests.
_DEFAULT_CONNECTIONS: Final = 2
_CONNECT_TIMEOUT_S: Final = 5.0
_DEFAULT_PORT: Final = 6379
_END_OF_CERTIFICATE: Final = b"-----END CERTIFICATE-----"


def make_redis_cache(configuration: Configuration, reactor: Any) -> RedisDescriptorCache:
    """Make the cache, and begin to connect.

    :raises StartError: if txredisapi is missing, or the files of ``redis.tls`` cannot be used.
    """
    options = configuration.redis
    assert options is not None
    try:
        # Not at the top: it imports the global reactor.
        library = import_module("txredisapi")
    except ImportError as error:
        raise StartError(
            "storage.cache.blobdescriptor: redis needs the extra twisted-registry[redis]"
        ) from error
    address = options.address
    factory = library.RedisFactory(
        address,
        options.db or None,
        options.poolsize if options.poolsize > 0 else _DEFAULT_CONNECTIONS,
        isLazy=True,
        password=options.password or None,
        username=options.username or None,
    )
    factory.startConnecting(_make_endpoint(options, reactor))
    return RedisDescriptorCache(
        factory.handler,
        lambda: factory.size > 0,
        reactor,
        address,
        options.readtimeout or REPLY_TIMEOUT_S,
    )


def _make_endpoint(options: Redis, reactor: Any) -> IStreamClientEndpoint:
    address, timeout_s = options.address, options.dialtimeout or _CONNECT_TIMEOUT_S
    if address.startswith("/"):
        return UNIXClientEndpoint(reactor, address, timeout_s)
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        host, port = address, str(_DEFAULT_PORT)
    host = host.strip("[]")
    plain = HostnameEndpoint(reactor, host, int(port), timeout_s)
    tls = options.tls
    if not (tls.certificate or tls.keyfile or tls.rootcas):
        return plain
    try:
        roots = [
            ssl.Certificate.loadPEM(pem)
            for path in tls.rootcas
            for pem in _split_certificates(Path(path).read_bytes())
        ]
        own = None
        if tls.certificate:
            pem = Path(tls.keyfile or tls.certificate).read_bytes()
            own = ssl.PrivateCertificate.loadPEM(pem + b"\n" + Path(tls.certificate).read_bytes())
    except (OSError, ValueError, SSL.Error) as error:
        raise StartError(f"redis.tls: {error}") from error
    trust = ssl.trustRootFromCertificates(roots) if roots else None
    return wrapClientTLS(ssl.optionsForClientTLS(host, trust, own), plain)


def _split_certificates(content: bytes) -> list[bytes]:
    """Return the certificates of a PEM file, which may contain several."""
    parts = content.split(_END_OF_CERTIFICATE)[:-1]
    return [part + _END_OF_CERTIFICATE + b"\n" for part in parts]
