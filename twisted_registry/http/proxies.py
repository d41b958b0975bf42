"""Trusted proxies, and what their headers say about a client (RFC 7239, X-Forwarded-*).

Anybody can send these headers. They are believed only if the peer, the other end of the socket, is
a trusted proxy. In a chain of proxies each one appends the address of its peer, so the client
is the right-most address that is not a trusted proxy: what is left of it may be forged.
"""

from __future__ import annotations

from functools import cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from re import IGNORECASE
from re import compile as compile_pattern
from typing import TYPE_CHECKING, Any, Final

from attrs import field, frozen
from twisted.protocols.policies import ProtocolWrapper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

#: The word for clients on Unix sockets in a list of trusted proxies.
UNIX_SOCKETS: Final = "unix"
#: Loopback, private (RFC 1918, RFC 4193) and link-local addresses, and Unix sockets.
PRIVATE_NETWORKS: Final = (
    *("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),
    *("169.254.0.0/16", "fc00::/7", "fe80::/10", UNIX_SOCKETS),
)
#: Request headers that describe the request of the client to the first proxy.
FORWARDING_HEADERS: Final = frozenset(
    {
        *(b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"),
        b"x-real-ip",
    }
)
#: The addresses at the right end of a header that are looked at: more than any chain of proxies.
_MAX_HOPS: Final = 32
_MAX_ADDRESS_CHARS: Final = 64
_PARAMETER: Final = compile_pattern(r'\s*([a-z]+)\s*=\s*(?:"([^"]*)"|([^\s;,"]*))\s*', IGNORECASE)
_MAPPED_PREFIX: Final = "::ffff:"


@frozen
class ClientInfo:
    """The client of a request, as far as it is known.

    :ivar address: the IP address of the client: that of the peer, or what trusted proxies say.
        Empty for a client on a Unix socket.
    :ivar peer: the IP address at the other end of the socket; empty for a Unix socket.
    :ivar host: the requested host that a trusted proxy reports, unchecked; or empty.
    :ivar scheme: the scheme that a trusted proxy reports, unchecked, in lower case; or empty.
    """

    address: str
    peer: str
    host: str = ""
    scheme: str = ""


@frozen
class TrustedProxies:
    """The addresses whose headers are believed.

    :ivar networks: IPv4 and IPv6 networks.
    :ivar includes_unix_sockets: whether clients on Unix sockets are believed.
    """

    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    includes_unix_sockets: bool = field(default=False)

    @classmethod
    def parse(cls, texts: Iterable[str]) -> TrustedProxies:
        """Return the proxies of a list of networks, addresses and the word ``unix``.

        :raises ValueError: if one of them is none of these.
        """
        names = list(texts)
        networks = (ip_network(name) for name in names if name != UNIX_SOCKETS)
        return cls(tuple(networks), UNIX_SOCKETS in names)

    def trusts(self, address: str) -> bool:
        """Return whether an address is that of a trusted proxy.

        :param address: an IP address; empty for a Unix socket.
        """
        if not address:
            return self.includes_unix_sockets
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self.networks)

    def describe_client(
        self,
        hops: Sequence[str],
        fields: Mapping[bytes, bytes],
        get_values: Callable[[bytes], Sequence[bytes]],
    ) -> ClientInfo:
        """Return what is known about the client of a request.

        :param hops: as from :func:`socket_hops`.
        :param fields: the last value of each header, by its name in lower case.
        :param get_values: returns all values of a header.
        """
        peer = hops[0]
        has_headers = not FORWARDING_HEADERS.isdisjoint(fields)
        if (len(hops) == 1 and not has_headers) or not self.trusts(peer):
            return ClientInfo(peer, peer)
        if not has_headers:
            return ClientInfo(self._find_client(hops), peer)
        forwarded = _parameters(_first_element(fields.get(b"forwarded")))
        host = _first_element(fields.get(b"x-forwarded-host")) or forwarded.get("host", "")
        scheme = _first_element(fields.get(b"x-forwarded-proto")) or forwarded.get("proto", "")
        claimed = _claimed_addresses(get_values)
        return ClientInfo(self._find_client([*hops, *claimed]), peer, host, scheme.lower())

    def _find_client(self, hops: Iterable[str | None]) -> str:
        """Return the first address that is not a trusted proxy, or the last one that is known.

        :param hops: the nearest first; None for one that is not an IP address.
        """
        client = ""
        for hop in hops:
            if hop is None:
                break
            client = hop
            if not self.trusts(client):
                break
        return client


@cache
def private_proxies() -> TrustedProxies:
    """Return the proxies that are trusted by default: those of PRIVATE_NETWORKS."""
    return TrustedProxies.parse(PRIVATE_NETWORKS)


def socket_hops(transport: Any) -> tuple[str, ...]:
    """Return the address at the other end of the socket, then that of the client.

    The two differ only behind a protocol that itself reports clients (``haproxy:`` endpoints), and
    once that has received its header.
    """
    lowest = transport
    while isinstance(lowest, ProtocolWrapper):
        lowest = lowest.transport
    client, nearest = host_of(transport.getPeer()), host_of(lowest.getPeer())
    return (nearest,) if nearest == client else (nearest, client)


def client_info(request: Any, fields: Mapping[bytes, bytes]) -> ClientInfo:
    """Return what is known about the client of a request of any Site.

    For a request of another Site than that of this package, the default proxies are trusted.

    :param fields: the last value of each header, by its name in lower case.
    """
    info: ClientInfo | None = getattr(request, "client_info", None)
    if info is None:
        get_values = request.requestHeaders.getRawHeaders
        info = private_proxies().describe_client(
            (host_of(request.getClientAddress()),), fields, lambda name: get_values(name, ())
        )
    return info


def host_of(address: Any) -> str:
    """Return the host of one of Twisted's addresses; empty for a Unix socket."""
    host = str(getattr(address, "host", ""))
    # An IPv4 client of a socket for both versions (RFC 4291 section 2.5.5.2).
    return host[len(_MAPPED_PREFIX) :] if host.startswith(_MAPPED_PREFIX) and "." in host else host


def _claimed_addresses(get_values: Callable[[bytes], Sequence[bytes]]) -> list[str | None]:
    """Return the addresses in the headers of proxies, the nearest first.

    None stands for one that is not an IP address, for example an obfuscated one.
    """
    elements = _last_elements(get_values(b"x-forwarded-for"))
    if not elements:
        forwarded = map(_parameters, _last_elements(get_values(b"forwarded")))
        elements = [element["for"] for element in forwarded if "for" in element]
    if not elements:
        elements = _last_elements(get_values(b"x-real-ip"))[:1]
    return [_parse_address(element) for element in elements]


def _last_elements(values: Sequence[bytes]) -> list[str]:
    """Return the elements of a comma-separated header, from the right, empty ones left out."""
    if not values:
        return []
    elements = b",".join(values).decode("utf-8", "replace").rsplit(",", _MAX_HOPS)[-_MAX_HOPS:]
    return [text for element in reversed(elements) if (text := element.strip())]


def _parse_address(text: str) -> str | None:
    """Return an IP address in its usual form, without a port; None if it is none."""
    if len(text) > _MAX_ADDRESS_CHARS or "%" in text:
        # The zone of a link-local address could be any text.
        return None
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def _first_element(value: bytes | None) -> str:
    """Return the first element of a comma-separated header."""
    return value.decode("utf-8", "replace").partition(",")[0].strip() if value else ""


def _parameters(element: str) -> dict[str, str]:
    """Return the parameters of an element of a Forwarded header, by their name in lower case."""
    pairs = map(_PARAMETER.fullmatch, element.split(";"))
    return {pair[1].lower(): pair[2] or pair[3] or "" for pair in pairs if pair}
