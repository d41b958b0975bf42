"""A cache of recent logins, and single-flight verification of credentials.

Credentials are not verified again for each request, and several requests with the same credentials
wait for one verification. The key of a login is a keyed hash of the Authorization header: passwords
and tokens are not kept in memory longer than the request that contains them.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from hashlib import blake2b
from typing import TYPE_CHECKING, Generic, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IReactorTime
    from twisted.python.failure import Failure

    from twisted_registry.auth.access import Login

T = TypeVar("T")


@define(eq=False, repr=False)
class SingleFlight(Generic[T]):
    """Runs one operation for all callers that wait for its result.

    :ivar start: starts the operation; called once, by the first :meth:`wait`.
    :ivar on_end: called when there is a result, or when the last waiter has been cancelled. From
        then on :meth:`wait` must not be called.
    """

    _start: Callable[[], Deferred[T]]
    _on_end: Callable[[], object]
    _work: Deferred[None] | None = field(init=False, default=None)
    _waiters: list[Deferred[T]] = field(init=False, factory=list)

    def wait(self) -> Deferred[T]:
        """Fire with the result. Cancelling the last waiter cancels the operation."""
        waiter: Deferred[T] = Deferred(self._waiter_cancelled)
        self._waiters.append(waiter)
        if self._work is None:
            self._work = self._start().addBoth(self._fire_waiters)
        return waiter

    def _fire_waiters(self, result: T | Failure) -> None:
        waiters, self._waiters = self._waiters, []
        if waiters:
            self._on_end()
        for waiter in waiters:
            waiter.callback(result)

    def _waiter_cancelled(self, waiter: Deferred[T]) -> None:
        self._waiters.remove(waiter)
        if not self._waiters:
            assert self._work is not None
            self._on_end()
            self._work.cancel()


#: How long verified credentials are not verified again, in seconds.
LOGIN_TTL_S = 300.0
#: Cached logins; the least recently used one is evicted. Expired ones go as others are stored.
MAX_LOGINS = 4096
#: Its key is random for each process. Copying the object is faster than making a new one.
_KEYED_HASH = blake2b(digest_size=16, key=secrets.token_bytes(32))


@define(eq=False, repr=False)
class LoginCache:
    """Logins by their Authorization headers.

    :ivar clock: for the expiry of the logins.
    :ivar max_entries: the number of cached logins.
    :ivar on_use: called with True for a login that was found, and with False for one that had to
        be verified, which is stored then; None for no call.
    """

    _clock: IReactorTime
    _max_entries: int = MAX_LOGINS
    _on_use: Callable[[bool], object] | None = None
    _entries: OrderedDict[bytes, tuple[Login, float, object]] = field(
        init=False, factory=OrderedDict
    )

    def find_login(self, authorization: str, version: object = None) -> Login | None:
        """Return the login for a header, if it has not expired and the version is the same.

        :param version: compared with the version that was stored; another one removes the login.
        """
        key = credentials_key(authorization)
        entry = self._entries.get(key)
        if entry is None:
            return None
        login, expires, stored_version = entry
        if stored_version != version or self._clock.seconds() >= expires:
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        if self._on_use is not None:
            self._on_use(True)
        return login

    def store_login(
        self, authorization: str, login: Login, expires: float, version: object = None
    ) -> None:
        """Store a login.

        :param expires: when the login expires, by the clock.
        :param version: the version of the accounts, see :meth:`find_login`.
        """
        self._remove_expired()
        self._entries[credentials_key(authorization)] = login, expires, version
        if len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)
        if self._on_use is not None:
            self._on_use(False)

    def _remove_expired(self) -> None:
        """Remove the least recently used logins, as long as they have expired."""
        now = self._clock.seconds()
        while self._entries:
            key, (_, expires, _) = next(iter(self._entries.items()))
            if expires > now:
                return
            del self._entries[key]


def credentials_key(authorization: str) -> bytes:
    """Return the keyed hash of an Authorization header."""
    hashed = _KEYED_HASH.copy()
    hashed.update(authorization.encode("utf-8", "replace"))
    return hashed.digest()
