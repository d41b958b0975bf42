"""The addresses of AWS, as AWS publishes them, and whether a client has one.

The document is "AWS IP address ranges" of the AWS General Reference: some ten thousand networks,
which overlap. They are merged, so that an address is found by bisection.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address, ip_network
from typing import TYPE_CHECKING, Any, Final, TypeVar

from attrs import field, frozen

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

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
