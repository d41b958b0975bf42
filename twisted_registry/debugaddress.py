"""``http.debug`` joined to constructors: a part of service.py, imported only where it is set.

The first of several processes listens; it is the one that does the maintenance, and the others
tell it what they have counted.
"""

from __future__ import annotations

import os
import resource
import sys
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from twisted_registry import __version__
from twisted_registry.api.site import HTTPSite
from twisted_registry.api.tree import JSONResource
from twisted_registry.config.address import parse_address
from twisted_registry.debug.gathering import AggregatedCounts, CountsReporter
from twisted_registry.debug.pages import MaintenancePage, DebugPage, encode_json
from twisted_registry.listener import HTTPService, StartError, describe_address, make_endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.application.service import MultiService
    from twisted.web.resource import Resource

    from twisted_registry.auth.interfaces import IAccessController
    from twisted_registry.config.address import Address
    from twisted_registry.config.serving import Debug
    from twisted_registry.debug.counts import Counts
    from twisted_registry.upkeep import MaintenanceService

log = Logger()


class DebugListener(HTTPService):
    """Listens on the debug address, and says so."""

    def startService(self) -> None:
        """Say where the pages are."""
        super().startService()
        log.info("health, metrics and maintenance: {address}", address=describe_address(self.address)[0])


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
                from twisted_registry.debug import exposition  # noqa: PLC0415
            except ImportError as error:
                raise StartError(
                    "http.debug.prometheus.enabled: metrics need prometheus-client; install"
                    " twisted-registry[metrics]"
                ) from error
            self._expose, self._content_type = exposition.render_metrics, exposition.CONTENT_TYPE
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
        site = HTTPSite(self._tree(maintenance_service, access, address, watermark_status), self._reactor)
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
            *above, last = self._debug.prometheus.path.strip("/").split("/")
            folder: Resource = root
            for segment in above:
                name = segment.encode()
                folder.children.setdefault(name, JSONResource())
                folder = folder.children[name]
            folder.putChild(last.encode(), DebugPage(metrics, self._content_type))
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
