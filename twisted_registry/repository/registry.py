"""The registry: all repositories of one storage driver, without HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define

from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.repository import catalog
from twisted_registry.repository.blobs import Blobs
from twisted_registry.repository.cache import (
    MAX_CONTENT_BYTES,
    MetadataCache,
    NullDescriptorCache,
)
from twisted_registry.repository.concurrency import KeyedLock
from twisted_registry.repository.context import StoreContext
from twisted_registry.repository.deletion import DeletedCounts, RepositoryDeletion
from twisted_registry.repository.interfaces import EventPublisher, Origin
from twisted_registry.repository.manifests import Manifests
from twisted_registry.repository.parsing import ManifestWorker
from twisted_registry.repository.policy import Policy
from twisted_registry.repository.presence import NullGate, Presence
from twisted_registry.repository.recent_links import ForgettingDeleter
from twisted_registry.repository.referrers import (
    OptionalWrites,
    Referrers,
    make_records_cache,
    make_searched_cache,
)
from twisted_registry.repository.tags import Tags
from twisted_registry.repository.trash import Deleter, Trash
from twisted_registry.repository.uploads import RunningHashes, Uploads, UploadSecret
from twisted_registry.storage.fallbacks import bulk_lookup, find_presigner, host_lock
from twisted_registry.storage.interfaces import IFastLookup

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.oci.digest import Digest
    from twisted_registry.repository.cache import CacheUse, IDescriptorCache
    from twisted_registry.repository.interfaces import IPresenceGate, IRegistryListener
    from twisted_registry.repository.quotas import Quotas
    from twisted_registry.repository.recent_links import RecentLinks
    from twisted_registry.repository.trash import IDeleter
    from twisted_registry.storage.interfaces import IStorageDriver

_NO_ORIGIN = Origin()
_CATALOG_LOCK = "catalog"
#: Lifetime of a URL of the store in seconds, as in CNCF Distribution.
URL_LIFETIME_S = 20 * 60


class Registry:
    """All repositories of a store.

    :ivar driver: the storage driver.
    :ivar clock: the time of uploads.
    :ivar policy: the rules for manifests and tags.
    :ivar gate: asked before content is reported present.
    :ivar listener: receives events, or None.
    :ivar upload_secret: signs the state in the URLs of uploads.
    :ivar max_content_bytes: bytes of manifests that are cached.
    :ivar worker: hashes and parses manifests.
    :ivar quotas: limits of what is stored; None without any.
    :ivar active_uploads: uploads whose bytes are being received.
    :ivar deleter: removes content; this process must not remove links to blobs without it.
    :ivar pending_pulls: receives the repository and the tag or digest of each pulled manifest; the
        task that records pulls empties it. None without such a task.
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
        deleter: IDeleter | None = None,
        descriptors: IDescriptorCache | None = None,
        recent_links: RecentLinks | None = None,
        worker: ManifestWorker | None = None,
        quotas: Quotas | None = None,
        *,
        read_only: bool = False,
    ) -> None:
        """Assemble a registry.

        :param secret: the key of :attr:`upload_secret`; None uses one that is in the store.
        :param url_lifetime_s: lifetime of URLs of the store in seconds.
        :param deleter: removes content; None removes it for good.
        :param descriptors: caches blob sizes for pulls from remote stores.
        :param recent_links: remembers links to blobs for pulls; unused if ``driver`` can ``peek``.
        :param worker: None hashes and parses manifests on the caller's thread.
        :param read_only: whether requests that read write nothing either.
        """
        self.driver = driver
        self.clock = clock
        self.policy = Policy() if policy is None else policy
        self.gate = NullGate() if gate is None else gate
        self.listener = listener
        self.upload_secret = UploadSecret(driver, secret)
        self.max_content_bytes = max_content_bytes
        self.pending_pulls = pending_pulls
        self.worker = ManifestWorker() if worker is None else worker
        self.quotas = quotas
        self.active_uploads = 0
        if IFastLookup(driver, None) is not None:
            # The cached links are validated at each use.
            recent_links = None
        deleter = Deleter(driver) if deleter is None else deleter
        if recent_links is not None:
            deleter = ForgettingDeleter(deleter, recent_links)
        self.deleter = deleter
        cache = MetadataCache(
            driver, max_content_bytes, descriptors=descriptors, worker=self.worker
        )
        trash = Trash(driver) if deleter.keeps_deleted else None
        self._cache = cache
        self._recent_links = recent_links
        self._store = StoreContext(
            driver=driver,
            clock=clock,
            bulk=bulk_lookup(driver),
            host_lock=host_lock(driver),
            presigner=find_presigner(driver),
            cache=cache,
            worker=self.worker,
            presence=Presence(cache, self.gate, trash, recent_links),
            deleter=deleter,
            policy=self.policy,
            locks=KeyedLock(),
            running_hashes=RunningHashes(),
            searched_revisions=make_searched_cache(),
            subject_records=make_records_cache(),
            optional_writes=OptionalWrites(driver, clock, allowed=not read_only),
            url_lifetime_s=url_lifetime_s,
            pending_pulls=pending_pulls,
        )

    def use_policy(self, policy: Policy) -> None:
        """Accept further manifests and changes of tags by another policy."""
        self.policy = self._store.policy = policy

    @property
    def min_chunk_bytes(self) -> int:
        """The smallest chunk of an upload in bytes, except the last; 0 means any size."""
        return self.driver.min_chunk_bytes

    @property
    def cache_uses(self) -> Mapping[str, CacheUse]:
        """How often each cache was asked, by its name."""
        uses = {"manifests": self._cache.manifest_use, "blobs": self._cache.blob_use}
        if not isinstance(self._cache.descriptors, NullDescriptorCache):
            uses["descriptors"] = self._cache.descriptors.use
        if self._recent_links is not None:
            uses["links"] = self._recent_links.use
        return uses

    def repository(self, name: str, origin: Origin = _NO_ORIGIN) -> Repository:
        """Return the repository of a valid name; it need not exist.

        :param origin: the origin of the events that it causes.
        """
        return Repository(self._store, name, EventPublisher(self.listener, name, origin))

    async def catalog(self, after: str, limit: int) -> tuple[list[str], bool]:
        """Return one page of repository names, and whether there may be more.

        One page is made at a time: a walk may visit many folders.

        :param after: return only names greater than this, in the order of whole names.
        :param limit: the number of names, at most.
        """
        async with self._store.locks.lock(_CATALOG_LOCK):
            return await catalog.list_repositories(self.driver, after, limit)


@define(eq=False, repr=False)
class Repository:
    """One repository. Its parts have no state: each access returns a new one."""

    store: StoreContext
    name: str
    publish_event: EventPublisher

    @property
    def blobs(self) -> Blobs:
        """The blobs."""
        return Blobs(self.store, self.name, self.publish_event)

    @property
    def uploads(self) -> Uploads:
        """The uploads."""
        return Uploads(self.store, self.name, self.publish_event)

    @property
    def manifests(self) -> Manifests:
        """The manifests."""
        return Manifests(self.store, self.name, self.publish_event)

    @property
    def tags(self) -> Tags:
        """The tags."""
        return Tags(self.store, self.name, self.publish_event)

    @property
    def referrers(self) -> Referrers:
        """The manifests that refer to others."""
        return self.manifests.referrers

    async def exists(self) -> bool:
        """Return whether it has content, or had until recently."""
        return await catalog.is_repository(self.store.driver, self.name)

    async def delete(
        self, progress: Callable[[DeletedCounts], object] = lambda _: None
    ) -> DeletedCounts:
        """Delete all content; repositories below it stay.

        :param progress: called with the counts so far, several times.
        :raises RegistryError: NAME_UNKNOWN, DENIED if a tag is immutable, UNAVAILABLE if clients
            keep pushing.
        """
        if not await self.exists():
            raise RegistryError(ErrorCode.NAME_UNKNOWN, detail={"name": self.name})
        return await RepositoryDeletion(
            self.store, self.name, self.publish_event, self.tags, self.uploads, progress
        ).delete_repository()
