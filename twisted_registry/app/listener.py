"""Listen for connections: on an address, or on the socket that systemd passes."""

from __future__ import annotations

import errno
import os
import re
import resource
import socket
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, execute, maybeDeferred
from twisted.internet.endpoints import (
    AdoptedStreamServerEndpoint,
    TCP4ServerEndpoint,
    TCP6ServerEndpoint,
    serverFromString,
)
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.task import deferLater
from twisted.internet.tcp import Port
from twisted.logger import Logger
from zope.interface import implementer

from twisted_registry.frame.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted.internet.interfaces import IListeningPort, IProtocolFactory
    from twisted.python.failure import Failure

    from twisted_registry.app.tls import TLSService
    from twisted_registry.config.http import Address
    from twisted_registry.http.site import HTTPSite

log = Logger()

#: The first descriptor that systemd passes (sd_listen_fds(3)).
_FIRST_SYSTEMD_FD = 3
#: Connections that can wait to be accepted; the kernel lowers it to its own limit. A client whose
#: connection does not fit tries again after a second, and a burst soon exceeds Twisted's 50.
_BACKLOG = 4096
#: Seconds for which a stop waits for connections to close after their requests were answered.
_CLOSE_WAIT_S = 3.0
#: Errors of a socket on a machine without IPv6.
_NO_IPV6 = frozenset({errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.EADDRNOTAVAIL})
#: The endpoint strings that HOST:PORT becomes.
_TCP_ENDPOINT = re.compile(r"tcp(6?):(\d+)(?::interface=((?:[^:\\]|\\.)*))?")


class HTTPService(Service):
    """Listens on an endpoint, and drains when it stops.

    :ivar address: the address of the port; None before it listens.
    :ivar port: the listening port; None before it listens.
    :ivar drain_seconds: how long a stop waits for requests in progress; 0 aborts them.
    """

    def __init__(
        self,
        endpoint: IStreamServerEndpoint,
        site: HTTPSite,
        clock: Any,
        drain_seconds: float,
        key: str = "http.addr",
        *,
        secure: bool = False,
    ) -> None:
        """Prepare to listen.

        :param key: the key and value of the address in the configuration, for errors.
        :param secure: whether the endpoint uses TLS.
        """
        self._endpoint = endpoint
        self._site = site
        self._clock = clock
        self._key = key
        self._secure = secure
        self.drain_seconds = drain_seconds
        self.port: IListeningPort | None = None
        self.address: object = None

    def privilegedStartService(self) -> None:
        """Begin to listen.

        :raises StartError: if that fails; the text names the key.
        """
        failures: list[Failure] = []
        self._endpoint.listen(self._site).addCallbacks(self._listening, failures.append)
        if failures:
            raise StartError(f"{self._key}: {_explain_listen_error(failures[0].value)}")

    def _listening(self, port: IListeningPort) -> None:
        self.port = port
        self.address = port.getHost()

    def describe_address(self) -> tuple[str, str]:
        """Return the address, see :func:`describe_address`."""
        return describe_address(self.address, secure=self._secure)

    def stopService(self) -> Deferred[None]:
        """Accept no more connections, wait for requests in progress, then close the others."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self.port is not None:
            await maybeDeferred(self.port.stopListening)
            address, _ = self.describe_address()
            log.info("no new connections are accepted: {address}", address=address)
        drained = self._site.drain()
        if self.drain_seconds > 0:
            drained.addTimeout(self.drain_seconds, self._clock, lambda *_: None)
            await drained
            # A response that was written may not have been sent or read yet.
            await self._site.disconnect().addTimeout(_CLOSE_WAIT_S, self._clock, lambda *_: None)
        self._site.abort()
        # The transports report their end in the next reactor iteration. Handlers then begin to
        # save their work, and the storage must see that before it is closed.
        await deferLater(self._clock, 0)


def log_address(listener: HTTPService, tls: TLSService | None, prefix: str) -> None:
    """Log where the registry listens, and how clients use it.

    :param prefix: of the paths; clients expect ``/v2/`` at the root, so that only the proxy in
        front of a registry with a prefix knows the address for them.
    """
    text, host = listener.describe_address()
    log.info("listening on {address}", address=text)
    if tls is not None:
        tls.log_client_advice(listener.address)
        host = tls.public_host(host)
    if host and not prefix:
        log.info(
            "to push an image: docker tag IMAGE {target} && docker push {target}",
            target=f"{host}/NAME",
        )


def _explain_listen_error(error: Any) -> str:
    """Return the reason for a failed listen, in one line."""
    if not isinstance(error, CannotListenError):
        return str(getattr(error, "strerror", None) or error)
    reason: Any = error.socketError
    text = str(getattr(reason, "strerror", None) or reason)
    port: Any = error.port
    if isinstance(reason, PermissionError) and isinstance(port, int):
        # Below 1024, unless net.ipv4.ip_unprivileged_port_start says otherwise.
        text += ": a low port needs root, or the capability CAP_NET_BIND_SERVICE"
    elif getattr(reason, "errno", 0) == errno.EADDRINUSE and isinstance(port, int):
        text += "; twisted-registry doctor names the other process"
    return text


class _DualStackPort(Port):
    """A port on all interfaces for IPv6 and IPv4, whatever the default of the system is."""

    def createInternetSocket(self) -> socket.socket:
        opened: socket.socket = super().createInternetSocket()
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        return opened


@implementer(IStreamServerEndpoint)
class DualStackEndpoint:
    """Listens on all interfaces, with one socket for IPv4 and IPv6, as programs in Go do.

    On a machine without IPv6 it listens with IPv4 only. IPv4 clients have addresses such as
    ``::ffff:192.0.2.1``.
    """

    def __init__(self, reactor: Any, port: int, backlog: int) -> None:
        """Prepare to listen on a port, 0 for a free one."""
        self._reactor = reactor
        self._port = port
        self._backlog = backlog

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Open the socket; fails with CannotListenError."""
        return execute(self._listen, protocolFactory)

    def _listen(self, factory: IProtocolFactory) -> IListeningPort:
        port: IListeningPort = _DualStackPort(
            self._port, factory, self._backlog, "::", self._reactor
        )
        try:
            port.startListening()
        except CannotListenError as error:
            if error.socketError.errno not in _NO_IPV6:
                raise
            port = self._reactor.listenTCP(self._port, factory, self._backlog)
        return port


def make_endpoint(
    address: Address, reactor: Any, environ: Mapping[str, str]
) -> IStreamServerEndpoint:
    """Make the endpoint of an address. A stale Unix socket is removed.

    If systemd passes exactly one socket, that socket is used instead of the address, as in
    Distribution.

    :param environ: the environment with which the process started.
    :raises StartError: if a socket that is in use, or another file, is at the path of a Unix
        socket, or if no plugin of Twisted knows the endpoint.
    """
    if environ.get("LISTEN_FDS") == "1" and environ.get("LISTEN_PID") == str(os.getpid()):
        with socket.socket(fileno=os.dup(_FIRST_SYSTEMD_FD)) as duplicate:
            family = duplicate.family
        return AdoptedStreamServerEndpoint(reactor, _FIRST_SYSTEMD_FD, family)
    if address.dual_stack:
        return DualStackEndpoint(reactor, address.port or 0, _BACKLOG)
    tcp = _TCP_ENDPOINT.fullmatch(address.endpoint)
    if tcp is None:
        if address.path:
            _remove_stale_socket(Path(address.path))
        try:
            other: IStreamServerEndpoint = serverFromString(reactor, address.endpoint)
        except Exception as error:  # plugins raise what they like
            raise StartError(f"this endpoint cannot be made: {error}") from error
        return other
    # Not serverFromString: it would use Twisted's backlog, and import all plugins.
    endpoint, every_interface = (TCP6ServerEndpoint, "::") if tcp[1] else (TCP4ServerEndpoint, "")
    interface = every_interface if tcp[3] is None else re.sub(r"\\(.)", r"\1", tcp[3])
    return endpoint(reactor, int(tcp[2]), _BACKLOG, interface)


def _remove_stale_socket(path: Path) -> None:
    """Remove a Unix socket on which no process listens any more."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise StartError(f"{path}: {error.strerror}") from error
    if not stat.S_ISSOCK(mode):
        raise StartError(f"{path} exists, and is not a socket")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
        else:
            raise StartError(f"{path}: another process listens on it")


def descriptor_limit() -> int:
    """Return how many descriptors this process may have open."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit


def log_descriptors(connections: int) -> None:
    """Log how many descriptors this process may have, and whether they are enough.

    :param connections: how many connections it may have.
    """
    limit = descriptor_limit()
    log.info(
        "descriptors: limit={limit} connections={connections}",
        limit=limit,
        connections=connections,
    )
    if connections > limit // 2:
        log.warn(
            "http.limits.connections: {connections} is more than half of the descriptors that a"
            " process may have ({limit}), so that files may not be opened; raise the limit"
            " (ulimit -n, LimitNOFILE)",
            connections=connections,
            limit=limit,
        )


def raise_descriptor_limit() -> None:
    """Raise the soft limit on descriptors to the hard one, as Go does; workers inherit it.

    The soft limit is low for programs that use select(2), which this one does not.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Some systems have a lower limit that is not in the hard one.
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def initial_environment() -> dict[str, str]:
    """Return the environment with which this process started.

    Twisted removes LISTEN_FDS and LISTEN_PID from ``os.environ`` when its endpoints are imported.
    """
    try:
        items = Path("/proc/self/environ").read_bytes().split(b"\0")
    except OSError:
        # Not Linux, so there is no systemd either.
        return dict(os.environ)
    pairs = (os.fsdecode(item).partition("=") for item in items)
    return {name: value for name, _, value in pairs}


def describe_address(address: object, *, secure: bool = False) -> tuple[str, str]:
    """Return an address as text for the log, and ``host:port`` for a client on this machine.

    ``host:port`` is empty if it is not a TCP address.

    :param secure: whether the port uses TLS.
    """
    if isinstance(address, IPv4Address | IPv6Address):
        local = {"0.0.0.0": "127.0.0.1", "::": "localhost"}  # noqa: S104
        host = f"[{address.host}]" if ":" in address.host else address.host
        client_host = local.get(address.host, host)
        scheme = "https" if secure else "http"
        return f"{scheme}://{host}:{address.port}", f"{client_host}:{address.port}"
    if isinstance(address, UNIXAddress):
        suffix = " with TLS" if secure else ""
        return f"unix socket {os.fsdecode(address.name or '')}{suffix}", ""
    return str(address), ""
