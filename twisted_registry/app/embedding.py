"""A registry as a Resource inside another twisted.web application."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed

from twisted_registry.api.root import SiteRoot, put_path
from twisted_registry.app.service import RegistryService
from twisted_registry.storage.filesystem.driver import FilesystemDriver

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted.web.resource import Resource

    from twisted_registry.auth.interfaces import IAccessController
    from twisted_registry.config.loading import LoadedConfiguration
    from twisted_registry.repository.interfaces import IRegistryListener
    from twisted_registry.storage.interfaces import IStorageDriver


class RegistryRoot(SiteRoot):
    """The Resource tree of a registry: the API is its child ``v2``.

    While a check of ``health`` fails, this tree answers 503.

    :ivar api: the API alone, to be mounted as ``v2`` at the root of a site of which the registry is
        only a part. Tokens (``access.tokens``) need the child ``auth`` of this tree as well. It
        serves whatever the checks find: ask ``service.health``.
    :ivar service: the registry without a listener: ``service.registry`` has the repositories,
        ``service.driver`` the store.
    """

    def __init__(self, service: RegistryService, reactor: Any) -> None:
        super().__init__(service.health)
        self.service = service
        self.api: Resource = service.api
        for path, resource in {"v2": service.api, **service.pages}.items():
            put_path(self, path, resource)
        self._reactor = reactor
        self._is_closed = False
        service.privilegedStartService()
        reactor.callWhenRunning(self._start)
        self._trigger = reactor.addSystemEventTrigger("before", "shutdown", self._shut_down)

    def _start(self) -> None:
        if not self._is_closed:
            self.service.startService()

    def _shut_down(self) -> Deferred[None]:
        self._trigger = None  # one that has fired cannot be removed
        return self.close()

    def close(self) -> Deferred[None]:
        """Stop the periodic tasks and close the store; no request may be in progress.

        It happens by itself when the reactor stops.

        :returns: fires when nothing of the registry remains in the reactor.
        """
        if self._is_closed:
            return succeed(None)
        self._is_closed = True
        trigger, self._trigger = self._trigger, None
        if trigger is not None:
            self._reactor.removeSystemEventTrigger(trigger)
        return self.service.stopService()


def make_resource(
    reactor: Any,
    configuration: LoadedConfiguration | Mapping[str, Any] | str | None = None,
    *,
    storage: IStorageDriver | str | Path | None = None,
    access: IAccessController | None = None,
    listener: IRegistryListener | None = None,
    environ: Mapping[str, str] | None = None,
) -> RegistryRoot:
    """Make a registry that another twisted.web application serves.

    ::

        Site(make_resource(reactor))                                  # it is the whole site
        root.putChild(b"v2", make_resource(reactor, storage=path).api)    # beside other pages
        root.putChild(b"images", make_resource(reactor))              # below /images/v2/

    Its periodic tasks start with the reactor, and it is closed when the reactor stops. There is no
    global state: any number can be made.

    :param reactor: where it runs.
    :param configuration: what :func:`twisted_registry.load_configuration` returns, or the
        configuration as a mapping or as YAML. The sections about listening and TLS have no effect.
        None for a registry in which everyone may do everything.
    :param storage: a folder or a driver, in place of the one that the configuration names. With
        neither, images are stored in memory.
    :param access: an access controller, in place of ``auth`` and ``access``.
    :param listener: receives an event for each push, pull, mount and delete.
    :param environ: environment variables with the credentials of a store.
    :raises ConfigurationError: if a mapping or YAML is not a valid configuration.
    :raises StartError: if the registry cannot be made as configured.
    """
    driver = None
    if configuration is None:
        section: dict[str, Any] = {"delete": {"enabled": True}}
        if isinstance(storage, str | Path):
            section["filesystem"] = {"rootdirectory": str(storage)}
        else:
            section["inmemory"] = {}
            driver = storage
        configuration = {"version": 0.1, "storage": section}
    elif isinstance(storage, str | Path):
        driver = FilesystemDriver(str(Path(storage).absolute()), reactor)
    else:
        driver = storage
    service = RegistryService(
        configuration,
        reactor,
        environ,
        driver=driver,
        access=access,
        listener=listener,
        listen=False,
    )
    return RegistryRoot(service, reactor)
