"""The service of a registry: everything that one process serves, made from the configuration.

What is wrong with a configuration or its surroundings raises a StartError with one line: in the
constructor or in ``privilegedStartService``, both before the reactor runs.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any, TextIO, cast

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred, succeed
from twisted.logger import Logger

from twisted_registry.api.request_log import RequestLog
from twisted_registry.api.resource import RegistryResource
from twisted_registry.api.root import make_error_body, make_root, put_path
from twisted_registry.app.audit import open_audit_log, record_change_of_rules
from twisted_registry.app.listener import (
    HTTPService,
    descriptor_limit,
    log_address,
    log_descriptors,
    make_endpoint,
)
from twisted_registry.app.maintenance import (
    MaintenanceService,
    StorageState,
    make_gate,
    make_gate_heartbeat,
    make_pull_set,
    make_quota_synchronizer,
    make_reserve_keeper,
    make_trash,
    make_watermark,
)
from twisted_registry.app.reload import ConfigurationReloader
from twisted_registry.app.settings import (
    limit_rates,
    make_api_settings,
    make_limits,
    make_rate_limit,
    make_trusted_proxies,
)
from twisted_registry.app.stores import (
    describe_store,
    make_descriptor_cache,
    make_driver,
    make_manifest_policy,
    make_quotas,
    make_recent_links,
    prepare_root_directory,
    s3_section_name,
)
from twisted_registry.app.tracing import make_tracing
from twisted_registry.auth.access import OpenAccess
from twisted_registry.config.loading import as_loaded
from twisted_registry.frame.errors import StartError
from twisted_registry.gc.gate import CollectorGate
from twisted_registry.health.registry import FollowedHealth, HealthRegistry
from twisted_registry.http.site import AccessLog, HTTPSite
from twisted_registry.logs.context import INSTANCE_ID
from twisted_registry.maintenance.clock_watch import ClockWatch
from twisted_registry.repository.clock import ClockJumps, seconds_since_boot
from twisted_registry.repository.interfaces import CombinedListener
from twisted_registry.repository.parsing import ManifestWorker
from twisted_registry.repository.presence import NullGate
from twisted_registry.repository.registry import Registry
from twisted_registry.storage.checked import CheckedDriver
from twisted_registry.storage.fallbacks import with_reserve
from twisted_registry.storage.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted.internet.interfaces import IStreamServerEndpoint
    from twisted.web.resource import Resource

    from twisted_registry.app.access import AccessControl
    from twisted_registry.app.debug import DebugAddress
    from twisted_registry.app.logs import ProcessLog
    from twisted_registry.app.notifications import NotificationService
    from twisted_registry.app.tls import TLSService
    from twisted_registry.auth.interfaces import IAccessController
    from twisted_registry.config.loading import LoadedConfiguration
    from twisted_registry.config.schema import Configuration
    from twisted_registry.maintenance.watermark import Watermark
    from twisted_registry.repository.interfaces import IRegistryListener
    from twisted_registry.storage.interfaces import IStorageDriver
    from twisted_registry.storage.s3.driver import S3Driver
    from twisted_registry.tls.interfaces import CertificateBundle
    from twisted_registry.workers.handover import Handover
    from twisted_registry.workers.port import ProcessTable, SharedPort

log = Logger()

#: The services that stop first, and at the same time; the others when these have ended.
_STOPPED_FIRST = frozenset({"http", "workers", "maintenance", "systemd"})


class RegistryService(MultiService):
    """A registry with its listener.

    The child ``http`` listens. The child ``maintenance`` runs the periodic tasks. The child
    ``notifications`` sends events, if endpoints are configured. With
    ``http.workers`` above 1 this process is the first of several: the child ``workers`` runs the
    others, each of which is such a service too.

    Stopping waits for the requests in progress, up to ``http.draintimeout``, then closes the store.

    :ivar driver: the driver of the store, inside the middleware.
    :ivar registry: the registry over that store.
    :ivar health: the state that follows from the checks of ``health``.
    :ivar site: the HTTP server.
    :ivar api: the Resource of the API, served as ``v2``.
    :ivar pages: further Resources by their paths beside ``v2``, such as that of tokens.
    :ivar on_start_error: called after the start if the store shows that its configuration is
        wrong, which it has to log; None to continue after a log line.
    """

    def __init__(
        self,
        configuration: LoadedConfiguration | Mapping[str, Any] | str,
        reactor: Any,
        environ: Mapping[str, str] | None = None,
        access_log: TextIO | None = None,
        handover: Handover | None = None,
        elapsed: Callable[[], float] = seconds_since_boot,
        *,
        driver: IStorageDriver | None = None,
        access: IAccessController | None = None,
        listener: IRegistryListener | None = None,
        wrap_root: Callable[[Resource], Resource] | None = None,
        listen: bool = True,
        process_log: ProcessLog | None = None,
    ) -> None:
        """Make all parts; nothing is opened yet, except files with users and keys.

        :param configuration: what :func:`twisted_registry.load_configuration` returns, or
            the configuration as a mapping or as YAML.
        :param environ: environment variables: a socket that systemd passes, the credentials of a
            store, and whether to trace requests (``OTEL_*``). None for no variables.
        :param access_log: receives the access log, unless it is disabled, and the audit log if that
            is on standard output; None for no access log.
        :param handover: in a worker, what the first process has sent.
        :param elapsed: returns a time that nobody sets, in seconds, to see when the clock is set.
        :param driver: the store, in place of the one that ``storage`` names; closed at the stop.
        :param access: the access controller, in place of ``auth`` and ``access``.
        :param listener: receives an event for each push, pull, mount and delete.
        :param wrap_root: returns the root of the Resource tree to serve, given the registry's.
        :param listen: whether to listen as ``http`` says. Otherwise the application serves ``api``
            and ``pages``, and drains before it stops the service.
        :param process_log: the log of this process, which may have a line for each request; None
            for that of a program, which has those that fail.
        :raises ConfigurationError: if a mapping or YAML is not a valid configuration.
        :raises StartError: if the driver or the access control cannot be made as configured.
        """
        super().__init__()
        loaded = as_loaded(configuration)
        self._loaded = loaded
        self._configuration = loaded.configuration
        self._reactor = reactor
        self._environ = {} if environ is None else environ
        self._given_driver = driver
        self._given_access = access
        self._listener = listener
        self._wrap_root = wrap_root
        self._listens = listen
        self._process_log = process_log
        self._request_log = RequestLog(
            process_log is not None and process_log.has_all_requests(self._configuration)
        )
        self._handover = handover
        # A reload may change it later, but not the parts that are made here.
        self._is_read_only = (
            self._configuration.storage.maintenance.readonly.enabled
            if handover is None
            else handover.started_read_only
        )
        self._elapsed = elapsed
        self._process_table: ProcessTable | None = None
        self.on_start_error: Callable[[StartError], object] | None = None

        self._tracing = make_tracing(self._environ, reactor)
        self.driver = self._make_driver()
        self._debug = self._make_debug()
        self._counts = None if self._debug is None else self._debug.counts
        tracer = None if self._tracing is None else self._tracing.storage
        checked = CheckedDriver(self.driver, reactor, self._counts, tracer)
        self._gate = self._make_gate(checked)
        self._recording: Deferred[None] = succeed(None)
        self._audit_log = open_audit_log(
            self._configuration, sys.stdout if access_log is None else access_log, reactor.seconds
        )
        self._descriptors = make_descriptor_cache(self._configuration, reactor)
        self._recent_links = make_recent_links(self._configuration, reactor)
        self._manifest_thread = Threads(reactor, 1, "manifests")
        self._notifications = self._make_notifications()
        self.registry = self._make_registry(checked)
        self._by_address = make_rate_limit(
            self._configuration.http.limits.requestsperaddress, "address", reactor
        )
        self._access_control = self._make_access()
        self.health = self._make_health(checked)
        self._tls = self._make_tls()
        self.api = self._make_api()
        self.pages = self._make_pages()
        self.site = self._make_site(access_log)
        self._reloader = self._make_reloader()
        self._add_maintenance(StorageState(self.api))

    @property
    def is_first(self) -> bool:
        """Whether this process is the only one or the first of several, which runs the tasks."""
        return self._handover is None

    def _make_driver(self) -> IStorageDriver:
        configuration, reactor = self._configuration, self._reactor
        if self._given_driver is not None:
            return self._given_driver
        wrap_agent = None if self._tracing is None else self._tracing.wrap_agent_showing_paths
        driver = make_driver(configuration, reactor, self._environ, wrap_agent=wrap_agent)
        if configuration.storage.bucket is not None and self.is_first:
            from twisted_registry.app.s3 import BucketCheck  # noqa: PLC0415 - for buckets only

            check = BucketCheck(
                s3_section_name(configuration),
                cast("S3Driver", driver),
                self._store_misconfigured,
                writes=not self._is_read_only,
            )
            check.setName("store")
            check.setServiceParent(self)
        if configuration.middleware.storage:
            from twisted_registry.app.middleware import apply_middleware  # noqa: PLC0415 - rare

            driver = apply_middleware(configuration, driver, reactor)
        return driver

    def _make_debug(self) -> DebugAddress | None:
        if not self._configuration.http.debug.addr:
            return None
        from twisted_registry.app.debug import DebugAddress  # noqa: PLC0415 - for it only

        return DebugAddress(self._configuration, self._reactor)

    def _make_gate(self, checked: IStorageDriver) -> CollectorGate | NullGate:
        # A registry that stores nothing cannot conflict with a collector.
        if self._is_read_only:
            return NullGate()
        return make_gate(self._configuration, checked, self._reactor)

    def _make_registry(self, checked: IStorageDriver) -> Registry:
        configuration, storage = self._configuration, self._configuration.storage
        return Registry(
            checked,
            self._reactor,
            gate=self._gate,
            listener=self._make_listener(),
            policy=make_manifest_policy(configuration),
            secret=configuration.http.secret.encode() or None,
            url_lifetime_s=round(storage.redirect.lifetime),
            max_content_bytes=storage.cache.manifestbytes,
            descriptors=self._descriptors,
            recent_links=self._recent_links,
            worker=ManifestWorker(self._manifest_thread.run_blocking),
            deleter=make_trash(configuration, checked, self._reactor),
            pending_pulls=None if self._is_read_only else make_pull_set(configuration),
            read_only=self._is_read_only,
            quotas=None if self._is_read_only else make_quotas(configuration, checked),
        )

    def _make_notifications(self) -> NotificationService | None:
        if not self._configuration.notifications.enabled_endpoints:
            return None
        from twisted_registry.app.notifications import (  # noqa: PLC0415 - SQLite, an HTTP client
            NotificationService,
        )

        service = NotificationService(
            self._configuration,
            self._reactor,
            None if self._debug is None else self._debug.aggregated_counts.own,
            instance_id=INSTANCE_ID if self._handover is None else self._handover.instance_id,
            is_first=self.is_first,
            has_own_store=self._given_driver is None,
            read_only=self._is_read_only,
            environ=self._environ,
            tracing=self._tracing,
        )
        service.setServiceParent(self)
        return service

    def _make_health(self, checked: IStorageDriver) -> HealthRegistry | FollowedHealth:
        if not self.is_first:
            return FollowedHealth()
        if not self._configuration.health.has_checks:
            return HealthRegistry()
        from twisted_registry.app.health import make_health_checks  # noqa: PLC0415 - for them only

        registry, checks = make_health_checks(self._configuration, checked, self._reactor)
        checks.setServiceParent(self)
        return registry

    def _make_listener(self) -> IRegistryListener | None:
        plugins = self._configuration.listeners
        listeners = [] if self._listener is None else [self._listener]
        if self._notifications is not None:
            listeners.append(self._notifications.listener)
        counter = None if self._debug is None else self._debug.repository_counter
        if counter is not None:
            listeners.append(counter)
        if plugins:
            from twisted_registry.app.plugins import make_listeners  # noqa: PLC0415 - rare

            listeners += make_listeners(plugins, self._reactor)
        return (
            CombinedListener(tuple(listeners))
            if len(listeners) > 1
            else next(iter(listeners), None)
        )

    def _make_access(self) -> AccessControl | None:
        if self._given_access is not None:
            return None
        return self._make_access_control(self._configuration, may_create=True)

    def _make_access_control(
        self, configuration: Configuration, *, may_create: bool
    ) -> AccessControl | None:
        """Make the access control of a configuration; None without any.

        :param may_create: whether a missing file of users is created.
        :raises StartError: if it cannot be made; the text names the key.
        """
        if not configuration.controls_access:
            return None
        from twisted_registry.app.access import make_access  # noqa: PLC0415 - for it only

        return make_access(
            configuration,
            self.registry,
            self._reactor,
            self._by_address,
            self._audit_log,
            self._counts,
            None if self._tracing is None else self._tracing.wrap_agent_showing_paths,
            may_create=may_create,
        )

    def _make_tls(self) -> TLSService | None:
        if not (self._listens and self._configuration.http.tls.is_enabled):
            return None
        from twisted_registry.app.tls import TLSService  # noqa: PLC0415 - for TLS only

        bundle = None if self._handover is None else self._handover.bundle
        tls = TLSService(self._configuration, self._reactor, bundle)
        tls.setServiceParent(self)
        return tls

    def _make_api(self) -> RegistryResource:
        access: IAccessController = self._given_access or (
            OpenAccess() if self._access_control is None else self._access_control.access
        )
        access = limit_rates(access, self._configuration, self._by_address, self._reactor)
        settings = make_api_settings(self._configuration)
        notifications = self._notifications
        return RegistryResource(
            self.registry,
            access,
            self._reactor,
            settings,
            self._counts,
            self._audit_log,
            None if notifications is None else notifications.listener.wait_until_stored,
            self._request_log,
        )

    def _make_pages(self) -> Mapping[str, Resource]:
        return {
            **({} if self._access_control is None else self._access_control.pages),
            **({} if self._tls is None else self._tls.downloads),
        }

    def _make_site(self, access_log: TextIO | None) -> HTTPSite:
        configuration = self._configuration
        root = self._root = make_root(self.api, configuration.http.prefix, self.pages, self.health)
        is_disabled = configuration.log.accesslog.disabled
        site = HTTPSite(
            root if self._wrap_root is None else self._wrap_root(root),
            self._reactor,
            limits=make_limits(configuration, descriptor_limit()),
            access_log=None if access_log is None or is_disabled else AccessLog(access_log),
            make_error_body=make_error_body,
            trusted_proxies=make_trusted_proxies(configuration),
        )
        if self._tracing is not None:
            site.begin_request = self._tracing.requests.begin
        return site

    def _add_maintenance(self, state: StorageState) -> None:
        configuration, reactor = self._configuration, self._reactor
        checked = self.registry.driver
        maintenance: MaintenanceService | None = None
        watermark = make_watermark(configuration, state, reactor)
        jumps = ClockJumps(reactor.seconds, self._elapsed)
        ClockWatch(reactor, jumps).setServiceParent(self)
        if watermark is not None:
            watermark.setServiceParent(self)
        if isinstance(self._gate, CollectorGate):
            keeper = make_reserve_keeper(configuration, checked, state, reactor)
            if keeper is not None:
                keeper.setServiceParent(self)
            make_gate_heartbeat(configuration, self._gate, reactor).setServiceParent(self)
            pulls = self.registry.pending_pulls
            if pulls is not None:
                from twisted_registry.maintenance.pull_times import (  # noqa: PLC0415 - rare
                    PullRecorder,
                    PullTimes,
                )

                PullRecorder(pulls, PullTimes(checked, jumps), reactor).setServiceParent(self)
            quotas = self.registry.quotas
            if quotas is not None:
                synchronizer = make_quota_synchronizer(configuration, quotas, checked, reactor)
                synchronizer.setServiceParent(self)
            if self.is_first:
                maintenance = MaintenanceService(
                    self.registry, with_reserve(checked), configuration, reactor, jumps
                )
                maintenance.setServiceParent(self)
        if self._debug is not None:
            self._add_debug_address(self._debug, maintenance, watermark)

    def _add_debug_address(
        self,
        debug: DebugAddress,
        maintenance: MaintenanceService | None,
        watermark: Watermark | None,
    ) -> None:
        from twisted_registry.app.variables import (  # noqa: PLC0415 - for it only
            RegistryVariables,
            no_events,
        )

        notifications = self._notifications
        variables = RegistryVariables(
            lambda: self._reloader.loaded.configuration,
            debug.aggregated_counts,
            self._descriptors,
            no_events if notifications is None else notifications.counts,
        )
        if debug.counts is not None:
            from twisted_registry.app.metrics import connect_counts  # noqa: PLC0415 - for it only

            monitor = connect_counts(
                debug.counts, self.registry, self.site, self.health, watermark,
                maintenance, self._reactor,
            )  # fmt: skip
            monitor.setServiceParent(self)
        if isinstance(self.health, HealthRegistry):
            access = None if self._access_control is None else self._access_control.access
            debug.listen(
                self, maintenance, access, self.health, self.site, self._inspect_workers,
                variables, watermark,
            )  # fmt: skip
        else:
            debug.report(self, self.site)

    def privilegedStartService(self) -> None:
        """Check the storage, and begin to listen.

        :raises StartError: if one of them fails; the text names the key.
        """
        if self._given_driver is None:
            prepare_root_directory(self._configuration, is_first=self.is_first)
        if not self._listens:
            super().privilegedStartService()
            return
        http = self._configuration.http
        key = f"http.addr: {http.addr}"
        if self._tls is not None:
            self._tls.prepare()
        try:
            endpoint = self._make_shared_endpoint()
            if self._tls is not None:
                endpoint = self._tls.wrap_endpoint(endpoint)
        except StartError as error:
            raise StartError(f"{key}: {error}") from error
        listener = HTTPService(
            endpoint,
            self.site,
            self._reactor,
            http.draintimeout,
            key,
            secure=self._tls is not None,
        )
        listener.setName("http")
        listener.setServiceParent(self)
        super().privilegedStartService()
        if self.is_first and self._process_table is not None:
            self._add_workers(cast("SharedPort", listener.port), self._process_table)

    def _make_shared_endpoint(self) -> IStreamServerEndpoint:
        http = self._configuration.http
        if self._handover is None:
            endpoint = make_endpoint(http.address, self._reactor, self._environ)
            if http.workers == 1:
                return endpoint
            from twisted_registry.workers.port import (  # noqa: PLC0415 - for several only
                ProcessTable,
                SharingEndpoint,
            )

            table = ProcessTable.create(http.workers)
            endpoint = SharingEndpoint(self._reactor, endpoint, table)
        else:
            from twisted_registry.workers.port import (  # noqa: PLC0415 - for several only
                AdoptedEndpoint,
                ProcessTable,
            )

            table = ProcessTable(self._handover.table_fd, http.workers, self._handover.number)
            endpoint = AdoptedEndpoint(self._reactor, self._handover.listener_fd, table)
        self._process_table = table
        if isinstance(self.health, HealthRegistry):
            self.health.share(table.set_health)
        else:
            self.health.read = table.health
        self.site.on_connection_count = table.publish
        if self._recent_links is not None:
            self._recent_links.share_removals(table.count_removal, table.removals)
        return endpoint

    def _add_workers(self, port: SharedPort, table: ProcessTable) -> None:
        from twisted_registry.workers.supervisor import WorkerSupervisor  # noqa: PLC0415

        counts = None if self._debug is None else self._debug.aggregated_counts
        workers = WorkerSupervisor(
            self._reactor,
            self._loaded,
            port.socket,
            table,
            counts_receiver=counts,
            instance_id=INSTANCE_ID,
        )
        workers.setName("workers")
        if self._tls is not None:
            self._tls.share_with(workers.set_certificate)
        self._reloader.share = workers.set_configuration
        workers.setServiceParent(self)

    def startService(self) -> None:
        """Log the configuration, the storage and the address."""
        if self._tracing is not None:
            self._tracing.start()
        super().startService()
        if self._handover is not None:
            log.info("serving as worker {number}", number=self._handover.number)
            return
        log.info("configuration: {source}", source=self._loaded.source)
        for warning in self._loaded.warnings:
            log.warn("{warning}", warning=warning)
        for notice in self._loaded.notices:
            log.info("{notice}", notice=notice)
        if self._audit_log is not None:
            work = record_change_of_rules(
                self._audit_log, self._configuration, self.registry.driver
            )
            self._recording = Deferred.fromCoroutine(work)
            self._recording.addErrback(lambda reason: log.failure("log.audit", reason))
        given = None if self._given_driver is None else "a driver of the program"
        log.info("storage: {store}", store=given or describe_store(self._configuration))
        if not self._listens:
            return
        log_descriptors(self.site.limits.connections)
        log_address(self.getServiceNamed("http"), self._tls, self._configuration.http.prefix)

    def reload(self, loaded: LoadedConfiguration | None = None) -> Deferred[str]:
        """Open the audit log again, apply a configuration, and read its files again.

        :param loaded: a configuration; None for the one in use, whose files have changed.
        :returns: fires with the reason if nothing was changed, else with an empty text.
        """
        self.reopen_logs()
        return Deferred.fromCoroutine(self._reloader.reload(loaded or self._reloader.loaded))

    def reopen_logs(self) -> None:
        """Open the file of the audit log again, because it was rotated."""
        if self._audit_log is not None:
            self._audit_log.reopen()

    def _make_reloader(self) -> ConfigurationReloader:
        prefix = self._configuration.http.prefix
        return ConfigurationReloader(
            loaded=self._loaded,
            control=self._access_control,
            has_given_access=self._given_access is not None,
            is_first=self.is_first,
            reactor=self._reactor,
            api=self.api,
            registry=self.registry,
            audit_log=self._audit_log,
            by_address=self._by_address,
            parent=self,
            process_log=self._process_log,
            request_log=self._request_log,
            started_read_only=self._is_read_only,
            make_control=partial(self._make_access_control, may_create=False),
            tls=self._tls,
            notifications=self._notifications,
            debug=self._debug,
            put_page=lambda path, page: put_path(self._root, f"{prefix}/{path}", page),
        )

    def set_certificate(self, bundle: CertificateBundle) -> None:
        """Use another certificate, in a worker; the first process sends it."""
        if self._tls is not None:
            self._tls.use_certificate(bundle)

    def answer(self, number: int) -> None:
        """Answer a question of the first process, in a worker."""
        if self._process_table is not None:
            self._process_table.answer(number)

    async def inspect(self, profile_s: float | None) -> str:
        """Return what this process is doing, for the first process; in a worker.

        :param profile_s: seconds of a profile; None for the stacks.
        """
        return "" if self._debug is None else await self._debug.inspector.answer(profile_s)

    def _inspect_workers(self, profile_s: float | None) -> Deferred[dict[int, str | None]]:
        if "workers" not in self.namedServices:
            return succeed({})
        answers: Deferred[dict[int, str | None]] = self.getServiceNamed("workers").inspect(
            profile_s
        )
        return answers

    def are_workers_alive(self) -> bool:
        """Return whether the event loops of all workers run, as far as is known."""
        return "workers" not in self.namedServices or self.getServiceNamed("workers").are_alive()

    def describe(self) -> str:
        """Return where the registry listens, and with how many processes."""
        if "http" not in self.namedServices:
            return "Not listening"
        text, _ = self.getServiceNamed("http").describe_address()
        count = self._configuration.http.workers
        return f"Listening on {text}" + (f" with {count} processes" if count > 1 else "")

    def abort_requests(self) -> None:
        """Abort the requests in progress, and do not wait for requests at the stop."""
        if "http" in self.namedServices:
            self.getServiceNamed("http").drain_seconds = 0
        self.site.abort()
        if "workers" in self.namedServices:
            self.getServiceNamed("workers").abort_requests()

    def stopService(self) -> Deferred[None]:
        """Stop listening, drain, and close the storage."""
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        children = list(self)[::-1]
        # The requests in progress need the other services: a push is refused if the heartbeat of
        # its process has ended.
        for is_first in (True, False):
            await DeferredList(
                [
                    maybeDeferred(child.stopService)
                    for child in children
                    if (child.name in _STOPPED_FIRST) is is_first
                ]
            )
        if self._notifications is not None:
            await self._notifications.close()
        await self._reloader.close()
        await self._recording
        await self._descriptors.close()
        await self._manifest_thread.close()
        await self.driver.close()
        if self._tracing is not None:
            await self._tracing.close()
        if self._audit_log is not None:
            self._audit_log.close()
        if self._process_table is not None:
            self._process_table.close()

    def _store_misconfigured(self, error: StartError) -> None:
        if self.on_start_error is None:
            log.critical("{origin}: {error}", origin=self._loaded.origin, error=str(error))
        else:
            self.on_start_error(error)
