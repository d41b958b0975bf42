"""Read the metrics of a running registry, from the debug address of its configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred

from twisted_registry.config.http import parse_address
from twisted_registry.http.client import make_agent, read_limited_body

if TYPE_CHECKING:
    from twisted_registry.config.schema import Configuration

_TIMEOUT_S = 5.0
_MAX_BODY_BYTES = 64 * 1024 * 1024
_OK = 200
#: Hosts that stand for all addresses of a machine, and empty for those as well.
_ANY_HOST = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - nothing is bound to them here


class MetricsUnavailable(Exception):
    """The metrics cannot be read; the text says why."""


def metrics_url(configuration: Configuration) -> str:
    """Return where a registry on this machine shows its metrics.

    :raises MetricsUnavailable: if the configuration has no such address.
    """
    debug = configuration.http.debug
    if not debug.addr:
        raise MetricsUnavailable("http.debug.addr is not set")
    if not debug.prometheus.enabled:
        raise MetricsUnavailable("http.debug.prometheus.enabled is not set")
    address = parse_address(debug.addr)
    if not address.port:
        raise MetricsUnavailable(f"http.debug.addr: {debug.addr} has no TCP port to connect to")
    host = "127.0.0.1" if address.host in _ANY_HOST else address.host
    return f"http://{f'[{host}]' if ':' in host else host}:{address.port}{debug.prometheus.path}"


async def fetch_metrics(url: str, reactor: Any) -> str:
    """Return the metrics at a URL, in the Prometheus text format.

    :raises MetricsUnavailable: if they cannot be read within five seconds.
    """
    try:
        return await Deferred.fromCoroutine(_fetch(url, reactor)).addTimeout(_TIMEOUT_S, reactor)
    except (CancelledError, MetricsUnavailable):
        raise
    except Exception as error:
        raise MetricsUnavailable(f"{url}: {error}") from error


async def _fetch(url: str, reactor: Any) -> str:
    response: Any = await make_agent(reactor, _TIMEOUT_S).request(b"GET", url.encode("ascii"))
    content = await read_limited_body(response, _MAX_BODY_BYTES)
    if response.code != _OK:
        raise MetricsUnavailable(f"{url}: answered with status {response.code}")
    return content.decode("utf-8", "replace")
