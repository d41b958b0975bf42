"""The service that listens: on an address, or on the socket that systemd hands over."""

from __future__ import annotations

import os
import re
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, execute, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import implementer

from twisted_registry.app.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted.internet.interfaces import IListeningPort, IProtocolFactory
    from twisted.python.failure import Failure

    from twisted_registry.http.site import HTTPSite

log = Logger()

#: The first descriptor that systemd hands over (sd_listen_fds(3)).
_FIRST_SYSTEMD_FD = 3
#: Connections that may wait to be accepted; the kernel lowers it to its own limit. Beyond it a
#: client tries again after a second, and Twisted's 50 are soon there in a burst.
_BACKLOG = 4096
#: Seconds for which a stop waits for connections to close whose requests have been answered.
_CLOSE_WAIT_S = 3.0
#: The endpoint strings that HOST:PORT becomes.
_TCP_ENDPOINT = re.compile(r"tcp(6?):(\d+)(?::interface=((?:[^:\\]|\\.)*))?")


class HTTPService(Service):
    """Listens, and drains on stop.

    :ivar address: where it listens, once it does: what Twisted says of the port.
    :ivar port: what listens, once it does.
    :ivar drain_seconds: how long a stop waits for requests that are under way.
    """

    def __init__(
        self,
        endpoint: IStreamServerEndpoint,
        site: HTTPSite,
        clock: Any,
        drain_seconds: float,
        key: str = "http.addr",
    ) -> None:
        """Take what to listen on, and what to listen with.

        :param key: what the configuration calls the address, with its value.
        """
        self._endpoint = endpoint
        self._site = site
        self._clock = clock
        self._key = key
        self.drain_seconds = drain_seconds
        self.port: IListeningPort | None = None
        self.address: object = None

    def privilegedStartService(self) -> None:
        """Begin to listen.

        :raises StartError: if that is not possible; the text names the key.
        """
        failures: list[Failure] = []
        self._endpoint.listen(self._site).addCallbacks(self._listening, failures.append)
        if failures:
            raise StartError(f"{self._key}: {_explain_listen_error(failures[0].value)}")

    def _listening(self, port: IListeningPort) -> None:
        self.port = port
        self.address = port.getHost()

    def stopService(self) -> Deferred[None]:
        """Take no new connections, let requests end, close what is left."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self.port is not None:
            await maybeDeferred(self.port.stopListening)
            log.info("no new connections are taken")
        drained = self._site.drain()
        if self.drain_seconds > 0:
            drained.addTimeout(self.drain_seconds, self._clock, lambda *_: None)
            await drained
            # An answer that was written may not have been sent yet, nor taken.
            await self._site.disconnect().addTimeout(_CLOSE_WAIT_S, self._clock, lambda *_: None)
        self._site.abort()
        # The transports tell of their end in the next turn. Handlers that hear of it begin to put
        # their work away, which the storage must see before it is told to close.
        await deferLater(self._clock, 0)


@implementer(IStreamServerEndpoint)
class TCPEndpoint:
    """Listens on a port, and comes alone.

    Twisted's module of endpoints brings standard streams, systemd and server name indication with
    it, which takes 6 ms of each start.
    """

    def __init__(self, reactor: Any, port: int, interface: str) -> None:
        """Take where to listen; an empty interface is all of them."""
        self._reactor = reactor
        self._port = port
        self._interface = interface

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """As promised by the interface."""
        return execute(
            self._reactor.listenTCP, self._port, protocolFactory, _BACKLOG, self._interface
        )


def _explain_listen_error(error: Any) -> str:
    """Why it can not be listened, in words for who started this."""
    if not isinstance(error, CannotListenError):
        return str(getattr(error, "strerror", None) or error)
    reason: Any = error.socketError
    said = str(getattr(reason, "strerror", None) or reason)
    port: Any = error.port
    if isinstance(reason, PermissionError) and isinstance(port, int):
        # 1024, unless the machine says otherwise.
        said += ": a low port takes root, or the capability CAP_NET_BIND_SERVICE"
    return said


def make_endpoint(
    reactor: Any, description: str, path: str, environ: Mapping[str, str]
) -> IStreamServerEndpoint:
    """What to listen on.

    :param description: a server endpoint string of Twisted.
    :param path: of a unix socket, or empty: a dead socket in its place is removed.
    :param environ: that of the process' start; if systemd hands over exactly one socket, that
        one is taken instead, as Distribution does.
    :raises StartError: if something else lies at ``path``, or a live socket.
    """
    handed_over = environ.get("LISTEN_FDS") == "1" and environ.get("LISTEN_PID") == str(os.getpid())
    tcp = _TCP_ENDPOINT.fullmatch(description)
    if tcp and not handed_over:
        everywhere = "::" if tcp[1] else ""
        interface = everywhere if tcp[3] is None else re.sub(r"\\(.)", r"\1", tcp[3])
        return TCPEndpoint(reactor, int(tcp[2]), interface)
    # Only here: see TCPEndpoint.
    from twisted.internet import endpoints  # noqa: PLC0415

    if handed_over:
        with socket.socket(fileno=os.dup(_FIRST_SYSTEMD_FD)) as duplicate:
            family = duplicate.family
        return endpoints.AdoptedStreamServerEndpoint(reactor, _FIRST_SYSTEMD_FD, family)
    if path:
        _remove_stale_socket(Path(path))
    endpoint: IStreamServerEndpoint = endpoints.serverFromString(reactor, description)
    return endpoint


def initial_environment() -> dict[str, str]:
    """The environment that this process began with.

    Twisted takes LISTEN_FDS and LISTEN_PID out of ``os.environ`` as soon as its endpoints are
    imported, which under twistd is before anything of ours is.
    """
    try:
        items = Path("/proc/self/environ").read_bytes().split(b"\0")
    except OSError:
        # No Linux, so no systemd either.
        return dict(os.environ)
    pairs = (os.fsdecode(item).partition("=") for item in items)
    return {name: value for name, _, value in pairs}


def describe_address(address: object, *, secure: bool = False) -> tuple[str, str]:
    """An address for people, and ``host:port`` for a client on this machine (or empty).

    :param secure: whether TLS is spoken there.
    """
    if isinstance(address, IPv4Address | IPv6Address):
        local = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104
        shown = f"[{address.host}]" if ":" in address.host else address.host
        host = f"{local.get(address.host, shown)}:{address.port}"
        return f"{'https' if secure else 'http'}://{shown}:{address.port}", host
    if isinstance(address, UNIXAddress):
        over = " with TLS" if secure else ""
        return f"unix socket {os.fsdecode(address.name or '')}{over}", ""
    return str(address), ""


def _remove_stale_socket(path: Path) -> None:
    """Remove a socket that nobody listens on any more."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise StartError(f"{path}: {error.strerror}") from error
    if not stat.S_ISSOCK(mode):
        raise StartError(f"{path} is there, and no socket")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
        else:
            raise StartError(f"{path}: another process listens on it")
