"""The parts of a registry that all its repositories share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.oci.digest import Digest
    from twisted_registry.repository.cache import LRUCache, MetadataCache
    from twisted_registry.repository.concurrency import KeyedLock
    from twisted_registry.repository.parsing import ManifestWorker
    from twisted_registry.repository.policy import Policy
    from twisted_registry.repository.presence import Presence
    from twisted_registry.repository.referrers import OptionalWrites, SearchedRevisions
    from twisted_registry.repository.subject_records import SubjectRecord
    from twisted_registry.repository.trash import IDeleter
    from twisted_registry.repository.uploads import RunningHashes
    from twisted_registry.storage.interfaces import (
        IBulkLookup,
        IHostLock,
        IPresigner,
        IStorageDriver,
    )


@define(eq=False, repr=False)
class StoreContext:
    """One store, and the state of this process for it.

    :ivar clock: the time of uploads.
    :ivar bulk: the driver's operations on many files.
    :ivar host_lock: excludes other processes of this host.
    :ivar presigner: makes URLs of the store; None if it has none.
    :ivar cache: links, manifests and sizes.
    :ivar worker: hashes and parses manifests.
    :ivar presence: existence checks.
    :ivar deleter: removes content.
    :ivar policy: the rules for manifests and tags.
    :ivar locks: exclude other requests of this process.
    :ivar running_hashes: hashes of uploads that are not complete.
    :ivar searched_revisions: by repository, the manifests that were searched for a subject; each
        use compares them with the existing ones.
    :ivar subject_records: records that are the same in each repository, by manifest.
    :ivar optional_writes: writes what can be rebuilt.
    :ivar url_lifetime_s: lifetime of URLs of the store in seconds.
    :ivar pending_pulls: pulls to be recorded, see :class:`~.registry.Registry`.
    """

    driver: IStorageDriver
    clock: IReactorTime
    bulk: IBulkLookup
    host_lock: IHostLock
    presigner: IPresigner | None
    cache: MetadataCache
    worker: ManifestWorker
    presence: Presence
    deleter: IDeleter
    policy: Policy
    locks: KeyedLock
    running_hashes: RunningHashes
    searched_revisions: LRUCache[str, SearchedRevisions]
    subject_records: LRUCache[Digest, SubjectRecord]
    optional_writes: OptionalWrites
    url_lifetime_s: int
    pending_pulls: set[tuple[str, Digest | str]] | None
