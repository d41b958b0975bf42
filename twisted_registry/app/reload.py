"""Apply another configuration while the registry serves.

It is applied as a whole or not at all: everything that can fail is made first. Which keys can
change is a table of :mod:`twisted_registry.config.changes`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from twisted_registry.api.root import NotFoundResource
from twisted_registry.app.audit import record_change_of_rules
from twisted_registry.app.maintenance import make_quota_synchronizer
from twisted_registry.app.settings import change_api_settings, limit_rates
from twisted_registry.app.stores import make_manifest_policy, parse_quotas
from twisted_registry.auth.access import OpenAccess
from twisted_registry.config.changes import find_changes
from twisted_registry.frame.errors import StartError
from twisted_registry.repository.quotas import Quotas

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.application.service import MultiService
    from twisted.internet.interfaces import IDelayedCall
    from twisted.web.resource import Resource

    from twisted_registry.api.request_log import RequestLog
    from twisted_registry.api.resource import RegistryResource
    from twisted_registry.app.access import AccessControl
    from twisted_registry.app.debug import DebugAddress
    from twisted_registry.app.logs import ProcessLog
    from twisted_registry.app.notifications import NotificationService
    from twisted_registry.app.tls import TLSService
    from twisted_registry.auth.audit import IAuditLog
    from twisted_registry.auth.interfaces import IAccessController
    from twisted_registry.auth.rate_limits import RateLimit
    from twisted_registry.config.changes import Changes
    from twisted_registry.config.loading import LoadedConfiguration
    from twisted_registry.config.schema import Configuration
    from twisted_registry.repository.registry import Registry

log = Logger()

#: Seconds until a replaced access controller is closed: requests that it decides about end before.
_RETIRE_S = 60.0


@define(eq=False, kw_only=True)
class ConfigurationReloader:
    """The parts of a running registry that a reload changes.

    :ivar loaded: the configuration in use.
    :ivar control: the access control in use; None without any.
    :ivar has_given_access: whether a program has passed the access controller, which stays.
    :ivar by_address: limits the requests of each address; None for no limit.
    :ivar parent: the service of the registry, whose children are the periodic tasks and what
        exchanges the use of quotas.
    :ivar process_log: the log of this process; None for that of a program.
    :ivar request_log: writes the lines of requests to it.
    :ivar started_read_only: whether the registry was started read-only.
    :ivar make_control: makes the access control of a configuration; None without any.
    :ivar put_page: mounts a resource at a path beside the API.
    :ivar share: called with the configuration that is used from now on; for workers.
    :ivar is_first: whether this is the first process, which reads files and logs the changes.
    """

    loaded: LoadedConfiguration
    control: AccessControl | None
    has_given_access: bool
    is_first: bool
    reactor: Any
    api: RegistryResource
    registry: Registry
    audit_log: IAuditLog | None
    by_address: RateLimit | None
    parent: MultiService
    process_log: ProcessLog | None
    request_log: RequestLog
    started_read_only: bool
    make_control: Callable[[Configuration], AccessControl | None]
    tls: TLSService | None
    notifications: NotificationService | None
    debug: DebugAddress | None
    put_page: Callable[[str, Resource], object]
    share: Callable[[LoadedConfiguration], object] = lambda _: None
    _lock: DeferredLock = field(init=False, factory=DeferredLock)
    _retired: list[tuple[AccessControl, IDelayedCall]] = field(init=False, factory=list)

    async def reload(self, new: LoadedConfiguration) -> str:
        """Apply a configuration, and read files of keys and certificates again.

        :returns: why nothing was changed, in one line; empty if it was applied.
        """
        async with self._lock:
            return await self._reload(new)

    async def close(self) -> None:
        """Close the access control, and those that were replaced."""
        for control, call in self._retired:
            call.cancel()
            await control.access.close()
        if self.control is not None:
            await self.control.access.close()

    async def _reload(self, new: LoadedConfiguration) -> str:
        changes = find_changes(
            self.loaded.configuration,
            new.configuration,
            started_read_only=self.started_read_only,
        )
        try:
            if self.tls is not None:
                await self.tls.check_files()
            control = self._make_control(changes)
        except StartError as error:
            return self._fail(new, str(error))
        warnings = [each for each in new.warnings if each not in self.loaded.warnings]
        self.loaded = evolve(new, configuration=changes.configuration)
        self._use_control(control)
        self._use_settings(changes.configuration)
        self._use_log(changes)
        if self.tls is not None:
            self.tls.reload()
        if self.audit_log is not None and self.is_first:
            await record_change_of_rules(
                self.audit_log, changes.configuration, self.registry.driver
            )
        if self.notifications is not None and "notifications.endpoints" in changes.applied:
            await self.notifications.use_endpoints(changes.configuration.notifications)
        self.share(self.loaded)
        await self._use_maintenance(changes)
        self._log(changes, warnings)
        return ""

    def _make_control(self, changes: Changes) -> AccessControl | None:
        configuration = changes.configuration
        is_same = not {"access", "auth", "http.tls.clientusers"}.intersection(changes.applied)
        if self.has_given_access or (is_same and configuration.auth.plugin is not None):
            return self.control
        # Made again without changes too: files that it has read may have changed.
        return self.make_control(configuration)

    def _use_control(self, control: AccessControl | None) -> None:
        old, self.control = self.control, control
        if self.has_given_access:
            return
        access: IAccessController = OpenAccess() if control is None else control.access
        self.api.use_access(
            limit_rates(access, self.loaded.configuration, self.by_address, self.reactor)
        )
        if self.debug is not None:
            self.debug.use_access(None if control is None else control.access)
        pages = {} if control is None else control.pages
        for path in () if old is None else old.pages:
            if path not in pages:
                self.put_page(path, NotFoundResource())
        for path, page in pages.items():
            self.put_page(path, page)
        if old is not None and old is not control:
            call = self.reactor.callLater(_RETIRE_S, self._close_oldest)
            self._retired.append((old, call))

    def _close_oldest(self) -> None:
        control, _ = self._retired.pop(0)
        closing = Deferred.fromCoroutine(_close(control))
        closing.addErrback(lambda reason: log.failure("access control was not closed", reason))

    def _use_settings(self, configuration: Configuration) -> None:
        self.api.use_settings(change_api_settings(self.api.settings, configuration))
        self.registry.use_policy(make_manifest_policy(configuration))

    def _use_log(self, changes: Changes) -> None:
        if self.process_log is None or not any(key.startswith("log.") for key in changes.applied):
            return
        self.process_log.use(changes.configuration)
        self.request_log.all_requests = self.process_log.has_all_requests(changes.configuration)

    async def _use_maintenance(self, changes: Changes) -> None:
        """Change what the registry does by itself: count the use of quotas, and run tasks."""
        configuration = changes.configuration
        maintenance = self.parent.namedServices.get("maintenance")
        if changes.has_other_quotas and not self.started_read_only:
            await self._use_quotas(configuration)
            if maintenance is not None:
                await maintenance.use_quotas(configuration)
        if maintenance is not None:
            # Also for the task of quotas, which may be new.
            await maintenance.use_read_only(
                read_only=configuration.storage.maintenance.readonly.enabled
            )

    async def _use_quotas(self, configuration: Configuration) -> None:
        registry, quotas = self.registry, parse_quotas(configuration)
        if registry.quotas is None:
            registry.quotas = Quotas(registry.driver, quotas)
        else:
            registry.quotas.use(quotas)
        # It counts what is in use of quotas that are new.
        old = self.parent.namedServices.get("quotas")
        if old is not None:
            await old.disownServiceParent()
        if quotas:
            make_quota_synchronizer(
                configuration, registry.quotas, registry.driver, self.reactor
            ).setServiceParent(self.parent)

    def _fail(self, new: LoadedConfiguration, problem: str) -> str:
        line = f"{new.origin}: {problem}"
        log.error("reload has failed, what was in use stays: {problem}", problem=line)
        return line

    def _log(self, changes: Changes, warnings: Sequence[str]) -> None:
        if not self.is_first:
            return
        for warning in warnings:
            log.warn("reload: {warning}", warning=warning)
        for key in changes.pending:
            log.warn("reload: {key} has changed, which needs a restart", key=key)
        log.info(
            "reloaded: configuration={origin} changed={keys}",
            origin=self.loaded.origin, keys=",".join(changes.applied) or "none",
        )  # fmt: skip


async def _close(control: AccessControl) -> None:
    await control.access.close()
