"""Stored tokens: robot tokens and refresh tokens, each with a small file in the store.

The file describes the token and contains a hash of it. A token has 256 random bits, so a plain
SHA-256 is as good as a slow hash. Deleting the file revokes the token; each process reads the file
again after :data:`RECORD_TTL_S` seconds.
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

#: How long a record is cached, in seconds. A revocation takes effect within this time.
RECORD_TTL_S = 3.0
#: Cached records, including the ids that have no record.
_MAX_CACHED = 4096
#: The size limit of a file in bytes.
_MAX_RECORD_BYTES = 65536
#: Seconds between two purges of expired records.
_PURGE_INTERVAL_S = 24 * 3600.0
#: Entries per call when the records are listed.
_PAGE_SIZE = 1000
#: The prefix of every stored token, so that scanners can find leaked ones.
TOKEN_PREFIX = "twr_"  # noqa: S105 - a prefix
_TOKEN_PATTERN = re.compile(rf"{TOKEN_PREFIX}([0-9a-f]{{16}})_([0-9a-f]{{64}})", re.ASCII)
_ID_PATTERN = re.compile(r"[0-9a-f]{16}", re.ASCII)

TokenKind = Literal["robot", "refresh"]


@frozen
class TokenRecord:
    """The stored description of a token.

    The names of the attributes are the keys of the JSON file.

    :ivar id: 16 hexadecimal digits, the name of the file.
    :ivar kind: ``robot`` or ``refresh``; a token of one kind is not accepted as one of the other.
    :ivar name: the name of the robot, or of the user that a refresh token belongs to.
    :ivar hash: the SHA-256 of the secret part of the token.
    :ivar created: when it was created, in seconds since the epoch.
    :ivar expires: when it expires, in seconds since the epoch; None for never.
    :ivar rights: the rights of a robot.
    :ivar stamp: the account version of the user when a refresh token was created; see
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
        """Return the content of the file."""
        document = asdict(self, recurse=False) | {"rights": self.rights.as_json()}
        return json.dumps(document, indent=1).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> TokenRecord:
        """Parse the content of a file.

        :raises ValueError: if it is not a record.
        """
        document: Any = json.loads(content)
        try:
            rights = Rights.from_json(document.pop("rights"))
            return cls(**document, rights=rights)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("invalid record of a token") from error


def is_stored_token(text: str) -> bool:
    """Return whether a password is meant to be a stored token."""
    return text.startswith(TOKEN_PREFIX)


@define(eq=False, repr=False)
class TokenStore:
    """Creates, verifies, lists and revokes the stored tokens.

    :ivar driver: the store.
    :ivar clock: for expiry and for the lifetime of cached records.
    """

    _driver: IStorageDriver
    _clock: IReactorTime
    _cache: dict[str, tuple[float, TokenRecord | None]] = field(init=False, factory=dict)
    _next_purge: float = field(init=False, default=0.0)

    async def create(
        self,
        kind: TokenKind,
        name: str,
        lifetime: float | None,
        *,
        rights: Rights = Rights(),  # noqa: B008 - it is frozen
        stamp: str = "",
    ) -> tuple[TokenRecord, str]:
        """Create a token and return its record and the token, which is stored nowhere.

        :param lifetime: in seconds; None for a token that never expires.
        :param stamp: the account version of the user, for a refresh token.
        :raises StorageError: if the record cannot be stored.
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
        await self._driver.put(layout.token_record(token_id), record.to_bytes())
        return record, f"{TOKEN_PREFIX}{token_id}_{secret}"

    async def create_refresh(self, name: str, lifetime: float, account_version: str) -> str:
        """Create a refresh token of a user. Once a day this also purges expired records.

        :param lifetime: in seconds.
        :param account_version: the current version of the user's account.
        :raises StorageError: if the record cannot be stored.
        """
        now = self._clock.seconds()
        if now >= self._next_purge:
            self._next_purge = now + _PURGE_INTERVAL_S
            await self.purge_expired()
        return (await self.create("refresh", name, lifetime, stamp=account_version))[1]

    async def verify(self, token: str, kind: TokenKind) -> TokenRecord | None:
        """Return the record of a valid token; None if it is invalid, expired or revoked.

        :raises StorageError: if the store cannot be read.
        """
        match = _TOKEN_PATTERN.fullmatch(token)
        record = None if match is None else await self.find_record(match[1])
        if match is None or record is None or record.kind != kind:
            return None
        return record if hmac.compare_digest(record.hash, _hash_secret(match[2])) else None

    async def find_record(self, token_id: str) -> TokenRecord | None:
        """Return the record with an id, if it exists and has not expired.

        :raises StorageError: if the store cannot be read.
        """
        now = self._clock.seconds()
        cached = self._cache.get(token_id)
        if cached is None or now >= cached[0]:
            cached = now + RECORD_TTL_S, await self._read(token_id)
            self._cache.pop(token_id, None)
            while len(self._cache) >= _MAX_CACHED:
                # Only the oldest: a flood of unknown ids must not evict all valid ones at once.
                del self._cache[next(iter(self._cache))]
            self._cache[token_id] = cached
        record = cached[1]
        if record is None or (record.expires is not None and now >= record.expires):
            return None
        return record

    def cached_until(self, record: TokenRecord) -> float:
        """Return the time until which :meth:`find_record` returns this record from its cache.

        A caller that caches something derived from the record must not keep it longer; otherwise
        a revocation would take effect later than :data:`RECORD_TTL_S`.
        """
        until, _ = self._cache.get(record.id, (0.0, None))
        return until if record.expires is None else min(until, record.expires)

    async def list_records(self) -> list[TokenRecord]:
        """Return all records, including expired ones, oldest first.

        :raises StorageError: if the store cannot be read.
        """
        records = [record for name in await self._ids() if (record := await self._read(name))]
        return sorted(records, key=lambda record: (record.created, record.id))

    async def revoke(self, token_id: str) -> bool:
        """Delete a record; return whether there was one.

        :raises StorageError: if the store cannot be changed.
        """
        if not _ID_PATTERN.fullmatch(token_id):
            return False
        self._cache.pop(token_id, None)
        try:
            await self._driver.delete(layout.token_record(token_id))
        except PathNotFound:
            return False
        return True

    async def purge_expired(self) -> int:
        """Delete the expired records and return their number.

        :raises StorageError: if the store cannot be read or changed.
        """
        now = self._clock.seconds()
        expired = [
            record.id
            for record in await self.list_records()
            if record.expires is not None and record.expires <= now
        ]
        for token_id in expired:
            await self.revoke(token_id)
        return len(expired)

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
            content = await self._driver.get(layout.token_record(token_id), _MAX_RECORD_BYTES)
        except PathNotFound:
            return None
        try:
            record = TokenRecord.from_bytes(content)
        except ValueError:
            log.warn("token rejected: its record cannot be read: id={id}", id=token_id)
            return None
        return record if record.id == token_id else None


def _hash_secret(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
