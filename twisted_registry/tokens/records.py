"""Stored tokens: robot tokens and refresh tokens, each with a small file in the store.

The file describes the token and contains a hash of it. A token has 256 random bits, so a plain
SHA-256 is as good as a slow hash. Deleting the file revokes the token; each process reads the file
again after :data:`RECORD_TTL_S` seconds.

The refresh tokens of a user are in a separate folder, under names that begin with the time at which
they were created. So the number of a user's tokens is limited without reading them.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from typing import TYPE_CHECKING, Any, Literal

from attrs import Factory, asdict, define, field, frozen
from twisted.logger import Logger

from twisted_registry.auth.rules import Rights
from twisted_registry.repository import layout
from twisted_registry.repository.errors import translate_storage_errors
from twisted_registry.storage.fallbacks import bulk_lookup
from twisted_registry.storage.interfaces import PathNotFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.storage.interfaces import IBulkLookup, IStorageDriver

log = Logger()

#: How long a record is cached, in seconds. A revocation takes effect within this time.
RECORD_TTL_S = 3.0
#: Cached records, including the ids that have no record.
_MAX_CACHED = 4096
#: The size limit of a file in bytes.
_MAX_RECORD_BYTES = 65536
#: Entries per call when the records are listed.
_PAGE_SIZE = 1000
#: The prefix of every stored token, so that scanners can find leaked ones.
TOKEN_PREFIX = "twr_"  # noqa: S105 - a prefix
#: The id of a robot's token has 16 digits, that of a refresh token 36: 16 of the user, 12 of the
#: time in milliseconds, and 8 random ones.
_ID_PATTERN = re.compile(r"[0-9a-f]{16}(?:[0-9a-f]{20})?", re.ASCII)
_TOKEN_PATTERN = re.compile(rf"{TOKEN_PREFIX}({_ID_PATTERN.pattern})_([0-9a-f]{{64}})", re.ASCII)

TokenKind = Literal["robot", "refresh"]


@frozen
class TokenRecord:
    """The stored description of a token.

    The names of the attributes are the keys of the JSON file.

    :ivar id: 16 or 36 hexadecimal digits, from which the path of the file is made.
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


@frozen
class TokenPurgeResult:
    """What one purge of expired tokens did.

    :ivar found: records.
    :ivar removed: records of expired tokens, which were removed.
    """

    found: int
    removed: int


def is_stored_token(text: str) -> bool:
    """Return whether a password is meant to be a stored token."""
    return text.startswith(TOKEN_PREFIX)


def stored_token_id(token: str) -> str:
    """Return the id in a stored token, which is no secret; empty if it is none."""
    match = _TOKEN_PATTERN.fullmatch(token)
    return "" if match is None else match[1]


@define(eq=False, repr=False)
class TokenStore:
    """Creates, verifies, lists and revokes the stored tokens.

    :ivar driver: the store.
    :ivar clock: for expiry and for the lifetime of cached records.
    """

    _driver: IStorageDriver
    _clock: IReactorTime
    _cache: dict[str, tuple[float, TokenRecord | None]] = field(init=False, factory=dict)
    _bulk: IBulkLookup = field(
        init=False, default=Factory(lambda self: bulk_lookup(self._driver), takes_self=True)
    )

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
        now = self._clock.seconds()
        token_id = secrets.token_hex(8) if kind == "robot" else _new_refresh_id(name, now)
        secret = secrets.token_hex(32)
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

    async def create_refresh(
        self, name: str, lifetime: float, account_version: str, limit: int
    ) -> str:
        """Create a refresh token of a user. The oldest ones beyond the limit are deleted first.

        :param lifetime: in seconds.
        :param account_version: the current version of the user's account.
        :param limit: the number of tokens that the user may have. Processes that create some at
            the same moment may exceed it until the next one is created.
        :raises StorageError: if the store cannot be read or changed.
        """
        folder = layout.user_tokens_folder(_user_digits(name))
        try:
            # In the order of their creation, with some more for a limit that was lowered.
            entries = await self._driver.list(folder, "", limit + _PAGE_SIZE)
        except PathNotFound:
            entries = []
        oldest = [entry.path for entry in entries[: max(0, len(entries) + 1 - limit)]]
        if oldest:
            await self._bulk.delete_many([f"{folder}/{each}" for each in oldest])
            for each in oldest:
                self._cache.pop(_user_digits(name) + each, None)
        return (await self.create("refresh", name, lifetime, stamp=account_version))[1]

    async def verify(self, token: str, kind: TokenKind) -> TokenRecord | None:
        """Return the record of a valid token; None if it is invalid, expired or revoked.

        :raises RegistryError: UNAVAILABLE if the store cannot be read.
        """
        match = _TOKEN_PATTERN.fullmatch(token)
        record = None if match is None else await self.find_record(match[1])
        if match is None or record is None or record.kind != kind:
            return None
        return record if hmac.compare_digest(record.hash, _hash_secret(match[2])) else None

    @translate_storage_errors
    async def find_record(self, token_id: str) -> TokenRecord | None:
        """Return the record with an id, if it exists and has not expired.

        :raises RegistryError: UNAVAILABLE if the store cannot be read.
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
        records = [record async for page in self._pages() for record in page]
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

    async def purge_expired(self) -> TokenPurgeResult:
        """Delete the expired records.

        :raises StorageError: if the store cannot be read or changed.
        """
        found = removed = 0
        async for page in self._pages():
            now = self._clock.seconds()
            expired = [
                layout.token_record(record.id)
                for record in page
                if record.expires is not None and record.expires <= now
            ]
            if expired:
                await self._bulk.delete_many(expired)
            found, removed = found + len(page), removed + len(expired)
        log.info("expired tokens purged={removed} of {found}", removed=removed, found=found)
        return TokenPurgeResult(found, removed)

    async def _pages(self) -> AsyncIterator[list[TokenRecord]]:
        """Yield all records, some at a time, in the order of their paths."""
        after, is_last = "", False
        while not is_last:
            entries = await self._driver.walk(layout.TOKENS, after, _PAGE_SIZE)
            is_last = len(entries) < _PAGE_SIZE
            paths = [entry.path for entry in entries]
            after = paths[-1] if paths else ""
            ids = {path: layout.token_of_record(path) for path in paths}
            paths = [path for path in paths if _ID_PATTERN.fullmatch(ids[path])]
            contents = await self._bulk.get_many(paths, _MAX_RECORD_BYTES)
            records = (
                _parse(ids[path], content)
                for path, content in zip(paths, contents, strict=True)
                if content is not None
            )
            yield [record for record in records if record is not None]

    async def _read(self, token_id: str) -> TokenRecord | None:
        if not _ID_PATTERN.fullmatch(token_id):
            return None
        try:
            content = await self._driver.get(layout.token_record(token_id), _MAX_RECORD_BYTES)
        except PathNotFound:
            return None
        return _parse(token_id, content)


def _parse(token_id: str, content: bytes) -> TokenRecord | None:
    try:
        record = TokenRecord.from_bytes(content)
    except ValueError:
        log.warn("token rejected: its record cannot be read: id={id}", id=token_id)
        return None
    return record if record.id == token_id else None


def _user_digits(name: str) -> str:
    """Return the digits of a user in the ids of refresh tokens."""
    return hashlib.sha256(name.encode()).hexdigest()[: layout.TOKEN_USER_DIGITS]


def _new_refresh_id(name: str, now: float) -> str:
    """Return a new id for a refresh token; those of one user sort by time."""
    return f"{_user_digits(name)}{int(now * 1000):012x}{secrets.token_hex(4)}"


def _hash_secret(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
