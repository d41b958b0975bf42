"""Every link of every repository, and what each manifest needs."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from attrs import define, field

from twisted_registry.manifest import is_media_type
from twisted_registry.repository import layout
from twisted_registry.repository.checking.damage import Finding, Kind, Severity
from twisted_registry.repository.checking.placing import Place, What, placed
from twisted_registry.repository.checking.tagging import TagCheck
from twisted_registry.repository.checking.trouble import Trouble
from twisted_registry.repository.checking.walking import files
from twisted_registry.storage.interfaces import PathNotFound, StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from twisted_registry.digest import Digest
    from twisted_registry.repository.checking.links import Links
    from twisted_registry.repository.checking.parts import Parts
    from twisted_registry.repository.checking.trouble import AffectedTag
    from twisted_registry.repository.inventory import Inventory
    from twisted_registry.storage.interfaces import Entry

#: Manifests that are read at once, and bytes of one.
_READ = 64
_LIMIT = 64 * 1024 * 1024


@define(eq=False)
class Repositories:
    """The repositories of a store, one after the other.

    :ivar entering: told the name of each.
    :ivar affected: told of each tag that can not be pulled whole.
    """

    links: Links
    parts: Parts
    inventory: Inventory
    entering: Callable[[str], object]
    affected: Callable[[AffectedTag], object]
    _state: Trouble | None = field(init=False, default=None)

    async def findings(self) -> AsyncIterator[Finding]:
        """Yield all that is wrong. What is repaired before the next is asked for is seen so."""
        async for page in files(self.links.driver, layout.REPOSITORIES):
            if isinstance(page, Finding):
                yield page
                continue
            async for finding in self._page(page):
                yield finding
        async for finding in self._end():
            yield finding

    async def _page(self, page: Sequence[Entry]) -> AsyncIterator[Finding]:
        """The files of a repository lie together: its own names alone begin with ``_``."""
        places = []
        for entry in page:
            place = placed(entry.path)
            if place is None:
                yield Finding(Kind.FILE_STRAY, entry.path, "nothing looks for it there")
            else:
                places.append(place)
        for name, of_one in groupby(places, lambda place: place.repository):
            if self._state is None or self._state.name != name:
                async for finding in self._end():
                    yield finding
                self._state = Trouble(name)
                self.entering(name)
            for what, group in groupby(of_one, _together):
                async for finding in self._group(self._state, what, list(group)):
                    yield finding

    async def _group(
        self, state: Trouble, what: What, places: Sequence[Place]
    ) -> AsyncIterator[Finding]:
        if what is What.LAYER:
            found = self._layers(state, places)
        elif what is What.REVISION:
            state.has_manifests = True
            found = self._revisions(state, places)
        elif what is What.TAG:
            state.has_manifests = True
            if not state.is_complete:
                await state.complete(self.inventory)
            found = TagCheck(self.links, state, self.affected).findings(places)
        elif what is What.REFERRER:
            found = self._referrers(state, places)
        else:
            return
        async for finding in found:
            yield finding

    async def _layers(self, state: Trouble, places: Sequence[Place]) -> AsyncIterator[Finding]:
        read = await self.links.read(places)
        sizes = await self.parts.sizes.of(
            [digest for digest in read if digest is not None and not isinstance(digest, Finding)]
        )
        for place, held in zip(places, read, strict=True):
            assert place.digest is not None
            target = _asks(self.links.has_bytes, place.digest)
            if isinstance(held, Finding):
                yield await self.links.mended(held, place, target)
            elif (
                held is not None
                and sizes[held] is None
                and held not in self.parts.corrupt
                and await self.links.is_there(place)
            ):
                state.dangling.append(held)

    async def _revisions(self, state: Trouble, places: Sequence[Place]) -> AsyncIterator[Finding]:
        for place in places:
            if place.what is What.MEDIA_TYPE:
                finding = await self._media_type(place)
                if finding is not None:
                    yield finding
        places = [place for place in places if place.what is What.REVISION]
        whole = []
        for place, held in zip(places, await self.links.read(places), strict=True):
            assert place.digest is not None
            if isinstance(held, Finding):
                target = _asks(self.links.has_bytes, place.digest)
                yield await self.links.mended(held, place, target)
            if held is not None and place.digest in self.parts.corrupt:
                state.blame(place.digest, place.digest)
            elif held is not None:
                whole.append(place)
        for start in range(0, len(whole), _READ):
            async for finding in self._manifests(state, whole[start : start + _READ]):
                yield finding

    async def _manifests(self, state: Trouble, places: Sequence[Place]) -> AsyncIterator[Finding]:
        for place in places:
            digest = place.digest
            assert digest is not None
            try:
                content = await self.links.driver.get(layout.blob(digest), _LIMIT)
            except PathNotFound:
                if await self.links.is_there(place):
                    state.lose(digest)
                continue
            except StorageError as error:
                state.blame(digest, digest)
                yield Finding(Kind.FILE_UNREADABLE, layout.blob(digest), error.reason, digest)
                continue
            async for finding, part in self.parts.examine(state.name, digest, content):
                if finding is None or finding.severity is Severity.DAMAGE:
                    state.blame(digest, part)
                if finding is not None:
                    yield finding

    async def _media_type(self, place: Place) -> Finding | None:
        try:
            content = await self.links.driver.get(place.path, _LIMIT)
        except PathNotFound:
            return None
        except StorageError as error:
            return Finding(
                Kind.FILE_UNREADABLE, place.path, error.reason, place.digest, place.repository
            )
        if is_media_type(content.decode("ascii", "replace")):
            return None

        async def repair() -> bool:
            return await self.links.shelf.take(place.path)

        return Finding(
            Kind.TYPE_MALFORMED, place.path, "", place.digest, place.repository,
            repair=repair, silence=place.digest,
        )  # fmt: skip

    async def _referrers(self, state: Trouble, places: Sequence[Place]) -> AsyncIterator[Finding]:
        for place, held in zip(places, await self.links.read(places), strict=True):
            assert place.digest is not None
            target = _asks(state.holder(self.links), place.digest)
            if isinstance(held, Finding):
                yield await self.links.mended(held, place, target)
            elif held is not None and not await target() and await self.links.is_there(place):
                yield self.links.dangling(
                    place, "the repository does not hold it", target, Severity.HARMLESS
                )

    async def _end(self) -> AsyncIterator[Finding]:
        """What is only known when a repository is through."""
        state, self._state = self._state, None
        if state is None:
            return
        missed = state.missed() if state.dangling else set()
        for digest in state.dangling:
            path = layout.layer_link(state.name, digest)
            finding = self._leads_nowhere(Place(What.LAYER, path, state.name, digest))
            # Pushed to any repository, it is here again for the manifests that need it.
            yield finding.kept() if digest in missed else finding
        for digest in sorted(state.lost):
            path = layout.revision_link(state.name, digest)
            finding = self._leads_nowhere(Place(What.REVISION, path, state.name, digest))
            # A tag that names it goes on being reported until somebody pushes or deletes it.
            yield finding.kept() if digest in state.tagged else finding
        if state.has_manifests:
            unmarked = await self._unmarked(state.name)
            if unmarked is not None:
                yield unmarked

    def _leads_nowhere(self, place: Place) -> Finding:
        assert place.digest is not None
        target = _asks(self.links.has_bytes, place.digest)
        return self.links.dangling(place, "its bytes are not in the store", target)

    async def _unmarked(self, name: str) -> Finding | None:
        try:
            await self.links.driver.stat(layout.layers(name))
        except PathNotFound:
            pass
        else:
            return None

        async def repair() -> bool:
            await self.links.driver.put(layout.layers_mark(name), b"")
            return True

        return Finding(
            Kind.REPOSITORY_UNMARKED, layout.repository(name),
            "without _layers Distribution does not list it", repository=name, repair=repair,
        )  # fmt: skip


def _asks(
    question: Callable[[Digest], Awaitable[bool]], digest: Digest
) -> Callable[[], Awaitable[bool]]:
    return lambda: question(digest)


def _together(place: Place) -> What:
    """What is looked at in one go: the files of a revision, and those of a tag, alternate."""
    if place.what is What.MEDIA_TYPE:
        return What.REVISION
    return What.TAG if place.what is What.TAG_INDEX else place.what
