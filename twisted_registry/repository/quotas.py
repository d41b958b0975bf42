"""Quotas: limits of the bytes that repositories hold, or that users have pushed into them.

What counts is what takes room: the blobs and manifests that a repository links, each once in each
repository, and the bytes of its unfinished uploads. Of a user, what this user has pushed: content
that the repository did not link before. Content that is deleted counts until it has been counted
again, because its bytes are still there until the collector removes them.

The store has three kinds of files, below ``twisted-registry/quotas``. All of them but the last can
be deleted at any time; the next count makes them again.

* ``count``: the totals, which a periodic task has counted by a walk through the store
  (:class:`~twisted_registry.maintenance.quota_count.QuotaCount`).
* ``changes/<process>``: what a process has added to the totals since the count began, and what its
  current requests may add. A process writes only its own file, at each push and every second, and
  reads those of the others. So no two processes write the same file, and the file of one that was
  killed still counts.
* ``pushed/<user>/<repository>/...``: an empty file for each blob, manifest and unfinished upload of
  a user that a quota limits. The layout of CNCF Distribution does not record who pushed. It is
  written before the content gets its link. The names of user and repository are hashed.

While a count walks through the store, pushes go on. It first announces itself in ``counting``, and
waits until all processes have seen that. From then on, they keep a second account of their changes,
which they use when the count is published. What they have stored before the walk begins is taken
off the count again. So a push is never missed; one that ends during the walk may count twice until
the next count, which a refusal brings forward.
"""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from attrs import define, field, frozen
from twisted.internet.defer import DeferredLock

from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.oci.patterns import GlobSet
from twisted_registry.repository import layout
from twisted_registry.repository.errors import translate_storage_errors
from twisted_registry.repository.inventory import list_folder
from twisted_registry.storage.fallbacks import bulk_lookup

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from twisted_registry.oci.digest import Digest
    from twisted_registry.storage.interfaces import IStorageDriver

#: An area, and the hash of the name of a user, or an empty text for everything in the area.
CounterKey = tuple[str, str]
Totals = Counter[CounterKey]

#: The area of a quota and its user for everything in it.
EVERYBODY = ""
_MAX_FILE_BYTES = 64 * 1024 * 1024
#: Accounts that are kept; making one matches patterns.
_MAX_ACCOUNTS = 4096
#: Characters of the hash of the name of a user or repository.
_HASH_CHARS = 32
#: In the file of a process, in place of the ID of a count.
_RESERVED = "reserved"
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


@frozen(eq=False)
class LimitExceeded(RegistryError):
    """What a client sends exceeds a limit: a quota, or the size of a blob."""


def hash_name(name: str) -> str:
    """Return the hash of the name of a user or repository, as it is part of paths."""
    return sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_CHARS]


@frozen
class Quota:
    """A limit of the bytes in some repositories.

    :ivar area: the patterns of the repositories as text: quotas with the same area share a count.
    :ivar repositories: the repositories.
    :ivar max_bytes: how much may be stored.
    :ivar users: each of these users may have pushed as much. Without users, and unless
        :attr:`authenticated` is set, it is the limit of everything in the repositories together.
    :ivar authenticated: whether each authenticated user is one of them.
    """

    area: str
    repositories: GlobSet
    max_bytes: int
    users: frozenset[str] = frozenset()
    authenticated: bool = False

    @classmethod
    def parse(
        cls,
        patterns: Sequence[str],
        max_bytes: int,
        users: Iterable[str] = (),
        *,
        authenticated: bool = False,
    ) -> Quota:
        """Make a quota of patterns of repository names.

        :raises GlobInvalid: with the first invalid pattern.
        """
        area = " ".join(sorted(set(patterns)))
        return cls(area, GlobSet.parse(patterns), max_bytes, frozenset(users), authenticated)

    @property
    def is_per_user(self) -> bool:
        """Whether it limits what each user has pushed."""
        return self.authenticated or bool(self.users)

    def applies_to(self, user: str) -> bool:
        """Return whether it limits pushes of a user; the name of an anonymous one is empty."""
        if not self.is_per_user:
            return True
        return bool(user) and (self.authenticated or user in self.users)


class Quotas:
    """All quotas of one store, and what this process knows of the use.

    :ivar areas: the repositories of each area.
    :ivar is_counted: whether the totals of all areas are known. Until then, only what was pushed
        since the first start counts.
    :ivar was_exceeded: whether a push was refused; a new count may find that there is room.
    """

    def __init__(self, driver: IStorageDriver, quotas: Sequence[Quota]) -> None:
        """Make the quotas; nothing is read yet."""
        self.is_counted = False
        self.was_exceeded = False
        self._driver = driver
        self._bulk = bulk_lookup(driver)
        self._changes_path = layout.quota_changes(uuid4().hex)
        self._lock = DeferredLock()
        self._requested = self._exchanged = 0
        self._is_loaded = False
        self._count_id = ""
        self._counted: Totals = Counter()
        self._others: Totals = Counter()
        #: by the ID of a count, what this process has stored since that began
        self._own: dict[str, Totals] = {"": Counter()}
        #: what its current requests may store
        self._reserved: Totals = Counter()
        self._written = b""
        self.account = lru_cache(_MAX_ACCOUNTS)(self._find_account)
        self.use(quotas)

    def use(self, quotas: Sequence[Quota]) -> None:
        """Limit further pushes by other quotas. What is in use of a new area has to be counted."""
        self._quotas = quotas
        self.areas: Mapping[str, GlobSet] = {quota.area: quota.repositories for quota in quotas}
        self.account.cache_clear()

    def _find_account(self, name: str, user: str) -> Account | None:
        """Return the account of a user's pushes to a repository; None without a quota."""
        quotas = [quota for quota in self._quotas if name in quota.repositories]
        limits = [
            (quota, (quota.area, hash_name(user) if quota.is_per_user else EVERYBODY))
            for quota in quotas
            if quota.applies_to(user)
        ]
        if not limits:
            return None
        keys = {(quota.area, EVERYBODY) for quota in quotas} | {key for _, key in limits}
        is_marked = any(quota.is_per_user for quota, _ in limits)
        folder = layout.pushed_folder(hash_name(user), hash_name(name)) if is_marked else ""
        return Account(self, user, tuple(limits), tuple(sorted(keys)), folder)

    def used(self, key: CounterKey) -> int:
        """Return the bytes that are in use, as far as this process knows."""
        here = self._own[self._count_id][key] + self._reserved[key]
        return self._counted[key] + self._others[key] + here

    def reserve(self, keys: Iterable[CounterKey], length: int) -> None:
        """Add bytes that a request may store, or with a negative number, that it does not."""
        for key in keys:
            self._reserved[key] += length
            if not self._reserved[key]:
                del self._reserved[key]

    def store(self, keys: Iterable[CounterKey], length: int) -> None:
        """Add bytes that are stored, or with a negative number, that no longer are."""
        for totals in self._own.values():
            for key in keys:
                totals[key] += length

    async def load(self) -> None:
        """Read the totals, if that was never done.

        :raises RegistryError: if the store fails.
        """
        if not self._is_loaded:
            await self.synchronize()

    @translate_storage_errors
    async def synchronize(self) -> None:
        """Read the count, and do as :meth:`exchange`; to be called every few seconds.

        :raises RegistryError: if the store fails.
        """
        content, announced = await self._bulk.get_many(
            [layout.QUOTA_COUNT, layout.QUOTA_COUNTING], _MAX_FILE_BYTES
        )
        count = QuotaTotals.from_bytes(content or b"") or QuotaTotals()
        self._adopt(count, (announced or b"").decode("ascii", "replace"))
        await self.exchange()
        self._is_loaded = True

    @translate_storage_errors
    async def exchange(self) -> None:
        """Store the changes of this process, then read those of the others.

        Calls that wait for the same turn are served together.

        :raises RegistryError: if the store fails.
        """
        self._requested = turn = self._requested + 1
        await self._lock.acquire()
        try:
            if self._exchanged < turn:
                self._exchanged = self._requested
                await self._write_changes()
                await self._read_others()
        finally:
            self._lock.release()

    async def _write_changes(self) -> None:
        own = {_RESERVED: self._reserved, **self._own}
        rows = {name: _dump_totals(totals) for name, totals in own.items()}
        written = json.dumps(rows).encode("ascii")
        if written != self._written and (self._written or any(rows.values())):
            await self._driver.put(self._changes_path, written, durable=False)
            self._written = written

    async def _read_others(self) -> None:
        others: Totals = Counter()
        for path, changes in (await read_changes(self._driver)).items():
            # A process that knows nothing of the count has ended, and so have its requests.
            if path != self._changes_path and self._count_id in changes:
                others.update(changes[self._count_id])
                others.update(changes.get(_RESERVED, {}))
        self._others = others

    def _adopt(self, count: QuotaTotals, announced: str) -> None:
        """Use a count, and begin an account of the changes since an announced one."""
        if count.id not in self._own:
            # Its announcement was missed: all changes are kept, rather than none.
            self._own[count.id] = self._own[self._count_id]
        self._count_id, self._counted = count.id, count.totals
        self.is_counted = set(self.areas) <= count.areas
        if announced and announced not in self._own:
            self._own[announced] = Counter()
        known = {self._count_id, announced}
        self._own = {key: totals for key, totals in self._own.items() if key in known}

    @translate_storage_errors
    async def mark(self, path: str) -> None:
        """Store an empty file."""
        await self._driver.put(path, b"", durable=False)

    @translate_storage_errors
    async def unmark(self, path: str) -> None:
        """Delete such a file."""
        await self._bulk.delete_many([path])


@frozen(eq=False)
class Account:
    """What a user pushes to a repository, and the quotas that limit it.

    :ivar user: the name of the user.
    :ivar limits: the quotas, with what counts for each.
    :ivar keys: everything that pushes count for.
    :ivar folder: where the pushes of the user are recorded; empty if that is not necessary.
    """

    quotas: Quotas
    user: str
    limits: tuple[tuple[Quota, CounterKey], ...]
    keys: tuple[CounterKey, ...]
    folder: str

    async def reserve(self, length: int, *, exchange: bool = True) -> Reservation:
        """Reserve room for a push; the reservation must be settled in the end.

        Other processes know of it before it is granted. So of several pushes at the same time, none
        exceeds a quota; but each may be refused because of the others.

        :param length: in bytes; 0 always succeeds.
        :param exchange: whether to look what other processes have stored.
        :raises LimitExceeded: DENIED if it exceeds a quota.
        :raises RegistryError: if the store fails.
        """
        await self.quotas.load()
        reservation = Reservation(self)
        reservation.grow(length)
        if exchange:
            try:
                await self.quotas.exchange()
                if length:
                    self.check(length, reserved=length)
            except BaseException:
                reservation.settle(0)
                raise
        return reservation

    async def check_room(self) -> None:
        """Check that no quota is used up.

        :raises LimitExceeded: DENIED.
        :raises RegistryError: if the store fails.
        """
        await self.quotas.load()
        await self.quotas.exchange()
        self.check(0)

    def check(self, length: int, *, reserved: int = 0) -> None:
        """Check that there is room.

        :param length: in bytes; 0 checks that no quota is used up.
        :param reserved: how much of it is reserved already.
        :raises LimitExceeded: DENIED.
        """
        for quota, key in self.limits:
            used = self.quotas.used(key) - reserved
            if used + max(length, 1) > quota.max_bytes:
                self.quotas.was_exceeded = True
                raise self._refusal(quota, used, length)

    def _refusal(self, quota: Quota, used: int, length: int) -> LimitExceeded:
        whose = f" of the user {self.user}" if quota.is_per_user else ""
        # docker shows the message, and not the detail.
        message = (
            f"the quota{whose} for {quota.area} is {format_bytes(quota.max_bytes)},"
            f" {format_bytes(used)} are in use"
        )
        if length:
            message += f", {format_bytes(length)} more do not fit"
        return LimitExceeded(
            ErrorCode.DENIED,
            message=message,
            detail={
                "repositories": quota.area,
                "quota": quota.max_bytes,
                "used": used,
                "requested": length,
            },
            limit="quotas",
        )

    async def publish(self) -> None:
        """Tell other processes what was stored, before the client knows."""
        # It is stored, whatever happens now; the next exchange tells them as well.
        with suppress(RegistryError):
            await self.quotas.exchange()

    async def record_content(self, digest: Digest) -> None:
        """Record that the user pushes a blob or manifest; before it gets its link.

        :raises RegistryError: if the store fails.
        """
        if self.folder:
            await self.quotas.mark(layout.pushed_content(self.folder, digest))

    async def record_upload(self, upload_id: str) -> None:
        """Record that the user begins an upload.

        :raises RegistryError: if the store fails.
        """
        if self.folder:
            await self.quotas.mark(layout.pushed_upload(self.folder, upload_id))

    async def forget_upload(self, upload_id: str) -> None:
        """Record that an upload has ended.

        :raises RegistryError: if the store fails.
        """
        if self.folder:
            await self.quotas.unmark(layout.pushed_upload(self.folder, upload_id))


@define(eq=False)
class Reservation:
    """Room that a push may need.

    :ivar length: in bytes.
    """

    account: Account
    length: int = field(init=False, default=0)

    def grow(self, length: int) -> None:
        """Reserve more.

        :param length: in bytes.
        :raises LimitExceeded: DENIED.
        """
        if length:
            self.account.check(length)
            self.length += length
            self.account.quotas.reserve(self.account.keys, length)

    def settle(self, stored: int) -> None:
        """End it.

        :param stored: by how many bytes the store has grown; negative if it has shrunk.
        """
        quotas, keys = self.account.quotas, self.account.keys
        quotas.reserve(keys, -self.length)
        quotas.store(keys, stored)


@frozen
class QuotaTotals:
    """A count of what is in use.

    :ivar id: identifies the count; empty if there was none.
    :ivar areas: the areas that were counted.
    :ivar totals: bytes.
    """

    id: str = ""
    areas: frozenset[str] = frozenset()
    totals: Totals = field(factory=Counter)

    def to_bytes(self) -> bytes:
        """Return the content of the file."""
        document = {
            "id": self.id,
            "areas": sorted(self.areas),
            "totals": _dump_totals(self.totals),
        }
        return json.dumps(document).encode("ascii")

    @classmethod
    def from_bytes(cls, content: bytes) -> QuotaTotals | None:
        """Parse the file; return None if it is torn."""
        try:
            document = json.loads(content)
            totals = _load_totals(document["totals"])
            return cls(str(document["id"]), frozenset(document["areas"]), totals)
        except (ValueError, TypeError, KeyError, RecursionError):
            return None


async def read_changes(driver: IStorageDriver) -> dict[str, dict[str, Totals]]:
    """Return the changes of all processes, by path.

    The changes of a process are the bytes that it has stored since a count, by the ID of that
    count, and the bytes that it has reserved.

    :raises StorageError: if the store fails.
    """
    entries = await list_folder(driver, layout.QUOTA_CHANGES)
    paths = [f"{layout.QUOTA_CHANGES}/{entry.path}" for entry in entries]
    contents = await bulk_lookup(driver).get_many(paths, _MAX_FILE_BYTES)
    return {
        path: _parse_changes(content or b"") for path, content in zip(paths, contents, strict=True)
    }


async def delete_old_changes(driver: IStorageDriver) -> None:
    """Delete the files of processes that have ended before the last count, or have added nothing.

    :raises StorageError: if the store fails.
    """
    bulk = bulk_lookup(driver)
    (content,) = await bulk.get_many([layout.QUOTA_COUNT], _MAX_FILE_BYTES)
    count = QuotaTotals.from_bytes(content or b"") or QuotaTotals()
    old = [
        path
        for path, changes in (await read_changes(driver)).items()
        if count.id not in changes or not any(any(rows.values()) for rows in changes.values())
    ]
    await bulk.delete_many(old)


def _parse_changes(content: bytes) -> dict[str, Totals]:
    try:
        return {count: _load_totals(rows) for count, rows in json.loads(content).items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        # It is torn, by a power cut: the next count knows.
        return {}


def _dump_totals(totals: Totals) -> list[tuple[str, str, int]]:
    return [(area, user, number) for (area, user), number in sorted(totals.items()) if number]


def _load_totals(rows: Any) -> Totals:
    return Counter({(str(area), str(user)): int(number) for area, user, number in rows})


def format_bytes(number: int) -> str:
    """Return a number of bytes for people, with a binary unit."""
    value, unit = float(number), 0
    while abs(value) >= 1024 and unit < len(_UNITS) - 1:
        value /= 1024
        unit += 1
    return f"{value:.1f} {_UNITS[unit]}" if unit else f"{number} {_UNITS[0]}"
