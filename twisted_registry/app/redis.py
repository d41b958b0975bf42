"""Redis as a configuration describes it: a part of descriptorcache.py.

Imported only where one is configured: it brings Twisted's endpoints along.
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

#: Connections to Redis: questions queue up on each, so that few do for many.
_DEFAULT_CONNECTIONS: Final = 2
#: Seconds that a connection may take, unless the operator says otherwise.
_DIAL_TIMEOUT_S: Final = 5.0
_DEFAULT_PORT: Final = 6379


def make_redis_cache(options: Redis, reactor: Any) -> RedisDescriptorCache:
    """What remembers in the Redis of a configuration.

    :raises StartError: if it can not be had.
    """
    try:
        # It is an extra, and uses the global reactor as soon as it is imported.
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
    factory.startConnecting(_endpoint(options, reactor))
    return RedisDescriptorCache(
        factory.handler,
        lambda: factory.size > 0,
        reactor,
        address,
        options.readtimeout or REPLY_TIMEOUT_S,
    )


def _endpoint(options: Redis, reactor: Any) -> IStreamClientEndpoint:
    address, seconds = options.address, options.dialtimeout or _DIAL_TIMEOUT_S
    if address.startswith("/"):
        return UNIXClientEndpoint(reactor, address, seconds)
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        host, port = address, str(_DEFAULT_PORT)
    host = host.strip("[]")
    plain = HostnameEndpoint(reactor, host, int(port), seconds)
    tls = options.tls
    if not (tls.certificate or tls.keyfile or tls.rootcas):
        return plain
    try:
        roots = [
            ssl.Certificate.loadPEM(pem)
            for path in tls.rootcas
            for pem in _certificates(Path(path).read_bytes())
        ]
        own = None
        if tls.certificate:
            pem = Path(tls.keyfile or tls.certificate).read_bytes()
            own = ssl.PrivateCertificate.loadPEM(pem + b"\n" + Path(tls.certificate).read_bytes())
    except (OSError, ValueError, SSL.Error) as error:
        raise StartError(f"redis.tls: {error}") from error
    trust = ssl.trustRootFromCertificates(roots) if roots else None
    return wrapClientTLS(ssl.optionsForClientTLS(host, trust, own), plain)


def _certificates(text: bytes) -> list[bytes]:
    """The certificates of a PEM file, which may hold several."""
    end = b"-----END CERTIFICATE-----"
    return [part + end + b"\n" for part in text.split(end)[:-1]]
