"""Limits of requests per second, by client address and by user, and of concurrent uploads.

The limits are those of one process. A limit of requests is a token bucket (as the generic cell rate
algorithm, which keeps one number for each client): a client that was idle may send a burst, then
requests at the rate.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Any

from attrs import define, field
from twisted.internet.defer import Deferred
from zope.interface import implementer

from twisted_registry.auth.interfaces import IClosableAccessController
from twisted_registry.oci.errors import ErrorCode, RegistryError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.auth.interfaces import Access, Caller, IAccessController, IGrant

#: A burst is as much as the rate allows in this many seconds, and at least one request.
BURST_S = 10.0
#: Clients whose use is remembered, at least; twice as many at most, of about 150 bytes each.
MAX_CLIENTS = 65_536
#: Bits of an IPv6 address that identify a network; its owner can use any address in it.
_IPV6_NETWORK_BITS = 64
#: Addresses whose network is cached: parsing one takes longer than the check.
_MAX_NETWORKS = 4096
#: Seconds after which a client may try again that has too many uploads.
_UPLOAD_RETRY_S = 5


@define(eq=False, repr=False)
class RateLimit:
    """A limit of requests per second for each client.

    A client that has sent nothing for the time of a burst is like one that was never seen. So
    clients are kept in two generations, each of that time, and the older one is dropped at once.
    With more than :data:`MAX_CLIENTS` in a generation, the older one is dropped earlier.

    :ivar rate: requests per second.
    :ivar clock: the time.
    :ivar what: what a client is, for the message: ``address`` or ``user``.
    """

    rate: float
    clock: IReactorTime
    what: str
    max_clients: int = field(default=MAX_CLIENTS, kw_only=True)
    _interval_s: float = field(init=False)
    _burst_s: float = field(init=False)
    #: for each client, when it would have sent all of its requests at the rate
    _recent: dict[str, float] = field(init=False, factory=dict)
    _older: dict[str, float] = field(init=False, factory=dict)
    _rotation_s: float = field(init=False, default=-math.inf)

    def __attrs_post_init__(self) -> None:
        self._interval_s = 1 / self.rate
        self._burst_s = max(BURST_S, self._interval_s)

    @property
    def client_count(self) -> int:
        """The number of clients that are remembered."""
        return len(self._recent) + len(self._older)

    def check(self, client: str) -> None:
        """Count a request of a client.

        :param client: its address or name; empty if it is not known, which has no limit.
        :raises RegistryError: TOOMANYREQUESTS with ``Retry-After`` if it is over the limit. The
            request does not count then.
        """
        if not client:
            return
        now = self.clock.seconds()
        if now >= self._rotation_s or len(self._recent) >= self.max_clients:
            self._rotate(now)
        used_until_s = self._recent.get(client) or self._older.get(client, now)
        next_s = max(used_until_s, now) + self._interval_s
        wait_s = next_s - now - self._burst_s
        # Sums of intervals are not exact.
        if wait_s > 1e-6:
            raise RegistryError(
                ErrorCode.TOOMANYREQUESTS,
                message=f"more than {self.rate:g} requests per second from one {self.what}",
                detail={"limit": self.rate, self.what: client},
                headers=(("Retry-After", str(math.ceil(wait_s))),),
                limit=f"requestsper{self.what}",
            )
        self._recent[client] = next_s

    def _rotate(self, now: float) -> None:
        self._older = self._recent if now < self._rotation_s + self._burst_s else {}
        self._recent = {}
        self._rotation_s = now + self._burst_s


@lru_cache(_MAX_NETWORKS)
def network_of(address: str) -> str:
    """Return the client that an address stands for: itself, or the /64 network of IPv6.

    Text that is no address, such as the name of a Unix socket, is returned unchanged.
    """
    if ":" not in address:
        return address
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    host_bits = 128 - _IPV6_NETWORK_BITS
    return f"{IPv6Address(int(parsed) >> host_bits << host_bits)}/{_IPV6_NETWORK_BITS}"


@implementer(IClosableAccessController)
@define(eq=False, repr=False)
class RateLimitedAccess:
    """An access controller that limits the requests of addresses and users.

    Addresses are checked before credentials are, users after that.

    :ivar access: the controller that decides.
    :ivar by_address: the limit of each address, or None.
    :ivar by_user: the limit of each user, or None. Callers without a name have none.
    """

    access: IAccessController
    by_address: RateLimit | None
    by_user: RateLimit | None

    def authorize(self, caller: Caller, accesses: Sequence[Access]) -> IGrant | Deferred[IGrant]:
        """Check the limits, and ask the controller.

        :raises RegistryError: TOOMANYREQUESTS, and the errors of the controller.
        """
        if self.by_address is not None:
            self.by_address.check(network_of(caller.address))
        decision: Any = self.access.authorize(caller, accesses)
        if self.by_user is None:
            return decision  # type: ignore[no-any-return]
        if hasattr(decision, "__await__"):
            return Deferred.fromCoroutine(self._check_later(decision))
        return self._check_user(decision)

    def close(self) -> Deferred[None]:
        """Close the controller."""
        closable: Any = self.access
        closed: Deferred[None] = closable.close()
        return closed

    async def _check_later(self, decision: Any) -> IGrant:
        return self._check_user(await decision)

    def _check_user(self, grant: IGrant) -> IGrant:
        assert self.by_user is not None
        self.by_user.check(grant.user)
        return grant


@define(eq=False, repr=False)
class UploadSlots:
    """A limit of concurrent uploads of each user: of requests whose body is being received.

    :ivar limit: uploads of one user at the same time.
    """

    limit: int
    _uploads: dict[str, int] = field(init=False, factory=dict)

    @contextmanager
    def take(self, user: str, address: str) -> Iterator[None]:
        """Count an upload inside the block.

        :param user: the name of the user; empty if the caller is anonymous.
        :param address: the address of the caller, which counts in place of an empty name.
        :raises RegistryError: TOOMANYREQUESTS with ``Retry-After``.
        """
        # No name of a user has a NUL.
        client = user or f"\0{network_of(address)}"
        count = self._uploads.get(client, 0)
        if count >= self.limit:
            raise RegistryError(
                ErrorCode.TOOMANYREQUESTS,
                message=f"more than {self.limit} uploads at the same time",
                detail={"limit": self.limit, "uploads": count},
                headers=(("Retry-After", str(_UPLOAD_RETRY_S)),),
                limit="uploadsperuser",
            )
        self._uploads[client] = count + 1
        try:
            yield
        finally:
            self._uploads[client] -= 1
            if not self._uploads[client]:
                del self._uploads[client]
