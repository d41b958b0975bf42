"""The addresses of AWS, as AWS publishes them, and whether a client has one.

The document is "AWS IP address ranges" of the AWS General Reference: some ten thousand networks,
which overlap. They are merged, so that an address is found by bisection.

Which clients are inside AWS, kept up to date behind the scenes.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.logger import Logger

from twisted_registry.storage.s3.errors import S3Error

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterable

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.storage.s3.transport import Transport
    from twisted_registry.storage.threads import Threads

_Network = TypeVar("_Network", IPv4Network, IPv6Network)

#: Where AWS publishes them.
IP_RANGES_URL: Final = "https://ip-ranges.amazonaws.com/ip-ranges.json"


class IPRangesError(ValueError):
    """A document that is none of ranges."""


@frozen
class _AddressRanges:
    """Stretches of addresses that do not touch, in order."""

    first: tuple[int, ...] = ()
    last: tuple[int, ...] = ()

    def __contains__(self, address: int) -> bool:
        at = bisect_right(self.first, address) - 1
        return at >= 0 and address <= self.last[at]


@frozen
class IPRanges:
    """Addresses of both versions."""

    _ipv4: _AddressRanges = field(factory=_AddressRanges, repr=False)
    _ipv6: _AddressRanges = field(factory=_AddressRanges, repr=False)

    def __contains__(self, address: str) -> bool:
        """Whether a client's address is one of them; what is no address is none."""
        try:
            found = ip_address(address)
        except ValueError:
            return False
        four = getattr(found, "ipv4_mapped", None) or (found if found.version == 4 else None)
        return int(four) in self._ipv4 if four is not None else int(found) in self._ipv6


def parse_ranges(content: bytes, regions: Collection[str] = ()) -> IPRanges:
    """Read the published document. Takes some 0.1 s.

    :param regions: names of regions whose networks count; none are all.
    :raises IPRangesError: if it can not be understood, or names no network at all.
    """
    wanted = {region.lower() for region in regions}
    try:
        document = json.loads(content)
        four = _networks(document["prefixes"], "ip_prefix", wanted)
        six = _networks(document.get("ipv6_prefixes", ()), "ipv6_prefix", wanted)
        ranges = IPRanges(
            _spans(net for net in four if isinstance(net, IPv4Network)),
            _spans(net for net in six if isinstance(net, IPv6Network)),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise IPRangesError(f"not a list of AWS's address ranges: {error!r}") from error
    if not document["prefixes"]:
        raise IPRangesError("a list of address ranges without any")
    return ranges


def _networks(entries: Any, key: str, wanted: set[str]) -> list[IPv4Network | IPv6Network]:
    return [
        ip_network(entry[key])
        for entry in entries
        if not wanted or str(entry.get("region", "")).lower() in wanted
    ]


def _spans(networks: Iterable[_Network]) -> _AddressRanges:
    merged = [
        (int(net.network_address), int(net.broadcast_address))
        for net in collapse_addresses(networks)
    ]
    return _AddressRanges(tuple(first for first, _ in merged), tuple(last for _, last in merged))


log = Logger()

#: Bytes of the published document: it has about two million.
_MAX_DOCUMENT_BYTES: Final = 32 * 1024 * 1024
#: Seconds until the next attempt after one that failed.
RETRY_S: Final = 60.0


@define(eq=False)
class AWSClients:
    """The address ranges, fetched when somebody asks and they are not there or old.

    Nobody waits: until they are there, no client is known to be inside.

    :ivar transport: for fetching them; ours to close.
    :ivar threads: where they are read; ours to close.
    :ivar regions: that count; none are all.
    :ivar url: where they are published; ``file://`` for a copy on this machine.
    :ivar frequency: seconds for which they are good.
    """

    _clock: IReactorTime
    _transport: Transport
    _threads: Threads
    _regions: Collection[str] = ()
    _url: str = IP_RANGES_URL
    _frequency: float = 12 * 3600.0
    _ranges: IPRanges = field(init=False, factory=IPRanges)
    _due: float | None = field(init=False, default=None)
    _updating: Deferred[None] | None = field(init=False, default=None)

    def __contains__(self, address: str) -> bool:
        """Whether a client of this address is inside, as far as is known now."""
        if self._updating is None and (self._due is None or self._clock.seconds() >= self._due):
            # Set at once: the answer may be there before this returns.
            self._due = self._clock.seconds() + self._frequency
            self._updating = self._update()
            self._updating.addBoth(self._updated)
        return address in self._ranges

    @inlineCallbacks
    def close(self) -> Generator[Any, Any, None]:
        """Give up what is under way, and free threads and connections."""
        if self._updating is not None:
            self._updating.cancel()
        yield self._transport.close()
        yield self._threads.close()

    @inlineCallbacks
    def _update(self) -> Generator[Any, Any, None]:
        try:
            content = yield self._fetch()
            self._ranges = yield self._threads.run_blocking(parse_ranges, content, self._regions)
        except (S3Error, OSError, IPRangesError) as error:
            # The old ones are better than none.
            self._due = self._clock.seconds() + min(RETRY_S, self._frequency)
            log.warn("address ranges of {url}: {error}", url=self._url, error=error)

    def _fetch(self) -> Deferred[bytes]:
        parts = urlsplit(self._url)
        if parts.scheme == "file":
            return self._threads.run_blocking(Path(parts.path).read_bytes)
        return self._download(parts.netloc)

    @inlineCallbacks
    def _download(self, host: str) -> Generator[Any, Any, bytes]:
        what = f"GET {self._url}"
        answer = yield self._transport.send(what, "GET", self._url, {"host": host})
        content: bytes = yield answer.collect(_MAX_DOCUMENT_BYTES)
        if answer.status != 200:
            raise S3Error(what, "no list of address ranges", status=answer.status)
        return content

    def _updated(self, _: object) -> None:
        self._updating = None
