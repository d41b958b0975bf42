"""The keys that sign the registry's bearer tokens.

A key is 256 random bits and is derived from nothing. All registries that accept each other's tokens
have the same list of keys: the first one signs, all are accepted. The list is a small object in the
store (:class:`StoredKeys`), or a file of the operator (:func:`read_key_file`).

Each process reads the list again every :data:`KEYS_TTL_S` seconds (:class:`KeyCache`), so a new key
is used everywhere within that time. A key that was replaced in the store is accepted until the
tokens that it has signed have expired.
"""

from __future__ import annotations

import json
import re
import secrets
from hashlib import sha256
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import Factory, define, evolve, field, frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from twisted_registry.auth.access import LEEWAY_S
from twisted_registry.auth.login_cache import SingleFlight
from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.repository import layout
from twisted_registry.storage.interfaces import (
    MethodUnsupported,
    PathExists,
    PathNotFound,
    StorageError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.storage.interfaces import IStorageDriver

log = Logger()

_KEY_BYTES = 32
#: The form of a key in a configuration or a file: what ``openssl rand -hex 32`` prints.
KEY_PATTERN = re.compile(rf"[0-9A-Fa-f]{{{2 * _KEY_BYTES}}}", re.ASCII)
#: How long a process uses its keys before it reads them again, in seconds.
KEYS_TTL_S = 5.0
#: Minimum seconds between two reads for tokens that name an unknown key.
_UNKNOWN_KEY_INTERVAL_S = 1.0
#: The size limit of the object or file in bytes.
_MAX_BYTES = 64 * 1024
_ID_PREFIX = b"twisted-registry id of a token key "


@frozen
class TokenKey:
    """A key.

    :ivar secret: 32 random bytes.
    :ivar retired: when another key replaced it, in seconds since the epoch; None while it may sign.
    :ivar id: identifies the key in tokens (``kid``).
    """

    secret: bytes = field(repr=False)
    retired: float | None = None
    id: str = field(
        init=False,
        eq=False,
        default=Factory(
            lambda self: sha256(_ID_PREFIX + self.secret).hexdigest()[:16], takes_self=True
        ),
    )

    @classmethod
    def generate(cls) -> TokenKey:
        """Return a new key."""
        return cls(secrets.token_bytes(_KEY_BYTES))

    @classmethod
    def parse(cls, text: str) -> TokenKey:
        """Return the key of a configuration or a line of a file.

        :raises ValueError: if it is not 64 hexadecimal digits; the text does not contain it.
        """
        if not KEY_PATTERN.fullmatch(text):
            raise ValueError(f"expected {2 * _KEY_BYTES} hexadecimal digits")
        return cls(bytes.fromhex(text))


@frozen
class TokenKeys:
    """A list of keys.

    :ivar keys: at least one; the first signs.
    """

    keys: tuple[TokenKey, ...]

    @property
    def signing(self) -> TokenKey:
        """The key that signs."""
        return self.keys[0]

    def find(self, key_id: object) -> TokenKey | None:
        """Return the key with an id, or None."""
        return next((key for key in self.keys if key.id == key_id), None)

    def rotate(self, now: float, lifetime: float, *, revoke: bool) -> TokenKeys:
        """Return a list with a new key that signs.

        :param now: in seconds since the epoch.
        :param lifetime: of tokens, in seconds: keys whose tokens have all expired are dropped.
        :param revoke: drop all old keys, which ends all tokens.
        """
        retired = (
            evolve(key, retired=now if key.retired is None else key.retired) for key in self.keys
        )
        kept = () if revoke else (key for key in retired if now < accepted_until(key, lifetime))
        return TokenKeys((TokenKey.generate(), *kept))

    def to_bytes(self) -> bytes:
        """Return the content of the stored object."""
        keys = [{"key": key.secret.hex(), "retired": key.retired} for key in self.keys]
        return json.dumps({"keys": keys}, indent=1).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> TokenKeys:
        """Parse the content of the stored object.

        :raises ValueError: if it is not a list of keys.
        """
        try:
            document: Any = json.loads(content)
            keys = tuple(
                evolve(TokenKey.parse(each["key"]), retired=_parse_time(each["retired"]))
                for each in document["keys"]
            )
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError("not a list of keys") from error
        if not keys:
            raise ValueError("no key")
        return cls(keys)


def accepted_until(key: TokenKey, lifetime: float) -> float:
    """Return when all tokens that a key has signed have expired, in seconds since the epoch.

    :param lifetime: of tokens, in seconds.
    """
    # A process may sign with it until it has read the new list.
    return inf if key.retired is None else key.retired + KEYS_TTL_S + lifetime + LEEWAY_S


def _parse_time(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("not a time")  # noqa: TRY004 - one error for bad content
    return float(value)


@frozen
class StoredKeys:
    """The keys in a store. The first process that needs one creates it.

    :ivar driver: the store.
    :ivar clock: the time at which a key is retired.
    """

    driver: IStorageDriver
    clock: IReactorTime

    async def read(self) -> TokenKeys:
        """Return the keys; create one if there is none.

        :raises StorageError: if the store fails.
        """
        try:
            content = await self.driver.get(layout.TOKEN_KEYS, _MAX_BYTES)
        except PathNotFound:
            return await self._create()
        try:
            return TokenKeys.from_bytes(content)
        except ValueError as error:
            log.error(
                "token keys are damaged and replaced, tokens are refused until clients get new"
                " ones: path={path}: {reason}",
                path=layout.TOKEN_KEYS,
                reason=str(error),
            )
            return await self._replace(TokenKeys((TokenKey.generate(),)))

    async def rotate(self, lifetime: float, *, revoke: bool = False) -> TokenKeys:
        """Store a new key that signs from now on, and return the keys.

        :param lifetime: of tokens, in seconds.
        :param revoke: drop the old keys, which ends all tokens.
        :raises StorageError: if the store fails.
        """
        keys = await self.read()
        return await self._replace(keys.rotate(self.clock.seconds(), lifetime, revoke=revoke))

    async def _create(self) -> TokenKeys:
        keys = TokenKeys((TokenKey.generate(),))
        try:
            await self.driver.create(layout.TOKEN_KEYS, keys.to_bytes())
        except PathExists:
            return TokenKeys.from_bytes(await self.driver.get(layout.TOKEN_KEYS, _MAX_BYTES))
        except MethodUnsupported:
            # Of several processes the last one wins. One that has read its own key back reads the
            # other within KEYS_TTL_S; clients get new tokens for those that were signed meanwhile.
            await self._replace(keys)
            return TokenKeys.from_bytes(await self.driver.get(layout.TOKEN_KEYS, _MAX_BYTES))
        return keys

    async def _replace(self, keys: TokenKeys) -> TokenKeys:
        await self.driver.put(layout.TOKEN_KEYS, keys.to_bytes())
        return keys


def read_key_file(path: str) -> TokenKeys:
    """Read a file with a key on each line; the first one signs. Blocks.

    Empty lines, and lines that begin with ``#``, are skipped.

    :raises OSError: if the file cannot be read.
    :raises ValueError: if a line is not a key, or there is none; the text contains no key.
    """
    with Path(path).open("rb") as file:
        content = file.read(_MAX_BYTES)
    keys = []
    for number, line in enumerate(content.decode("ascii", "replace").splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        try:
            keys.append(TokenKey.parse(text))
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
    if not keys:
        raise ValueError("no key")
    return TokenKeys(tuple(keys))


@define(eq=False, repr=False)
class KeyCache:
    """The keys that a process uses, read again every :data:`KEYS_TTL_S` seconds.

    Once keys were read, they are used while reading them fails.

    :ivar read: reads the keys.
    :ivar clock: for their age.
    """

    _read: Callable[[], Awaitable[TokenKeys]]
    _clock: IReactorTime
    _keys: TokenKeys | None = field(init=False, default=None)
    _read_at: float = field(init=False, default=0.0)
    _reading: SingleFlight[TokenKeys] | None = field(init=False, default=None)

    def fresh(self) -> TokenKeys | None:
        """Return the keys if they need not be read again; the same object unless they changed."""
        return self._keys if 0 <= self._clock.seconds() - self._read_at < KEYS_TTL_S else None

    async def current(self) -> TokenKeys:
        """Return the keys, read again if they are old.

        :raises RegistryError: UNAVAILABLE if they cannot be read and never were.
        """
        return self.fresh() or await self._refresh()

    async def find(self, key_id: object) -> TokenKey | None:
        """Return the key with an id, or None; an unknown one may be new.

        :raises RegistryError: as :meth:`current`.
        """
        found = (await self.current()).find(key_id)
        age = self._clock.seconds() - self._read_at
        if found is None and isinstance(key_id, str) and not 0 <= age < _UNKNOWN_KEY_INTERVAL_S:
            found = (await self._refresh()).find(key_id)
        return found

    def _refresh(self) -> Deferred[TokenKeys]:
        """Read the keys, once for all waiting requests."""
        if self._reading is None:
            self._reading = SingleFlight(
                lambda: Deferred.fromCoroutine(self._read_keys()), self._reading_ended
            )
        return self._reading.wait()

    def _reading_ended(self) -> None:
        self._reading = None

    async def _read_keys(self) -> TokenKeys:
        try:
            keys = await self._read()
        except (StorageError, OSError, ValueError) as error:
            log.error("token keys cannot be read: {reason}", reason=str(error))
            if self._keys is None:
                raise RegistryError(
                    ErrorCode.UNAVAILABLE, message="the keys of tokens cannot be read"
                ) from error
            keys = self._keys
        if keys != self._keys:
            self._keys = keys
        self._read_at = self._clock.seconds()
        return self._keys
