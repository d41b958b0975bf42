"""Logins that were found to be good a moment ago, so that a push pays for one and not for each
request.

What was shown is kept as a keyed hash: no password and no token rests in memory longer than the
request that brought it.
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

#: Seconds for which what was good is not checked again.
LOGIN_TTL_S = 300.0
#: How many are kept; the one longest unused goes.
MAX_LOGINS = 4096
#: With a key that no other process has. A copy of it is quicker than a new one.
_KEYED_HASH = blake2b(digest_size=16, key=secrets.token_bytes(32))


@define(eq=False, repr=False)
class LoginCache:
    """A bounded number of logins, by what was shown for them.

    :ivar clock: tells when they are over.
    """

    _clock: IReactorTime
    _max_entries: int = MAX_LOGINS
    _entries: OrderedDict[bytes, tuple[Login, float, object]] = field(
        init=False, factory=OrderedDict
    )

    def find_login(self, shown: str, version: object = None) -> Login | None:
        """The login of somebody who showed this, if it still holds.

        :param version: as it was given to :meth:`store_login`; another one ends the login.
        """
        key = credentials_key(shown)
        found = self._entries.get(key)
        if found is None:
            return None
        login, until, kept = found
        if kept != version or self._clock.seconds() >= until:
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return login

    def store_login(self, shown: str, login: Login, until: float, version: object = None) -> None:
        """Remember a login.

        :param until: the time at which it is over, by the clock.
        """
        self._entries[credentials_key(shown)] = login, until, version
        if len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)


def credentials_key(shown: str) -> bytes:
    """What stands for something that was shown: a keyed hash."""
    hashed = _KEYED_HASH.copy()
    hashed.update(shown.encode("utf-8", "replace"))
    return hashed.digest()
