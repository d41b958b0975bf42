"""A registry for tests inside a running reactor: a Service, and an async context manager.

::

    async with AsyncRegistry(reactor) as registry:
        response = await treq.get(f"{registry.url}/v2/")
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import TYPE_CHECKING, Any, Self, cast

from twisted.application.service import Service
from twisted.internet.defer import Deferred

from twisted_registry.app.service import RegistryService
from twisted_registry.testing.clients import ClientAttributes, ClientSettings
from twisted_registry.testing.contents import Contents
from twisted_registry.testing.faults import Faults
from twisted_registry.testing.hooks import HookedResource
from twisted_registry.testing.journal import Journal
from twisted_registry.testing.options import CA_FILE, Options

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self

    from twisted.web.resource import Resource

    from twisted_registry.app.listener import HTTPService
    from twisted_registry.auth.interfaces import IAccessController
    from twisted_registry.repository.interfaces import IRegistryListener
    from twisted_registry.repository.registry import Registry
    from twisted_registry.testing.hooks import RequestHook
    from twisted_registry.testing.options import Auth, Config, Storage
    from twisted_registry.testing.profiles import Profile


#: Twisted reserves a descriptor when a port is opened first, for all reactors of the process and
#: without regard to threads.
_LISTENING = Lock()


class AsyncRegistry(ClientAttributes, Service):
    """A registry on the caller's reactor, on a free port of 127.0.0.1.

    It serves from ``startService`` or the beginning of ``async with`` until the Deferred of
    ``stopService`` fires or the block ends. Then nothing of it remains in the reactor. It can be
    started again, on another port; what is in memory is lost.

    It must be used on the reactor's thread. A blocking client on that thread would wait for itself:
    use :class:`~twisted_registry.testing.registry.Registry` for those.

    :ivar reactor: the reactor.
    :ivar hooks: the functions through which each request passes, see
        :mod:`twisted_registry.testing.hooks`, after journal and faults. It may be changed at any
        time.
    :ivar journal: the requests that were received.
    :ivar faults: makes faults.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        auth: Auth = None,
        tls: bool = False,
        token_auth: bool = False,
        readonly: bool = False,
        delete: bool = True,
        storage: Storage = None,
        config: Config = None,
        port: int = 0,
        environ: Mapping[str, str] | None = None,
        access: IAccessController | None = None,
        listener: IRegistryListener | None = None,
        hooks: list[RequestHook] | None = None,
        journal: Journal | None = None,
        faults: Faults | None = None,
        profile: Profile | None = None,
    ) -> None:
        """Prepare a registry; nothing is opened yet.

        The options are those of :class:`~twisted_registry.testing.registry.Registry`.

        :param reactor: where it runs.
        """
        self.reactor = reactor
        self._options = Options(
            auth, tls, token_auth, readonly, delete, storage, config, port, environ or {}
        )
        self._access = access
        self._listener = listener
        self._service: RegistryService | None = None
        self._settings: ClientSettings | None = None
        self._resources = ExitStack()
        self.hooks: list[RequestHook] = [] if hooks is None else hooks
        self.journal = Journal() if journal is None else journal
        self.faults = Faults(profile) if faults is None else faults

    @property
    def client_settings(self) -> ClientSettings:
        """All attributes for clients in one object.

        :raises RuntimeError: if the registry does not run.
        """
        if self._settings is None:
            raise RuntimeError(
                "the registry does not run: use it inside 'async with AsyncRegistry(reactor) as"
                " registry:' or 'with Registry() as registry:', or start it first"
            )
        return self._settings

    @property
    def registry(self) -> Registry:
        """The repositories, without HTTP. Its methods return Deferreds and coroutines.

        :raises RuntimeError: if the registry does not run.
        """
        _ = self.client_settings
        return cast("RegistryService", self._service).registry

    @property
    def contents(self) -> Contents:
        """Pushes images and looks inside, without HTTP, by coroutines.

        :raises RuntimeError: if the registry does not run.
        """
        return Contents(self.registry)

    def startService(self) -> None:
        """Serve.

        :raises ConfigurationError: if the options are not a valid configuration.
        :raises StartError: if it cannot be served, for example because the port is in use.
        """
        options = self._options
        folder = (
            Path(self._resources.enter_context(TemporaryDirectory("-registry")))
            if (options.needs_folder)
            else Path()
        )
        try:
            loaded = options.load(folder, self.reactor.seconds())
            self._service = service = RegistryService(
                loaded,
                self.reactor,
                driver=options.storage(self.reactor) if callable(options.storage) else None,
                access=self._access,
                listener=self._listener,
                wrap_root=self._wrap_root,
            )
            with _LISTENING:
                service.privilegedStartService()
        except BaseException:
            self._resources.close()
            raise
        service.startService()
        http = cast("HTTPService", service.getServiceNamed("http"))
        address: Any = http.address
        self._settings = ClientSettings(
            "https" if loaded.configuration.http.tls.is_enabled else "http",
            f"127.0.0.1:{address.port}",
            options.users,
            folder / CA_FILE if options.tls else None,
        )
        super().startService()

    def stopService(self) -> Deferred[None]:
        """Abort all requests, and close the store.

        :returns: fires when nothing of the registry remains in the reactor.
        """
        super().stopService()
        service, self._service, self._settings = self._service, None, None

        async def stop() -> None:
            with self._resources:
                if service is not None:
                    await service.stopService()

        return Deferred.fromCoroutine(stop())

    async def __aenter__(self) -> Self:
        """Serve until the block ends."""
        self.startService()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop."""
        await self.stopService()

    def _wrap_root(self, root: Resource) -> Resource:
        own_hooks = (self.journal.record, self.faults.inject)
        return HookedResource(HookedResource(root, self.hooks), own_hooks)
