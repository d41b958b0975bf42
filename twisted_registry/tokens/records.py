"""Tokens that last: robots' and those that refresh others, each a small file in the store.

The file says whose the token is, and holds a hash of it. The token is random and long, so a plain
SHA-256 is as good as a slow hash. Whoever removes the file has revoked the token; every process
looks again after :data:`RECORD_TTL_S` seconds.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from typing import TYPE_CHECKING, Any, Literal

from attrs import asdict, define, field, frozen
from twisted.logger import Logger

from twisted_registry.auth.rules import Rights
from twisted_registry.repository import layout
from twisted_registry.storage.interfaces import PathNotFound

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.storage.interfaces import IStorageDriver

log = Logger()

#: Seconds for which what was read is believed: so long does a revocation take.
RECORD_TTL_S = 3.0
#: Records that are kept.
_MAX_CACHED = 4096
#: Bytes of a record.
_MAX_RECORD_BYTES = 65536
#: Seconds between two looks for those that have expired.
_PURGE_INTERVAL_S = 24 * 3600.0
#: Records that are listed at once.
_PAGE_SIZE = 1000
#: How every such token begins, for those who look for secrets that got lost.
TOKEN_PREFIX = "twr_"
_TOKEN_PATTERN = re.compile(rf"{TOKEN_PREFIX}([0-9a-f]{{16}})_([0-9a-f]{{64}})", re.ASCII)
_ID_PATTERN = re.compile(r"[0-9a-f]{16}", re.ASCII)

TokenKind = Literal["robot", "refresh"]


@frozen
class TokenRecord:
    """What is stored of a token.

    :ivar kind: ``robot`` or ``refresh``: neither is believed in the other's place.
    :ivar name: of the robot, or of the user that the token refreshes.
    :ivar hash: of the token.
    :ivar created: seconds since the epoch; likewise ``expires``, None for never.
    :ivar rights: a robot's.
    :ivar stamp: what the user's account looked like; see
        :class:`~twisted_registry.auth.interfaces.IAccountVersions`.
    """

    id: str
    kind: TokenKind
    name: str
    hash: str = field(repr=False)
    created: float
    expires: float | None = None
    rights: Rights = field(factory=Rights)
    stamp: str = field(repr=False, default="")

    def to_bytes(self) -> bytes:
        """The content of the file."""
        said = asdict(self, recurse=False) | {"rights": self.rights.as_json()}
        return json.dumps(said, indent=1).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> TokenRecord:
        """Read the file.

        :raises ValueError: if it is none.
        """
        said: Any = json.loads(content)
        try:
            rights = Rights.from_json(said.pop("rights"))
            return cls(**said, rights=rights)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("no record of a token") from error


def is_stored_token(text: str) -> bool:
    """Whether something that was shown as a password is meant to be such a token."""
    return text.startswith(TOKEN_PREFIX)


@define(eq=False, repr=False)
class TokenStore:
    """The tokens of a store.

    :ivar driver: the store.
    :ivar clock: tells when they expire.
    """

    _driver: IStorageDriver
    _clock: IReactorTime
    _cache: dict[str, tuple[float, TokenRecord | None]] = field(init=False, factory=dict)
    _purge_next: float = field(init=False, default=0.0)

    async def create(
        self,
        kind: TokenKind,
        name: str,
        lifetime: float | None,
        *,
        rights: Rights = Rights(),  # noqa: B008 - it is frozen
        stamp: str = "",
    ) -> tuple[TokenRecord, str]:
        """Make a token, and answer it with its record: it can not be had again.

        :param lifetime: seconds; None for ever.
        :raises StorageError: if it can not be stored.
        """
        token_id, secret = secrets.token_hex(8), secrets.token_hex(32)
        now = self._clock.seconds()
        record = TokenRecord(
            token_id,
            kind,
            name,
            _hash_secret(secret),
            now,
            None if lifetime is None else now + lifetime,
            rights,
            stamp,
        )
        await self._driver.put(layout.token(token_id), record.to_bytes())
        return record, f"{TOKEN_PREFIX}{token_id}_{secret}"

    async def create_refresh(self, name: str, lifetime: float, stamp: str) -> str:
        """Make a token that refreshes a user's others, and remove old ones now and then.

        :param lifetime: seconds.
        :param stamp: what the user's account looks like.
        :raises StorageError: if it can not be stored.
        """
        now = self._clock.seconds()
        if now >= self._purge_next:
            self._purge_next = now + _PURGE_INTERVAL_S
            await self.purge_expired()
        return (await self.create("refresh", name, lifetime, stamp=stamp))[1]

    async def check(self, token: str, kind: TokenKind) -> TokenRecord | None:
        """The record of a token that is good, or None.

        :raises StorageError: if the store does not answer.
        """
        found = _TOKEN_PATTERN.fullmatch(token)
        record = None if found is None else await self.find(found[1])
        if found is None or record is None or record.kind != kind:
            return None
        return record if hmac.compare_digest(record.hash, _hash_secret(found[2])) else None

    async def find(self, token_id: str) -> TokenRecord | None:
        """The record of an id, if it has not expired.

        :raises StorageError: if the store does not answer.
        """
        now = self._clock.seconds()
        known = self._cache.get(token_id)
        if known is None or now >= known[0]:
            if len(self._cache) >= _MAX_CACHED:
                self._cache.clear()
            known = self._cache[token_id] = now + RECORD_TTL_S, await self._read(token_id)
        record = known[1]
        if record is None or (record.expires is not None and now >= record.expires):
            return None
        return record

    def cached_until(self, record: TokenRecord) -> float:
        """The time until which :meth:`find` answers this record without another look.

        Whoever remembers what they made of it for longer would make a revocation wait twice.
        """
        looked_at, _ = self._cache.get(record.id, (0.0, None))
        return looked_at if record.expires is None else min(looked_at, record.expires)

    async def list_records(self) -> list[TokenRecord]:
        """Every record, those that have expired as well, oldest first.

        :raises StorageError: if the store does not answer.
        """
        found = [record for name in await self._ids() if (record := await self._read(name))]
        return sorted(found, key=lambda record: (record.created, record.id))

    async def revoke(self, token_id: str) -> bool:
        """Remove a token for good; return whether there was one.

        :raises StorageError: if the store does not answer.
        """
        if not _ID_PATTERN.fullmatch(token_id):
            return False
        self._cache.pop(token_id, None)
        try:
            await self._driver.delete(layout.token(token_id))
        except PathNotFound:
            return False
        return True

    async def purge_expired(self) -> int:
        """Remove those that have expired, and return how many there were.

        :raises StorageError: if the store does not answer.
        """
        now = self._clock.seconds()
        old = [
            record.id
            for record in await self.list_records()
            if record.expires is not None and record.expires <= now
        ]
        for token_id in old:
            await self.revoke(token_id)
        return len(old)

    async def _ids(self) -> Iterable[str]:
        names: list[str] = []
        while True:
            after = names[-1] if names else ""
            try:
                entries = await self._driver.list(layout.TOKENS, after, _PAGE_SIZE)
            except PathNotFound:
                return names
            names += [entry.path for entry in entries]
            if len(entries) < _PAGE_SIZE:
                return [name for name in names if _ID_PATTERN.fullmatch(name)]

    async def _read(self, token_id: str) -> TokenRecord | None:
        if not _ID_PATTERN.fullmatch(token_id):
            return None
        try:
            content = await self._driver.get(layout.token(token_id), _MAX_RECORD_BYTES)
        except PathNotFound:
            return None
        try:
            record = TokenRecord.from_bytes(content)
        except ValueError:
            log.warn("the record of the token {id} can not be read, and opens no door", id=token_id)
            return None
        return record if record.id == token_id else None


def _hash_secret(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
