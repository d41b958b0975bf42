"""A registry: repositories over one storage driver, without HTTP."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.repository import catalog, layout
from twisted_registry.repository.blobs import Blobs
from twisted_registry.repository.cache import MAX_CONTENT_BYTES, MetadataCache, NullDescriptorCache
from twisted_registry.repository.concurrency import KeyedLock
from twisted_registry.repository.deletion import RepositoryDeletion
from twisted_registry.repository.errors import translate_storage_errors
from twisted_registry.repository.interfaces import (
    EventPublisher,
    IPresenceGate,
    IRegistryListener,
    NullListener,
    Origin,
)
from twisted_registry.repository.manifests import Manifests
from twisted_registry.repository.policy import Policy
from twisted_registry.repository.presence import NullGate, Presence
from twisted_registry.repository.recall import Recall
from twisted_registry.repository.referrers import Referrers, ScannedRevisions
from twisted_registry.repository.tags import Tags
from twisted_registry.repository.trash import Deleter
from twisted_registry.repository.uploads import RunningHashes, Uploads, find_abandoned_uploads
from twisted_registry.storage.fallbacks import (
    bulk_lookup,
    find_presigner,
    host_lock,
    leftovers,
)
from twisted_registry.storage.interfaces import MethodUnsupported, PathExists, PathNotFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.oci.digest import Digest
    from twisted_registry.repository.cache import IDescriptorCache
    from twisted_registry.repository.deletion import DeletedCounts
    from twisted_registry.repository.uploads import AbandonedUpload
    from twisted_registry.storage.interfaces import IStorageDriver

_NO_ORIGIN = Origin()
#: Bytes of the text of an upload secret that are asked for, and that make one at least.
MIN_SECRET_BYTES = 32
#: Seconds for which a redirect to the store is good, as in Distribution.
URL_LIFETIME_S = 20 * 60


class Registry:
    """All repositories of a store.

    :ivar driver: where the bytes are.
    :ivar clock: the time of uploads.
    :ivar policy: which manifests are taken.
    :ivar gate: asked before anything is called present.
    :ivar listener: hears of pushes, pulls, mounts and deletes.
    :ivar announces: whether the listener cares.
    :ivar secret: signs the state in upload URLs; None takes one that the store keeps.
    :ivar url_lifetime: seconds for which a redirect to the store is good.
    :ivar disposal: how what is deleted is removed; for good, if nothing else is said.
    :ivar content_limit: bytes of manifests that are kept in memory.
    :ivar descriptors: remembers sizes for pulls from stores that are far away.
    :ivar pulls: is added each manifest that is pulled, by repository and tag or digest; whoever
        records pulls empties it. None if nobody does.
    """

    def __init__(
        self,
        driver: IStorageDriver,
        clock: IReactorTime,
        policy: Policy | None = None,
        gate: IPresenceGate | None = None,
        listener: IRegistryListener | None = None,
        secret: bytes | None = None,
        url_lifetime_s: int = URL_LIFETIME_S,
        max_content_bytes: int = MAX_CONTENT_BYTES,
        pending_pulls: set[tuple[str, Digest | str]] | None = None,
        deleter: Deleter | None = None,
        descriptors: IDescriptorCache | None = None,
    ) -> None:
        self.driver = driver
        self.clock = clock
        self.policy = Policy() if policy is None else policy
        self.gate = NullGate() if gate is None else gate
        self.listener = NullListener() if listener is None else listener
        self._secret = secret
        self.url_lifetime_s = url_lifetime_s
        self.max_content_bytes = max_content_bytes
        self.pending_pulls = pending_pulls
        self.deleter = Deleter(self.driver) if deleter is None else deleter
        self.descriptors = NullDescriptorCache() if descriptors is None else descriptors
        self.has_listener = not isinstance(self.listener, NullListener)
        self._cache = MetadataCache(
            self.driver, self.max_content_bytes, descriptors=self.descriptors
        )
        self._bulk = bulk_lookup(driver)
        self._host_lock = host_lock(driver)
        self._presigner = find_presigner(driver)
        self._presence = Presence(
            self._cache, self.gate, Recall(self.driver) if self.deleter.keeps_deleted else None
        )
        self._running_hashes = RunningHashes()
        self._scanned = ScannedRevisions()
        self._locks = KeyedLock()

    @property
    def min_chunk_bytes(self) -> int:
        """Bytes that each chunk of an upload but the last should have; 0 if any will do."""
        return self.driver.min_chunk_bytes

    def repository(self, name: str, origin: Origin = _NO_ORIGIN) -> Repository:
        """The repository of a name that the caller has checked; it need not exist.

        :param origin: who is to be named in the events of what is done through it.
        """
        publish_event = EventPublisher(self.listener, name, origin)
        deleter = self.deleter
        tags = Tags(
            self.driver,
            self._bulk,
            self._host_lock,
            self._cache,
            self._locks,
            deleter,
            name,
            publish_event,
            self.policy.immutable,
        )
        referrers = Referrers(self.driver, self._bulk, self._scanned, self._locks, name)
        blobs = Blobs(
            self.driver,
            self._presigner,
            self._presence,
            deleter,
            name,
            publish_event,
            self.url_lifetime_s,
        )
        return Repository(
            self.driver,
            name,
            blobs,
            Uploads(self.driver, self.clock, name, blobs, self._running_hashes),
            Manifests(
                self.driver,
                self._cache,
                self._presence,
                self.policy,
                tags,
                referrers,
                deleter,
                name,
                publish_event,
                self.pending_pulls,
            ),
            tags,
            referrers,
        )

    async def catalog(self, after: str, limit: int) -> tuple[list[str], bool]:
        """Return one page of repository names, and whether there may be more.

        See :func:`catalog.list_repositories`.

        :param after: only names greater than this, in the order of whole names.
        """
        return await catalog.list_repositories(self.driver, after, limit)

    def find_abandoned_uploads(self, before: float) -> AsyncIterator[AbandonedUpload]:
        """Find the uploads that were last touched before a time.

        :param before: seconds since the epoch.
        """
        return find_abandoned_uploads(self.driver, before)

    @translate_storage_errors
    async def remove_leftovers(self, before: float) -> int:
        """Remove what crashes of the store's own calls have left; return how many there were.

        :param before: seconds since the epoch; what changed later stays.
        """
        return await leftovers(self.driver).remove_leftovers(before)

    @translate_storage_errors
    async def upload_secret(self) -> bytes:
        """The key that signs the state in an upload's URL, the same for all who share the store.

        Without one of the operator's, the first who needs it makes one and keeps it in the
        store; so an upload goes on after a restart and on any process.
        """
        if self._secret is None:
            self._secret = await self._load_or_create_secret()
        return self._secret

    async def _load_or_create_secret(self) -> bytes:
        secret = secrets.token_hex(MIN_SECRET_BYTES).encode("ascii")
        try:
            kept = await self.driver.get(layout.UPLOAD_SECRET, 1024)
        except PathNotFound:
            try:
                await self.driver.create(layout.UPLOAD_SECRET, secret)
            except PathExists:
                kept = await self.driver.get(layout.UPLOAD_SECRET, 1024)
            except MethodUnsupported:
                # Of several processes that begin together on such a store the last one wins, and
                # uploads that another began must begin again: hence http.secret, where that
                # matters.
                await self.driver.put(layout.UPLOAD_SECRET, secret)
                kept = await self.driver.get(layout.UPLOAD_SECRET, 1024)
            else:
                return secret
        if len(kept) < MIN_SECRET_BYTES:
            # Torn or emptied: anybody could sign with it.
            await self.driver.put(layout.UPLOAD_SECRET, secret)
            return secret
        return kept


class Repository:
    """One repository and what it holds."""

    def __init__(
        self,
        driver: IStorageDriver,
        name: str,
        blobs: Blobs,
        uploads: Uploads,
        manifests: Manifests,
        tags: Tags,
        referrers: Referrers,
    ) -> None:
        self.driver = driver
        self.name = name
        self.blobs = blobs
        self.uploads = uploads
        self.manifests = manifests
        self.tags = tags
        self.referrers = referrers

    async def exists(self) -> bool:
        """Whether it holds anything, or did until lately."""
        return await catalog.is_repository(self.driver, self.name)

    async def delete(
        self, progress: Callable[[DeletedCounts], object] = lambda _: None
    ) -> DeletedCounts:
        """Remove all that it holds; repositories below it stay.

        :param progress: told again and again what is gone so far.
        :raises RegistryError: NAME_UNKNOWN, DENIED if a tag is immutable, UNAVAILABLE if clients
            push to it all the time.
        """
        if not await self.exists():
            raise RegistryError(ErrorCode.NAME_UNKNOWN, detail={"name": self.name})
        return await RepositoryDeletion(
            self.driver, self.name, self.tags, self.uploads, progress
        ).delete_repository()
