"""The debug address, ``http.debug``: health, variables, stacks, profiles, metrics and maintenance.

The first process listens there, since it runs the maintenance. Further processes report what they
have counted to it.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from attrs import define
from twisted.internet.defer import maybeDeferred
from twisted.logger import Logger

from twisted_registry import __version__
from twisted_registry.api.context import Query, get_caller, get_header_fields
from twisted_registry.api.response import JSON, Response
from twisted_registry.api.root import JSONResource, PageResource, make_error_body, put_path
from twisted_registry.app.inspection import Inspector
from twisted_registry.app.listener import HTTPService, describe_address, make_endpoint
from twisted_registry.auth.interfaces import MAINTENANCE
from twisted_registry.config.http import parse_address
from twisted_registry.frame.errors import StartError, require_extra
from twisted_registry.health.profile import MAX_SECONDS, format_stacks, render_flame_graph
from twisted_registry.http.interfaces import Limits
from twisted_registry.http.proxies import TrustedProxies
from twisted_registry.http.site import HTTPSite
from twisted_registry.metrics.counts import AggregatedCounts, CountsReporter
from twisted_registry.metrics.repositories import RepositoryCounter, RepositoryNames
from twisted_registry.oci.errors import ErrorCode, RegistryError, method_not_allowed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from twisted.application.service import MultiService
    from twisted.web.server import Request

    from twisted_registry.app.inspection import AskWorkers
    from twisted_registry.app.maintenance import MaintenanceService
    from twisted_registry.app.variables import RegistryVariables
    from twisted_registry.auth.interfaces import IAccessController
    from twisted_registry.config.http import Address
    from twisted_registry.config.schema import Configuration
    from twisted_registry.health.registry import HealthRegistry
    from twisted_registry.maintenance.watermark import Watermark
    from twisted_registry.metrics.counts import Counts
    from twisted_registry.repository.interfaces import IRegistryListener

log = Logger()

#: At a time; idle ones are closed for new ones. Few programs read the pages.
_MAX_CONNECTIONS = 100
_TEXT = "text/plain; charset=utf-8"
_SVG = "image/svg+xml"
#: Seconds of a profile, unless the request says otherwise.
_PROFILE_S = 10.0


@define(eq=False)
class PostGuard:
    """Decides who may change something by a POST to the debug address.

    :ivar access: the controller that guards the API; None if none is configured. Without one,
        requests are accepted on a loopback address only.
    :ivar is_loopback_only: whether only this machine can connect to the address.
    """

    access: IAccessController | None
    is_loopback_only: bool

    async def authorize(self, request: Request) -> None:
        """Return if a request may make a change.

        :raises RegistryError: 405 if it is not a POST, 401 or 403 if it is not allowed.
        """
        if request.method != b"POST":
            raise method_not_allowed("POST")
        header_fields = get_header_fields(request)
        if b"origin" in header_fields:
            # Sent by browsers for requests from pages of other sites: protects from CSRF.
            raise RegistryError(ErrorCode.DENIED, message="not available to pages in a browser")
        if self.access is not None:
            caller = get_caller(request, header_fields)
            await maybeDeferred(self.access.authorize, caller, [MAINTENANCE])
        elif not self.is_loopback_only:
            raise RegistryError(
                ErrorCode.DENIED,
                message="without auth this is possible on a loopback address only",
            )


class MaintenancePage(PageResource):
    """The periodic tasks: GET returns their state, POST of ``/NAME`` below it starts a task."""

    isLeaf = True

    def __init__(
        self,
        make_page: Callable[[], Awaitable[Response]],
        start: Callable[[str], bool],
        guard: PostGuard,
    ) -> None:
        """Serve the tasks.

        :param start: starts a run of the task of a name; returns whether there is such a task.
        :param guard: decides who may start a task.
        """
        super().__init__(make_page)
        self._start = start
        self._guard = guard

    async def make_response(self, request: Request) -> Response:
        """Respond to GET of the page itself, and to POST of a task."""
        name = b"/".join(request.postpath or ()).decode("utf-8", "replace")
        if not name:
            return await super().make_response(request)
        await self._guard.authorize(request)
        if not self._start(name):
            raise RegistryError(ErrorCode.UNSUPPORTED, message="no such task", status=404)
        return make_json_page({"started": name}, 202)


class HealthPage(PageResource):
    """The checks that fail; POST of ``/down`` and ``/up`` below it makes one fail or pass again.

    :param health: the state of the registry.
    :param guard: decides who may change it.
    """

    isLeaf = True

    def __init__(self, health: HealthRegistry, guard: PostGuard) -> None:
        super().__init__(self._make_page)
        self._health = health
        self._guard = guard

    async def _make_page(self) -> Response:
        failing = self._health.failing()
        if not failing:
            return make_page(b"{}", JSON)  # exactly this, as from Distribution
        return make_json_page(failing, 503)

    async def make_response(self, request: Request) -> Response:
        """Respond to GET of the page itself, and to POST of ``/up`` and ``/down``."""
        name = b"/".join(request.postpath or ())
        if not name:
            return await super().make_response(request)
        if name not in {b"up", b"down"}:
            raise RegistryError(ErrorCode.UNSUPPORTED, message="no such endpoint", status=404)
        await self._guard.authorize(request)
        self._health.set_down(down=name == b"down")
        return Response(200, [("Cache-Control", "no-store")])


class ProfilePage(PageResource):
    """A profile of all processes: ``?seconds=10``, and ``&format=text`` for collapsed stacks.

    :param make_profile: makes it, given the seconds.
    """

    def __init__(self, make_profile: Callable[[float], Awaitable[Mapping[str, int]]]) -> None:
        super().__init__(self._refuse)
        self._make_profile = make_profile

    async def _refuse(self) -> Response:
        raise method_not_allowed("GET")

    async def make_response(self, request: Request) -> Response:
        """Make a profile, and return it as text or as a flame graph.

        :raises RegistryError: 400 if a parameter is not valid, 405 for another method.
        """
        if request.method != b"GET":
            raise method_not_allowed("GET")
        query = Query.parse(request.uri.partition(b"?")[2])
        kind = query.first("format") or "svg"
        if kind not in {"svg", "text"}:
            raise _invalid("format: expected svg or text")
        stacks = await self._make_profile(_read_seconds(query.first("seconds")))
        if kind == "text":
            return make_page(format_stacks(stacks).encode(), _TEXT)
        return make_page(render_flame_graph(stacks).encode(), _SVG)


def _read_seconds(text: str | None) -> float:
    try:
        seconds = _PROFILE_S if text is None else float(text)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= MAX_SECONDS:
        raise _invalid(f"seconds: expected a number from 1 to {MAX_SECONDS:.0f}")
    return seconds


def _invalid(message: str) -> RegistryError:
    return RegistryError(ErrorCode.UNSUPPORTED, message=message, status=400)


def make_page(content: bytes, content_type: str, status: int = 200) -> Response:
    """Return a response that is not cached, and that a browser takes for what it is."""
    headers = [
        ("Content-Type", content_type),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
    ]
    return Response(status, headers, content)


def make_json_page(content: object, status: int = 200) -> Response:
    """Return a response with a JSON document that people can read."""
    return make_page(json.dumps(content, indent=1).encode() + b"\n", JSON, status)


class DebugListener(HTTPService):
    """Listens on the debug address, and logs it.

    :ivar is_loopback_only: whether only this machine can connect to the address.
    """

    is_loopback_only = True

    def startService(self) -> None:
        """Log the address."""
        super().startService()
        address = describe_address(self.address)[0]
        log.info("health, metrics and maintenance: {address}", address=address)
        if not self.is_loopback_only:
            log.warn(
                "http.debug.addr: clients that can connect to {address} can read health, metrics,"
                " stacks, profiles and maintenance; use a loopback address or a private network",
                address=address,
            )


class DebugAddress:
    """The part of one process in the debug address.

    :ivar aggregated_counts: the counts of all processes. Without metrics they have what
        ``/debug/vars`` shows.
    :ivar inspector: looks at this process; set by :meth:`listen` and :meth:`report`.
    """

    inspector: Inspector

    def __init__(self, configuration: Configuration, reactor: Any) -> None:
        """Begin to count if metrics are enabled; :meth:`listen` or :meth:`report` follows.

        :raises StartError: if metrics are enabled, and prometheus-client is missing.
        """
        self._debug = configuration.http.debug
        self._trusted_proxies = TrustedProxies.parse(configuration.http.trustedproxies)
        self._reactor = reactor
        self._started_at = reactor.seconds()
        self._render_metrics: Callable[..., bytes] | None = None
        self._metrics_content_type = ""
        prometheus_section = self._debug.prometheus
        limit = prometheus_section.repositories if prometheus_section.enabled else 0
        names = RepositoryNames(limit) if limit else None
        self.aggregated_counts = AggregatedCounts(repositories=names)
        if prometheus_section.enabled:
            with require_extra("metrics", "http.debug.prometheus.enabled"):
                from twisted_registry.metrics import prometheus  # noqa: PLC0415
            self._render_metrics = prometheus.render_metrics
            self._metrics_content_type = prometheus.CONTENT_TYPE
            self.aggregated_counts.own.sources.append(prometheus.read_process)

    @property
    def counts(self) -> Counts | None:
        """Counts requests and calls of the store; None unless metrics are enabled."""
        return None if self._render_metrics is None else self.aggregated_counts.own

    @property
    def repository_counter(self) -> IRegistryListener | None:
        """Counts the events of each repository; None unless that is enabled."""
        counts = self.aggregated_counts
        if counts.repositories is None:
            return None
        return RepositoryCounter(counts.own, counts.repositories)

    def listen(
        self,
        parent: MultiService,
        maintenance: MaintenanceService | None,
        access: IAccessController | None,
        health: HealthRegistry,
        api_site: HTTPSite,
        ask_workers: AskWorkers,
        variables: RegistryVariables,
        watermark: Watermark | None = None,
    ) -> None:
        """Add a child service that serves the pages; for the first process.

        :param maintenance: the tasks of this process; None if the registry is read-only.
        :param access: the controller that guards the API; None if none is configured.
        :param health: the state of the registry.
        :param api_site: the HTTP server of the API, whose requests the stacks list.
        :param ask_workers: asks the other processes what they are doing.
        :param variables: what ``/debug/vars`` shows of the registry.
        :param watermark: measures the disk; None if it is not configured.
        :raises StartError: if the address cannot be used; the text names the key.
        """
        address = parse_address(self._debug.addr)
        key = f"http.debug.addr: {self._debug.addr}"
        try:
            # Without the environment: the socket that systemd passes is for the API.
            endpoint = make_endpoint(address, self._reactor, {})
        except StartError as error:
            raise StartError(f"{key}: {error}") from error
        self.inspector = inspector = Inspector(api_site, self._reactor)
        pages = _DebugPages(maintenance, watermark, self._started_at, self._reactor, variables)

        async def describe_stacks() -> Response:
            return make_page((await inspector.describe_all(ask_workers)).encode(), _TEXT)

        guard = self._guard = PostGuard(access, is_loopback(address))
        root, debug = JSONResource(), JSONResource()
        root.putChild(b"debug", debug)
        debug.putChild(b"health", HealthPage(health, guard))
        debug.putChild(b"vars", PageResource(pages.variables))
        debug.putChild(b"stacks", PageResource(describe_stacks))
        debug.putChild(
            b"profile", ProfilePage(lambda seconds: inspector.profile_all(seconds, ask_workers))
        )
        debug.putChild(
            b"maintenance", MaintenancePage(pages.maintenance_status, pages.start_task, guard)
        )
        if self._render_metrics is not None:
            page = PageResource(lambda: self._metrics(pages))
            put_path(root, self._debug.prometheus.path, page)
        site = HTTPSite(
            root,
            self._reactor,
            Limits(connections=_MAX_CONNECTIONS),
            make_error_body=make_error_body,
            trusted_proxies=self._trusted_proxies,
        )
        listener = DebugListener(endpoint, site, self._reactor, 0, key)
        listener.is_loopback_only = guard.is_loopback_only
        listener.setName("debug")
        listener.setServiceParent(parent)

    def use_access(self, access: IAccessController | None) -> None:
        """Let another controller decide who may make changes; None for nobody but this machine."""
        if self._guard is not None:
            self._guard.access = access

    def report(self, parent: MultiService, api_site: HTTPSite) -> None:
        """Add a child service that reports the counts to the first process; for other processes.

        :param api_site: the HTTP server of the API.
        """
        self.inspector = Inspector(api_site, self._reactor)
        reporter = CountsReporter(self.aggregated_counts.own, sys.stderr, self._reactor)
        reporter.setServiceParent(parent)

    async def _metrics(self, pages: _DebugPages) -> Response:
        assert self._render_metrics is not None
        content = self._render_metrics(
            self.aggregated_counts.total(),
            await pages.tasks(),
            await pages.registry_variables.count_events(),
        )
        return make_page(content, self._metrics_content_type)


@define(eq=False)
class _DebugPages:
    """The content of the pages."""

    maintenance: MaintenanceService | None
    watermark: Watermark | None
    started_at: float
    reactor: Any
    registry_variables: RegistryVariables

    async def tasks(self) -> list[dict[str, Any]]:
        return [] if self.maintenance is None else await self.maintenance.status()

    def start_task(self, name: str) -> bool:
        if self.maintenance is None or name not in self.maintenance.task_definitions:
            return False
        self.maintenance.task(name).run()
        return True

    async def maintenance_status(self) -> Response:
        watermark = {} if self.watermark is None else {"watermark": self.watermark.status()}
        return make_json_page({"tasks": await self.tasks(), **watermark})

    async def variables(self) -> Response:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return make_json_page(
            {
                "cmdline": sys.argv,
                "registry": {
                    "version": __version__,
                    "pid": os.getpid(),
                    "uptime_seconds": round(self.reactor.seconds() - self.started_at, 3),
                    "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 3),
                    "peak_resident_bytes": usage.ru_maxrss * 1024,
                    **await self.registry_variables.read(),
                },
            }
        )


def is_loopback(address: Address) -> bool:
    """Whether only this machine can connect to an address."""
    if address.path or address.host == "localhost":
        return True
    try:
        return ip_address(address.host).is_loopback
    except ValueError:
        return False
