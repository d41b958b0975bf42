"""The running registry: the one place that joins configuration to constructors.

All that can go wrong at the start goes wrong in ``privilegedStartService``, before the reactor
runs, with one sentence for the operator.

The configuration in the words of the API: a part of service.py.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, Logger

from twisted_registry.api.context import APISettings, URLBuilder
from twisted_registry.api.resource import RegistryResource
from twisted_registry.api.root import make_error_body, make_root
from twisted_registry.app.errors import StartError
from twisted_registry.app.listener import HTTPService, describe_address, make_endpoint
from twisted_registry.app.maintenance import (
    MaintenanceService,
    make_gate_heartbeat,
    make_pull_recorder,
    make_pull_set,
    make_trash,
    make_watermark,
)
from twisted_registry.app.stores import make_driver, make_manifest_policy, s3_section_name
from twisted_registry.auth.access import OpenAccess
from twisted_registry.gc.gate import CollectorGate
from twisted_registry.http.interfaces import Limits
from twisted_registry.http.site import AccessLog, HTTPSite
from twisted_registry.repository.cache import NullDescriptorCache
from twisted_registry.repository.presence import NullGate
from twisted_registry.repository.registry import Registry
from twisted_registry.storage.checked import CheckedDriver

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted.application.service import IServiceCollection
    from twisted.internet.interfaces import IStreamServerEndpoint
    from twisted.web.resource import Resource

    from twisted_registry.app.debug import DebugAddress
    from twisted_registry.app.tls import TLSService
    from twisted_registry.auth.interfaces import IClosableAccessController
    from twisted_registry.config.loading import LoadedConfiguration
    from twisted_registry.config.schema import Configuration
    from twisted_registry.repository.cache import IDescriptorCache
    from twisted_registry.repository.interfaces import IPresenceGate
    from twisted_registry.storage.interfaces import IStorageDriver
    from twisted_registry.storage.s3.driver import S3Driver
    from twisted_registry.tls.interfaces import CertificateBundle
    from twisted_registry.workers.handover import Handover
    from twisted_registry.workers.port import LoadTable, SharedPort


def make_api_settings(configuration: Configuration) -> APISettings:
    """What the API is told."""
    http, storage = configuration.http, configuration.storage
    return APISettings(
        urls=URLBuilder(http.host, http.relativeurls),
        headers=http.headers,
        delete=storage.delete.enabled,
        read_only=storage.maintenance.readonly.enabled,
        redirect=not storage.redirect.disable,
        catalog_limit=configuration.catalog.maxentries,
        tags_limit=configuration.tags.maxtags,
    )


def make_limits(configuration: Configuration) -> Limits:
    """What clients are held to."""
    limits = configuration.http.limits
    return Limits(
        url_bytes=limits.urlbytes,
        header_bytes=limits.headerbytes,
        header_seconds=limits.headertimeout,
        idle_seconds=limits.idletimeout,
        body_seconds=limits.bodytimeout,
    )


log = Logger()

#: Seconds for which what was called present is kept from being removed; less with less grace.
_MAX_PRESENCE_LEASE_S = 600.0


class RegistryService(MultiService):
    """A registry with its listener.

    The child ``http`` listens; ``maintenance``, an :class:`~twisted_registry.maintenance_service.MaintenanceService`, has
    the chores. Stopping drains the requests that are under way, for as long as
    ``http.draintimeout`` says, then closes the storage. With ``http.workers`` above 1, this process
    is the first of several: the child ``workers`` runs the others, each of which is such a service
    too.

    :ivar is_first: whether this process is the only one or the first of several, which alone does
        the chores.
    """

    def __init__(
        self,
        loaded: LoadedConfiguration,
        reactor: Any,
        environ: Mapping[str, str],
        access_log: TextIO,
        observer: ILogObserver | None = None,
        handover: Handover | None = None,
    ) -> None:
        """Build everything; nothing is opened yet.

        :param loaded: the configuration and where it came from.
        :param environ: for a socket that systemd hands over, and the credentials of a store.
        :param access_log: where the access log goes, unless it is switched off.
        :param observer: what an application that takes this service in should log with.
        :param handover: what the first of several processes gave to this one.
        :raises StartError: if driver or access control can not be as they are configured.
        """
        super().__init__()
        self._loaded = loaded
        self._reactor = reactor
        self._environ = environ
        self._observer = observer
        self._handover = handover
        self._loads: LoadTable | None = None
        configuration = loaded.configuration
        #: Called, once the registry listens, with what only the store could tell to be configured
        #: wrongly; None lets the registry go on, with a line in the log.
        self.on_start_error: Callable[[StartError], object] | None = None
        self.driver = make_driver(configuration, reactor, environ)
        if configuration.storage.bucket is not None and self.is_first:
            from twisted_registry.app import s3  # noqa: PLC0415 - needed by few

            check = s3.BucketCheck(
                s3_section_name(configuration),
                cast("S3Driver", self.driver),
                self._store_misconfigured,
            )
            check.setName("store")
            check.setServiceParent(self)
        if configuration.middleware.storage:
            from twisted_registry.app.middleware import apply_middleware  # noqa: PLC0415

            self.driver = apply_middleware(self.driver, configuration, reactor)
        self._debug = self._make_debug()
        counts = None if self._debug is None else self._debug.counts
        checked = CheckedDriver(self.driver, reactor, counts)
        # What is only read is no business of a collector's, and takes no note of one.
        writes = not configuration.storage.maintenance.readonly.enabled
        memory = min(configuration.storage.maintenance.gc.grace, _MAX_PRESENCE_LEASE_S)
        gate = CollectorGate(checked, reactor, memory) if writes else NullGate()
        self._descriptors: IDescriptorCache = NullDescriptorCache()
        if configuration.storage.cache.kind:
            from twisted_registry.app.stores import make_descriptor_cache  # noqa: PLC0415

            self._descriptors = make_descriptor_cache(configuration, reactor)
        self.registry = Registry(
            checked,
            reactor,
            gate=gate,
            policy=make_manifest_policy(configuration),
            secret=configuration.http.secret.encode() or None,
            url_lifetime_s=round(configuration.storage.redirect.lifetime),
            max_content_bytes=configuration.storage.cache.manifestbytes,
            descriptors=self._descriptors,
            deleter=make_trash(configuration, checked, reactor),
            pending_pulls=make_pull_set(configuration) if writes else None,
        )
        self._access: IClosableAccessController | None = None
        pages: Mapping[str, Resource] = {}
        if configuration.controls_access:
            from twisted_registry.app.access import make_access  # noqa: PLC0415

            control = make_access(configuration, reactor, environ, self.registry)
            self._access, pages = control.access, control.pages
        access = self._access or OpenAccess()
        self._encryption: TLSService | None = None
        if configuration.http.tls.is_enabled:
            from twisted_registry.app.tls import TLSService  # noqa: PLC0415 - needed by few

            self._encryption = TLSService(
                configuration, reactor, handover.material if handover else None
            )
            self._encryption.setServiceParent(self)
            pages = {**pages, **self._encryption.documents}
        api = RegistryResource(
            self.registry, access, reactor, make_api_settings(configuration), counts
        )
        self._watermark = make_watermark(self, configuration, api, reactor)
        is_enabled = not configuration.log.accesslog.disabled
        self.site = HTTPSite(
            make_root(api, configuration.http.prefix, pages),
            reactor,
            limits=make_limits(configuration),
            access_log=AccessLog(access_log) if is_enabled else None,
            make_error_body=make_error_body,
        )

        self._add_maintenance(gate, checked)

    @property
    def is_first(self) -> bool:
        """See the class."""
        return self._handover is None

    def _make_debug(self) -> DebugAddress | None:
        debug = self._loaded.configuration.http.debug
        if not debug.addr:
            return None
        from twisted_registry.app.debug import DebugAddress  # noqa: PLC0415 - set by few

        return DebugAddress(debug, self._reactor)

    def _add_maintenance(self, gate: IPresenceGate, checked: IStorageDriver) -> None:
        configuration, reactor = self._loaded.configuration, self._reactor
        maintenance_service: MaintenanceService | None = None
        if isinstance(gate, CollectorGate):
            make_gate_heartbeat(gate, configuration, reactor).setServiceParent(self)
            if self.registry.pending_pulls is not None:
                make_pull_recorder(self.registry.pending_pulls, checked, reactor).setServiceParent(
                    self
                )
            if self.is_first:
                maintenance_service = MaintenanceService(
                    self.registry, checked, configuration, reactor
                )
                maintenance_service.setServiceParent(self)
        if self._debug is not None and self.is_first:
            room = None if self._watermark is None else self._watermark.status
            self._debug.listen(self, maintenance_service, self._access, room)
        elif self._debug is not None:
            self._debug.report(self)

    def setServiceParent(self, parent: IServiceCollection) -> None:
        """Bring our way of logging along into an application that twistd made."""
        if self._observer is not None and hasattr(parent, "setComponent"):
            parent.setComponent(ILogObserver, self._observer)
        super().setServiceParent(parent)

    def privilegedStartService(self) -> None:
        """Check the storage and begin to listen.

        :raises StartError: if either is not possible; the text names the key.
        """
        self._check_root_directory()
        http = self._loaded.configuration.http
        key = f"http.addr: {http.addr}"
        if self._encryption is not None:
            self._encryption.prepare()
        try:
            endpoint = self._endpoint()
            if self._encryption is not None:
                endpoint = self._encryption.wrap_endpoint(endpoint)
        except StartError as error:
            raise StartError(f"{key}: {error}") from error
        listener = HTTPService(endpoint, self.site, self._reactor, http.draintimeout, key)
        listener.setName("http")
        listener.setServiceParent(self)
        super().privilegedStartService()
        if self.is_first and self._loads is not None:
            # Only here, as below: one process needs none of it.
            from twisted_registry.workers.supervisor import WorkerSupervisor  # noqa: PLC0415

            port = cast("SharedPort", listener.port)
            gathered = None if self._debug is None else self._debug.gathered
            workers = WorkerSupervisor(
                self._reactor, self._loaded, port.socket, self._loads, gathered=gathered
            )
            workers.setName("workers")
            if self._encryption is not None:
                self._encryption.share_with(workers.set_certificate)
            workers.setServiceParent(self)

    def startService(self) -> None:
        """Say what is served, and how to use it."""
        super().startService()
        if self._handover is not None:
            log.info("serving as worker {number}", number=self._handover.number)
            return
        log.info("configuration: {source}", source=self._loaded.source)
        for warning in self._loaded.warnings:
            log.warn("{warning}", warning=warning)
        for notice in self._loaded.notices:
            log.info("{notice}", notice=notice)
        log.info("storage: {store}", store=self._describe_store())
        address = self.getServiceNamed("http").address
        shown, host = describe_address(address, secure=self._encryption is not None)
        log.info("listening on {address}", address=shown)
        if self._encryption is not None:
            self._encryption.log_client_advice(address)
            host = self._encryption.public_host(host)
        # Clients look for /v2/ at the root: what reaches a prefix only a proxy in front knows.
        if host and not self._loaded.configuration.http.prefix:
            log.info(
                "to push an image: docker tag IMAGE {target} && docker push {target}",
                target=f"{host}/NAME",
            )

    def reload(self) -> None:
        """Read again what may change while the registry serves: certificates."""
        if self._encryption is None:
            log.info("there are no certificates to read again")
        else:
            self._encryption.reload()

    def set_certificate(self, material: CertificateBundle) -> None:
        """Show another certificate: the first of several processes says so to this one."""
        if self._encryption is not None:
            self._encryption.use(material)

    def abort_requests(self) -> None:
        """Wait for no request any more, neither now nor when stopping."""
        self.getServiceNamed("http").drain_seconds = 0
        self.site.abort()

    def stopService(self) -> Deferred[None]:
        """Stop listening, drain, and close the storage."""
        stopping = super().stopService()
        return Deferred.fromCoroutine(self._close(stopping))

    async def _close(self, stopping: Deferred[Any]) -> None:
        await stopping
        if self._access is not None:
            await self._access.close()
        await self._descriptors.close()
        await self.driver.close()
        if self._loads is not None:
            self._loads.close()

    def _endpoint(self) -> IStreamServerEndpoint:
        http = self._loaded.configuration.http
        if self._handover is None and http.workers == 1:
            return self._own_endpoint()
        from twisted_registry.workers.port import (  # noqa: PLC0415
            AdoptedEndpoint,
            LoadTable,
            SharingEndpoint,
        )

        if self._handover is None:
            self._loads = loads = LoadTable.make(http.workers)
            endpoint: IStreamServerEndpoint = SharingEndpoint(
                self._reactor, self._own_endpoint(), loads
            )
        else:
            self._loads = loads = LoadTable(
                self._handover.loads, http.workers, self._handover.number
            )
            endpoint = AdoptedEndpoint(self._reactor, self._handover.listener, loads)
        self.site.on_connection_count = loads.publish
        return endpoint

    def _own_endpoint(self) -> IStreamServerEndpoint:
        address = self._loaded.configuration.http.address
        return make_endpoint(self._reactor, address.endpoint, address.path, self._environ)

    def _store_misconfigured(self, error: StartError) -> None:
        if self.on_start_error is not None:
            self.on_start_error(error)

    def _describe_store(self) -> str:
        storage = self._loaded.configuration.storage
        filesystem, bucket = storage.filesystem, storage.bucket
        if bucket is not None:
            below = f" below {bucket.rootdirectory}" if bucket.rootdirectory else ""
            return f"objects in the bucket {bucket.bucket} of {bucket.description}{below}"
        if filesystem is None:
            return "in memory: everything is gone when this process ends"
        return f"files below {Path(filesystem.rootdirectory).absolute()}"

    def _check_root_directory(self) -> None:
        storage = self._loaded.configuration.storage
        filesystem = storage.filesystem
        if filesystem is None:
            return
        root = Path(filesystem.rootdirectory)
        try:
            root.mkdir(parents=True, exist_ok=True)
            next(root.iterdir(), None)
            if not (storage.maintenance.readonly.enabled or os.access(root, os.W_OK | os.X_OK)):
                raise PermissionError(errno.EACCES, "can not be written to")
        except OSError as error:
            raise StartError(
                f"storage.filesystem.rootdirectory: {root}: {error.strerror}"
            ) from error
