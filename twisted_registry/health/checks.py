"""Checks of the store, of files and of TCP servers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import define, field
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.protocol import Factory, Protocol
from zope.interface import implementer

from twisted_registry.health.interfaces import CheckFailed, ICheck

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred

    from twisted_registry.storage.interfaces import IStorageDriver


@implementer(ICheck)
@define(eq=False)
class StorageCheck:
    """Fails while the store does not list its root, which each driver has to look up."""

    driver: IStorageDriver
    name: str = field(init=False)

    @name.default
    def _make_name(self) -> str:
        return f"storagedriver_{self.driver.name}"

    async def run(self) -> None:
        """List the first entry of the root."""
        await self.driver.list("", limit=1)


@implementer(ICheck)
@define(eq=False)
class FileCheck:
    """Fails while a file exists: an operator makes it to take the registry out of service.

    :ivar name: the path, as configured.
    :ivar run_blocking: calls a function on a thread, and fires with its result.
    """

    name: str
    run_blocking: Callable[..., Deferred[bool]]
    _path: Path = field(init=False)

    @_path.default
    def _make_path(self) -> Path:
        # Now, as a daemon may change its working directory.
        return Path(self.name).absolute()

    async def run(self) -> None:
        """Look for the file."""
        try:
            exists = await self.run_blocking(_exists, self._path)
        except OSError as error:
            raise CheckFailed(error.strerror) from error
        if exists:
            raise CheckFailed("file exists")


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except FileNotFoundError:
        return False
    return True


@implementer(ICheck)
@define(eq=False)
class TCPCheck:
    """Fails while a TCP server does not accept connections.

    :ivar name: the address, as configured.
    :ivar timeout_s: seconds for one attempt to connect.
    """

    reactor: Any
    name: str
    host: str
    port: int
    timeout_s: float

    async def run(self) -> None:
        """Connect, and close the connection."""
        factory = Factory.forProtocol(Protocol)
        factory.noisy = False
        endpoint = HostnameEndpoint(self.reactor, self.host, self.port, self.timeout_s)
        connected: Any = await endpoint.connect(factory)
        connected.transport.loseConnection()
