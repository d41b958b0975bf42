"""Checks of the store, of files and of TCP servers."""

from __future__ import annotations

from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.protocol import Factory, Protocol
from zope.interface import implementer

from twisted_registry.health.interfaces import CheckFailed, ICheck

if TYPE_CHECKING:
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

    A daemon thread looks for the file. It may wait forever for a share that does not respond, and
    must not keep the process running.

    :ivar name: the path, as configured.
    """

    reactor: Any
    name: str
    _path: Path = field(init=False)
    _is_looking: bool = field(init=False, default=False)

    @_path.default
    def _make_path(self) -> Path:
        # Now, as a daemon may change its working directory.
        return Path(self.name).absolute()

    async def run(self) -> None:
        """Look for the file."""
        if self._is_looking:
            raise CheckFailed("the last look at the file has not ended")
        self._is_looking = True
        ended: Deferred[CheckFailed | None] = Deferred()
        Thread(target=self._look, args=(ended,), name="health file", daemon=True).start()
        fault = await ended
        if fault is not None:
            raise fault

    def _look(self, ended: Deferred[CheckFailed | None]) -> None:
        fault: CheckFailed | None = CheckFailed("file exists")
        try:
            self._path.stat()
        except FileNotFoundError:
            fault = None
        except OSError as error:
            fault = CheckFailed(error.strerror)
        self.reactor.callFromThread(self._arrive, ended, fault)

    def _arrive(self, ended: Deferred[CheckFailed | None], fault: CheckFailed | None) -> None:
        self._is_looking = False
        if not ended.called:  # otherwise it was cancelled
            ended.callback(fault)


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
