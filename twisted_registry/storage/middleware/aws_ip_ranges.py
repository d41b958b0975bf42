"""The published IP address ranges of AWS, kept up to date, and whether a client is in one of them.

The document is "AWS IP address ranges" of the AWS General Reference. It has some ten thousand
overlapping networks. They are merged, so that an address is found by bisection.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.web.http_headers import Headers

from twisted_registry.http.client import read_limited_body

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from twisted.internet.interfaces import IReactorTime
    from twisted.web.iweb import IAgent

    from twisted_registry.storage.threads import Threads

_Network = TypeVar("_Network", IPv4Network, IPv6Network)

log = Logger()

#: Where AWS publishes the ranges.
IP_RANGES_URL: Final = "https://ip-ranges.amazonaws.com/ip-ranges.json"
#: Maximum size of the document, which has about two million bytes.
_MAX_DOCUMENT_BYTES: Final = 32 * 1024 * 1024
#: Maximum time of a download.
_DOWNLOAD_TIMEOUT_S: Final = 60.0
#: How long to wait after a failed update.
RETRY_S: Final = 60.0


class IPRangesError(ValueError):
    """Raised if the ranges cannot be downloaded or parsed."""


@frozen
class _AddressRanges:
    """Sorted, disjoint ranges of addresses, as integers."""

    first: tuple[int, ...] = ()
    last: tuple[int, ...] = ()

    def __contains__(self, address: int) -> bool:
        index = bisect_right(self.first, address) - 1
        return index >= 0 and address <= self.last[index]


@frozen
class IPRanges:
    """IPv4 and IPv6 address ranges."""

    _ipv4: _AddressRanges = field(factory=_AddressRanges, repr=False)
    _ipv6: _AddressRanges = field(factory=_AddressRanges, repr=False)

    def __contains__(self, address: str) -> bool:
        """Return whether an address is in a range; False for invalid addresses."""
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        ipv4 = getattr(parsed, "ipv4_mapped", None) or (parsed if parsed.version == 4 else None)
        return int(ipv4) in self._ipv4 if ipv4 is not None else int(parsed) in self._ipv6


def parse_ranges(content: bytes, regions: Collection[str] = ()) -> IPRanges:
    """Parse the published document, which takes about 0.1 s.

    :param regions: names of the regions whose networks count; empty for all.
    :raises IPRangesError: if the document is malformed or has no networks.
    """
    wanted = {region.lower() for region in regions}
    try:
        document = json.loads(content)
        ipv4, ipv6 = document["prefixes"], document.get("ipv6_prefixes", ())
        ranges = IPRanges(
            _merge(IPv4Network(entry["ip_prefix"]) for entry in _select(ipv4, wanted)),
            _merge(IPv6Network(entry["ipv6_prefix"]) for entry in _select(ipv6, wanted)),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise IPRangesError(f"malformed document: {error!r}") from error
    if not ipv4:
        raise IPRangesError("the document has no networks")
    return ranges


def _select(entries: Iterable[Any], wanted: set[str]) -> Iterator[Any]:
    """Yield the entries of some regions, or all."""
    for entry in entries:
        if not wanted or str(entry.get("region", "")).lower() in wanted:
            yield entry


def _merge(networks: Iterable[_Network]) -> _AddressRanges:
    merged = [
        (int(net.network_address), int(net.broadcast_address))
        for net in collapse_addresses(networks)
    ]
    return _AddressRanges(tuple(first for first, _ in merged), tuple(last for _, last in merged))


@define(eq=False)
class AWSClients:
    """The clients inside AWS. The ranges are updated in the background when they are used.

    No caller waits for an update. Until the first one has finished, no client is inside.

    :ivar agent: downloads the ranges.
    :ivar threads: parses them; closed with this object.
    :ivar regions: names of the regions that count; empty for all.
    :ivar url: URL of the document; ``file://`` for a local copy.
    :ivar refresh_interval_s: how long the ranges are valid.
    :ivar updating: fires when the update that is running has ended; None if none is running.
    """

    _clock: IReactorTime
    _agent: IAgent
    _threads: Threads
    _regions: Collection[str] = ()
    _url: str = IP_RANGES_URL
    _refresh_interval_s: float = 12 * 3600.0
    updating: Deferred[None] | None = field(init=False, default=None)
    _ranges: IPRanges = field(init=False, factory=IPRanges)
    _next_update: float | None = field(init=False, default=None)

    def __contains__(self, address: str) -> bool:
        """Return whether a client is inside, according to the ranges that are known now."""
        now = self._clock.seconds()
        if self.updating is None and (self._next_update is None or now >= self._next_update):
            # Set before the update, which may end before it returns.
            self._next_update = now + self._refresh_interval_s
            self.updating = Deferred.fromCoroutine(self._update())
            self.updating.addBoth(self._update_ended)
        return address in self._ranges

    def close(self) -> Deferred[None]:
        """Cancel an update, and stop the threads."""
        if self.updating is not None:
            self.updating.cancel()
        return self._threads.close()

    async def _update(self) -> None:
        try:
            content = await self._fetch()
            self._ranges = await self._threads.run_blocking(parse_ranges, content, self._regions)
        except (OSError, IPRangesError) as error:
            self._next_update = self._clock.seconds() + min(RETRY_S, self._refresh_interval_s)
            log.warn(
                "cannot update the AWS IP ranges, using the previous ones: url={url} error={error}",
                url=self._url,
                error=error,
            )

    async def _fetch(self) -> bytes:
        parts = urlsplit(self._url)
        if parts.scheme == "file":
            return await self._threads.run_blocking(Path(parts.path).read_bytes)
        downloading = Deferred.fromCoroutine(self._download())
        downloading.addTimeout(_DOWNLOAD_TIMEOUT_S, self._clock)
        try:
            return await downloading
        except (CancelledError, IPRangesError):
            raise
        except Exception as error:
            raise IPRangesError(f"{type(error).__name__}: {error}") from error

    async def _download(self) -> bytes:
        headers = Headers({"Accept": ["application/json"]})
        response = await self._agent.request(b"GET", self._url.encode("ascii"), headers)
        content = await read_limited_body(response, _MAX_DOCUMENT_BYTES)
        if response.code != 200:
            raise IPRangesError(f"HTTP status {response.code}")
        return content

    def _update_ended(self, _: object) -> None:
        self.updating = None
