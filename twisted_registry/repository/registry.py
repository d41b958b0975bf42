"""A registry: repositories over one storage driver, without HTTP."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from typing import TYPE_CHECKING

from twisted_registry.errors import ErrorCode, RegistryError
from twisted_registry.repository import catalog, layout
from twisted_registry.repository.blobs import Blobs
from twisted_registry.repository.concurrency import KeyedLock
from twisted_registry.repository.descriptors import NoDescriptors
from twisted_registry.repository.disposal import Disposal
from twisted_registry.repository.failures import translated
from twisted_registry.repository.interfaces import (
    Announcer,
    IPresenceGate,
    IRegistryListener,
    NoListener,
    Origin,
)
from twisted_registry.repository.manifests import Manifests
from twisted_registry.repository.policy import Policy
from twisted_registry.repository.presence import OpenGate, Presence
from twisted_registry.repository.recent import CONTENT_LIMIT, Recent
from twisted_registry.repository.referrers import Referrers, Searched
from twisted_registry.repository.running import RunningDigests
from twisted_registry.repository.tags import Tags
from twisted_registry.repository.uploads import Uploads
from twisted_registry.storage.interfaces import MethodUnsupported, PathExists, PathNotFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from twisted.internet.interfaces import IReactorTime

    from twisted_registry.digest import Digest
    from twisted_registry.repository.abandoned import AbandonedUpload
    from twisted_registry.repository.deletion import Deleted
    from twisted_registry.repository.descriptors import IDescriptorCache
    from twisted_registry.storage.interfaces import IStorageDriver

_NOBODY = Origin()
#: Bytes of the text of an upload secret that are asked for, and that make one at least.
SECRET_LENGTH = 32
#: Repositories whose parts are kept for the next request.
_REMEMBERED = 1000
#: Seconds for which a redirect to the store is good, as in Distribution.
URL_LIFETIME = 20 * 60


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
        url_lifetime: int = URL_LIFETIME,
        content_limit: int = CONTENT_LIMIT,
        pulls: set[tuple[str, Digest | str]] | None = None,
        disposal: Disposal | None = None,
        descriptors: IDescriptorCache | None = None,
    ) -> None:
        self.driver = driver
        self.clock = clock
        self.policy = Policy() if policy is None else policy
        self.gate = OpenGate() if gate is None else gate
        self.listener = NoListener() if listener is None else listener
        self._secret = secret
        self.url_lifetime = url_lifetime
        self.content_limit = content_limit
        self.pulls = pulls
        self.disposal = Disposal(self.driver) if disposal is None else disposal
        self.descriptors = NoDescriptors() if descriptors is None else descriptors
        self.announces = not isinstance(self.listener, NoListener)
        self._recent = Recent(self.driver, self.content_limit, descriptors=self.descriptors)
        self._running = RunningDigests()
        self._searched = Searched()
        self._locks = KeyedLock()
        self._unheard: OrderedDict[str, Repository] = OrderedDict()

    @property
    def minimum_chunk(self) -> int:
        """Bytes that each chunk of an upload but the last should have; 0 if any will do."""
        return self.driver.minimum_chunk

    def repository(self, name: str, origin: Origin = _NOBODY) -> Repository:
        """The repository of a name that the caller has checked; it need not exist.

        :param origin: who is to be named in the events of what is done through it.
        """
        if self.announces:
            return self._repository(name, origin)
        # Nobody hears who did what: one will do for all.
        kept = self._unheard.get(name)
        if kept is None:
            kept = self._unheard[name] = self._repository(name, _NOBODY)
            if len(self._unheard) > _REMEMBERED:
                self._unheard.popitem(last=False)
        return kept

    def _repository(self, name: str, origin: Origin) -> Repository:
        announce = Announcer(self.listener, name, origin)
        presence = Presence(self._recent, self.gate)
        if self.disposal.remembers:
            # Few have a trash.
            from twisted_registry.repository.recall import Recall  # noqa: PLC0415

            presence.recall = Recall(self.driver)
        disposal = self.disposal
        tags = Tags(
            self.driver,
            self._recent,
            self._locks,
            disposal,
            name,
            announce,
            self.policy.immutable,
        )
        referrers = Referrers(self.driver, self._searched, self._locks, name)
        blobs = Blobs(self.driver, presence, disposal, name, announce, self.url_lifetime)
        return Repository(
            self.driver,
            name,
            blobs,
            Uploads(self.driver, self.clock, name, blobs, self._running),
            Manifests(
                self.driver,
                self._recent,
                presence,
                self.policy,
                tags,
                referrers,
                disposal,
                name,
                announce,
                self.pulls,
            ),
            tags,
            referrers,
        )

    async def catalog(self, after: str, limit: int) -> tuple[list[str], bool]:
        """One page of repository names, and whether there may be more, see :func:`catalog.shown`.

        :param after: only names greater than this, in the order of whole names.
        """
        return await catalog.shown(self.driver, after, limit)

    def abandoned_uploads(self, before: float) -> AsyncIterator[AbandonedUpload]:
        """Find the uploads that were last touched before a time.

        :param before: seconds since the epoch.
        """
        # First asked for minutes after the start.
        from twisted_registry.repository.abandoned import abandoned_uploads  # noqa: PLC0415

        return abandoned_uploads(self.driver, before)

    @translated
    async def sweep(self, before: float) -> int:
        """Remove what crashes of the store's own calls have left; return how many there were.

        :param before: seconds since the epoch; what changed later stays.
        """
        return await self.driver.sweep(before)

    @translated
    async def upload_secret(self) -> bytes:
        """The key that signs the state in an upload's URL, the same for all who share the store.

        Without one of the operator's, the first who needs it makes one and keeps it in the
        store; so an upload goes on after a restart and on any process.
        """
        if self._secret is None:
            self._secret = await self._kept_secret()
        return self._secret

    async def _kept_secret(self) -> bytes:
        secret = secrets.token_hex(SECRET_LENGTH).encode("ascii")
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
        if len(kept) < SECRET_LENGTH:
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

    async def delete(self, progress: Callable[[Deleted], object] = lambda _: None) -> Deleted:
        """Remove all that it holds; repositories below it stay.

        :param progress: told again and again what is gone so far.
        :raises RegistryError: NAME_UNKNOWN, DENIED if a tag is immutable, UNAVAILABLE if clients
            push to it all the time.
        """
        if not await self.exists():
            raise RegistryError(ErrorCode.NAME_UNKNOWN, detail={"name": self.name})
        # Few repositories are ever deleted.
        from twisted_registry.repository.deletion import Deletion  # noqa: PLC0415

        return await Deletion(self.driver, self.name, self.tags, self.uploads, progress).run()
