"""The pages of the debug address: JSON that a coroutine makes, and text for Prometheus.

``http.debug`` joined to constructors: a part of service.py, imported only where it is set.

The first of several processes listens; it is the one that does the maintenance, and the others
tell it what they have counted.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from twisted_registry import __version__
from twisted_registry.api.context import get_caller, get_header_fields
from twisted_registry.api.response import JSON
from twisted_registry.api.root import JSONResource, make_error_body, put_path, render_error
from twisted_registry.app.errors import StartError
from twisted_registry.app.listener import HTTPService, describe_address, make_endpoint
from twisted_registry.auth.interfaces import MAINTENANCE
from twisted_registry.config.http import parse_address
from twisted_registry.http.interfaces import IStreamingResource
from twisted_registry.http.site import HTTPSite
from twisted_registry.metrics.counts import AggregatedCounts, CountsReporter
from twisted_registry.oci.errors import ErrorCode, RegistryError, method_not_allowed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from twisted.application.service import MultiService
    from twisted.python.failure import Failure
    from twisted.web.resource import Resource
    from twisted.web.server import Request

    from twisted_registry.app.maintenance import MaintenanceService
    from twisted_registry.auth.interfaces import IAccessController
    from twisted_registry.config.http import Address, Debug
    from twisted_registry.metrics.counts import Counts

log = Logger()


@implementer(IStreamingResource)
class DebugPage(JSONResource):
    """Something to read, made anew each time."""

    def __init__(
        self, make_content: Callable[[], Awaitable[bytes]], content_type: str = JSON
    ) -> None:
        """Take what makes the text."""
        super().__init__()
        self._make_content = make_content
        self._content_type = content_type

    def getChild(self, path: bytes, request: Request) -> Resource:
        """The page itself, for a path that ends with a slash."""
        return self if not path and not request.postpath else super().getChild(path, request)

    def render(self, request: Request) -> Any:
        """Answer a GET."""
        if request.method not in {b"GET", b"HEAD"}:
            return render_error(request, method_not_allowed("GET", "HEAD"))
        return respond_with(request, self._render_content(request))

    async def _render_content(self, request: Request) -> bytes:
        content = await self._make_content()
        request.setHeader("Content-Type", self._content_type)
        request.setHeader("Cache-Control", "no-store")
        return content


class MaintenancePage(DebugPage):
    """The tasks: a GET tells how they are, a POST below it starts one for whoever may."""

    isLeaf = True

    def __init__(
        self,
        make_content: Callable[[], Awaitable[bytes]],
        start: Callable[[str], bool],
        access: IAccessController | None,
        *,
        alone: bool,
    ) -> None:
        """Take who tells, who starts and who decides.

        :param start: begins a run of a task by its name, and tells whether there is such a task.
        :param access: the controller that guards the API; None if none is configured.
        :param alone: whether only this machine reaches the page.
        """
        super().__init__(make_content)
        self._start = start
        self._access = access
        self._alone = alone

    def render(self, request: Request) -> Any:
        """Answer a GET of the page itself, or a POST of a task below it."""
        name = b"/".join(request.postpath or ()).decode("utf-8", "replace")
        if not name:
            return super().render(request)
        if request.method != b"POST":
            return render_error(request, method_not_allowed("POST"))
        return respond_with(request, self._start_task(request, name))

    async def _start_task(self, request: Request, name: str) -> bytes:
        await self._authorize(request)
        if not self._start(name):
            raise RegistryError(ErrorCode.UNSUPPORTED, message="no such task", status=404)
        request.setResponseCode(202)
        request.setHeader("Content-Type", JSON)
        return encode_json({"started": name})

    async def _authorize(self, request: Request) -> None:
        header_fields = get_header_fields(request)
        if b"origin" in header_fields:
            # A browser says so of what a page of somebody else asks for, from this machine too.
            raise RegistryError(ErrorCode.DENIED, message="not for pages in a browser")
        if self._access is not None:
            await self._access.authorize(get_caller(request, header_fields), [MAINTENANCE])
        elif not self._alone:
            raise RegistryError(
                ErrorCode.DENIED,
                message="without auth tasks are started on a loopback address alone",
            )


def encode_json(content: object) -> bytes:
    """A document, for people too."""
    return json.dumps(content, indent=1).encode() + b"\n"


def respond_with(request: Request, work: Any) -> Any:
    """Answer a request with what a coroutine returns, or raises."""
    working: Deferred[bytes] = Deferred.fromCoroutine(work)
    gone: list[object] = []
    request.notifyFinish().addErrback(gone.append)

    def failed(failure: Failure) -> bytes:
        error = failure.value
        if not isinstance(error, RegistryError):
            if not isinstance(error, CancelledError):
                log.failure("{uri} failed", failure, uri=request.uri)
            error = RegistryError(ErrorCode.UNKNOWN)
        return render_error(request, error)

    def send(content: bytes) -> None:
        if not gone:
            request.setHeader("Content-Length", str(len(content)))
            request.write(content)
            request.finish()

    working.addErrback(failed).addCallback(send)
    return NOT_DONE_YET


class DebugListener(HTTPService):
    """Listens on the debug address, and says so."""

    def startService(self) -> None:
        """Say where the pages are."""
        super().startService()
        log.info(
            "health, metrics and maintenance: {address}", address=describe_address(self.address)[0]
        )


class DebugAddress:
    """What one process has to do with the debug address.

    :ivar gathered: what was counted; None if nobody reads metrics.
    """

    def __init__(self, debug: Debug, reactor: Any) -> None:
        """Have something to count with, if metrics are wanted.

        :raises StartError: if they are, and can not be had.
        """
        self._debug = debug
        self._reactor = reactor
        self._started_at = reactor.seconds()
        self._expose: Callable[..., bytes] | None = None
        self._content_type = ""
        self.gathered: AggregatedCounts | None = None
        if debug.prometheus.enabled:
            try:
                # An extra, which few installations have a use for.
                from twisted_registry.metrics import prometheus as prometheus_module  # noqa: PLC0415
            except ImportError as error:
                raise StartError(
                    "http.debug.prometheus.enabled: metrics need prometheus-client; install"
                    " twisted-registry[metrics]"
                ) from error
            self._expose, self._content_type = (
                prometheus_module.render_metrics,
                prometheus_module.CONTENT_TYPE,
            )
            self.gathered = AggregatedCounts()

    @property
    def counts(self) -> Counts | None:
        """What this process counts with."""
        return None if self.gathered is None else self.gathered.own

    def listen(
        self,
        parent: MultiService,
        maintenance_service: MaintenanceService | None,
        access: IAccessController | None,
        watermark_status: Callable[[], dict[str, Any]] | None = None,
    ) -> None:
        """Give a service a child that serves the pages.

        :param upkeep: the tasks of this process; None if it only reads.
        :param access: guards the API; None if nothing does.
        :param room: tells how full the disk is, as a watermark does; None if nobody watches it.
        :raises StartError: if it can not listen there.
        """
        address = parse_address(self._debug.addr)
        # What systemd hands over is for clients.
        key = f"http.debug.addr: {self._debug.addr}"
        try:
            endpoint = make_endpoint(self._reactor, address.endpoint, address.path, {})
        except StartError as error:
            raise StartError(f"{key}: {error}") from error
        site = HTTPSite(
            self._tree(maintenance_service, access, address, watermark_status),
            self._reactor,
            make_error_body=make_error_body,
        )
        listener = DebugListener(endpoint, site, self._reactor, 0, key)
        listener.setName("debug")
        listener.setServiceParent(parent)

    def report(self, parent: MultiService) -> None:
        """Give a service of a further process a child that tells the first what it counts."""
        if self.gathered is not None:
            CountsReporter(self.gathered.own, sys.stderr, self._reactor).setServiceParent(parent)

    def _tree(
        self,
        maintenance_service: MaintenanceService | None,
        access: IAccessController | None,
        address: Address,
        watermark_status: Callable[[], dict[str, Any]] | None,
    ) -> JSONResource:
        async def tasks() -> Sequence[dict[str, Any]]:
            return [] if maintenance_service is None else await maintenance_service.status()

        async def health() -> bytes:
            return b"{}"

        async def maintenance() -> bytes:
            watched = {} if watermark_status is None else {"watermark": watermark_status()}
            return encode_json({"tasks": await tasks(), **watched})

        async def variables() -> bytes:
            return encode_json(self._variables())

        async def metrics() -> bytes:
            assert self.gathered is not None
            assert self._expose is not None
            used = None if watermark_status is None else watermark_status()["used"]
            return self._expose(self.gathered.total(), await tasks(), used)

        def start(name: str) -> bool:
            if maintenance_service is None or name not in maintenance_service.chores:
                return False
            maintenance_service.task(name).run()
            return True

        root, debug = JSONResource(), JSONResource()
        root.putChild(b"debug", debug)
        debug.putChild(b"health", DebugPage(health))
        debug.putChild(b"vars", DebugPage(variables))
        debug.putChild(
            b"maintenance", MaintenancePage(maintenance, start, access, alone=is_loopback(address))
        )
        if self._expose is not None:
            page = DebugPage(metrics, self._content_type)
            put_path(root, self._debug.prometheus.path, page)
        return root

    def _variables(self) -> dict[str, Any]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "cmdline": sys.argv,
            "registry": {
                "version": __version__,
                "pid": os.getpid(),
                "uptime_seconds": round(self._reactor.seconds() - self._started_at, 3),
                "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 3),
                "peak_resident_bytes": usage.ru_maxrss * 1024,
            },
        }


def is_loopback(address: Address) -> bool:
    """Whether only this machine reaches an address."""
    if address.path or address.host == "localhost":
        return True
    try:
        return ip_address(address.host).is_loopback
    except ValueError:
        return False
