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
from twisted_registry.app.errors import StartError
from twisted_registry.app.settings import change_api_settings, limit_rates
from twisted_registry.app.stores import make_manifest_policy
from twisted_registry.auth.access import OpenAccess
from twisted_registry.config.changes import find_changes
from twisted_registry.tls.interfaces import CertificateError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.interfaces import IDelayedCall
    from twisted.web.resource import Resource

    from twisted_registry.api.resource import RegistryResource
    from twisted_registry.app.access import AccessControl
    from twisted_registry.app.debug import DebugAddress
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
        changes = find_changes(self.loaded.configuration, new.configuration)
        try:
            if self.tls is not None:
                await self.tls.check_files()
            control = self._make_control(changes)
        except CertificateError as error:
            return self._fail(new, f"http.tls.{error}")
        except StartError as error:
            return self._fail(new, str(error))
        warnings = [each for each in new.warnings if each not in self.loaded.warnings]
        self.loaded = evolve(new, configuration=changes.configuration)
        self._use_control(control)
        self._use_settings(changes.configuration)
        if self.tls is not None:
            self.tls.reload()
        if self.audit_log is not None and self.is_first:
            await record_change_of_rules(
                self.audit_log, changes.configuration, self.registry.driver
            )
        if self.notifications is not None and "notifications.endpoints" in changes.applied:
            await self.notifications.use_endpoints(changes.configuration.notifications)
        self.share(self.loaded)
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
