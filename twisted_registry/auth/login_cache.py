"""A cache of recent logins, so that credentials are not verified again for each request.

The key of a login is a keyed hash of the Authorization header: passwords and tokens are not kept
in memory longer than the request that contains them.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from hashlib import blake2b
from typing import TYPE_CHECKING

from attrs import define, field

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.auth.access import Login

#: How long verified credentials are not verified again, in seconds.
LOGIN_TTL_S = 300.0
#: Cached logins; the least recently used one is evicted.
MAX_LOGINS = 4096
#: Its key is random for each process. Copying the object is faster than making a new one.
_KEYED_HASH = blake2b(digest_size=16, key=secrets.token_bytes(32))


@define(eq=False, repr=False)
class LoginCache:
    """Logins by their Authorization headers.

    :ivar clock: for the expiry of the logins.
    :ivar max_entries: the number of cached logins.
    """

    _clock: IReactorTime
    _max_entries: int = MAX_LOGINS
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
        return login

    def store_login(
        self, authorization: str, login: Login, expires: float, version: object = None
    ) -> None:
        """Store a login.

        :param expires: when the login expires, by the clock.
        :param version: the version of the accounts, see :meth:`find_login`.
        """
        self._entries[credentials_key(authorization)] = login, expires, version
        if len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)


def credentials_key(authorization: str) -> bytes:
    """Return the keyed hash of an Authorization header."""
    hashed = _KEYED_HASH.copy()
    hashed.update(authorization.encode("utf-8", "replace"))
    return hashed.digest()
