"""Folders that hold marked ones, at any depth, without a walk through the tree.

The keys of a repository go on with ``/_layers/`` or ``/_manifests/`` behind its name. A listing
whose delimiter is ``/_`` answers one line for all that begins alike up to there: the names of up
to a thousand repositories at any depth, each of which is then looked at by a listing of its own.
That a delimiter may have two characters is so on AWS, Ceph and Swift. A store that takes only a
slash, or only the first of them, is told by its error or its answer.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from attrs import define, field
from twisted.internet.defer import inlineCallbacks

from twisted_registry.storage.paths import is_path
from twisted_registry.storage.s3.copying import at_once
from twisted_registry.storage.s3.errors import S3Error, Unsupported
from twisted_registry.storage.s3.listing import xml_safe_prefix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted_registry.storage.s3.interfaces import IS3Client
    from twisted_registry.storage.s3.objects import ObjectListing
    from twisted_registry.storage.s3.sinks import DeferredGenerator

#: Lines of an answer of the store: the most that any gives.
_PAGE_KEYS: Final = 1000
#: Folders of one with marks that are asked for: the marks are among the first.
_MAX_MARKERS: Final = 8

#: The statuses of those who do not know a delimiter.
_REFUSALS: Final = frozenset({400, 405, 501})


class _DelimiterUnsupported(Exception):
    """The store did not group as it was asked to."""


@define(eq=False)
class _GroupedNames:
    """Those that a store listed, and which of them still count.

    :ivar prefix: of the keys.
    :ivar sign: what all marks begin with.
    :ivar after: names up to this are left out.
    :ivar known: names that were listed and not looked at, in no order.
    :ivar judged: names that were looked at.
    :ivar last: the last key that was listed, behind the prefix.
    :ivar grouped: whether the store has shown that it takes the delimiter.
    :ivar token: of what follows; empty at the end, and before the beginning.
    """

    prefix: str
    sign: str
    after: str
    known: set[str] = field(factory=set)
    checked: set[str] = field(factory=set)
    last: str = ""
    delimiter_works: bool = False
    token: str = ""

    def add(self, listing: ObjectListing) -> None:
        """Take what the store listed."""
        ending = f"/{self.sign}"
        for key in listing.prefixes:
            if not key.endswith(ending):
                raise _DelimiterUnsupported
            self.delimiter_works = True
            self.last = max(self.last, key[len(self.prefix) :])
            name = key[len(self.prefix) : -len(ending)]
            if name > self.after and is_path(name) and name not in self.checked:
                self.known.add(name)
        for info in listing.objects:
            if ending in info.key[len(self.prefix) :]:
                raise _DelimiterUnsupported
            self.last = max(self.last, info.key[len(self.prefix) :])
        self.token = listing.token

    def take(self, wanted: int) -> list[str]:
        """The next names to look at, which do not count as known any more."""
        names = sorted(self.known)[:wanted]
        if names and self.token:
            # Smaller ones that are listed later: "a" after "a-b", "a.b" and "a/1".
            last = names[-1]
            names += [
                start
                for start in (last[:end] for end in range(1, len(last)))
                if start > self.after
                and f"{start}/{self.sign}" > self.last
                and start not in self.checked
                and is_path(start)
            ]
        self.known.difference_update(names)
        self.checked.update(names)
        return names


@define(eq=False)
class MarkerListing:
    """Finds them in one bucket.

    :ivar limit: requests that are under way at once.
    """

    _client: IS3Client
    _limit: int
    _delimiter_supported: bool | None = field(init=False, default=None)

    @inlineCallbacks
    def page(self, prefix: str, sign: str, marks: Sequence[str], after: str, limit: int) -> DeferredGenerator:
        """Fire with names, whether there may be more; or with None, if the store can not do that.

        :param prefix: of all keys.
        :param sign: what the marks begin with, and no folder that holds others.
        :param marks: the names of folders of which one is enough.
        :param after: only names greater than this.
        :param limit: at most so many, and at least 1.
        """
        if self._delimiter_supported is False:
            return None
        names = _GroupedNames(prefix, sign, after)
        try:
            yield self._list(names)
        except _DelimiterUnsupported:
            self._delimiter_supported = False
        except S3Error as error:
            # Stores have many words for what they do not know.
            if type(error) not in (S3Error, Unsupported) or error.status not in _REFUSALS:
                raise
            self._delimiter_supported = False
        else:
            self._delimiter_supported = self._delimiter_supported or names.delimiter_works or None
        if not self._delimiter_supported:
            # An answer without anything may be one to what was not understood.
            return None
        found: list[str] = []
        while len(found) < limit:
            while names.token and len(names.known) < limit - len(found):
                yield self._list(names)
            taken = names.take(limit - len(found))
            if not taken:
                break
            looks = [partial(self._has_marker, f"{prefix}{name}/", sign, marks) for name in taken]
            held = yield at_once(self._limit, looks)
            found += [name for name, marked in zip(taken, held, strict=True) if marked]
        found.sort()
        return found[:limit], bool(names.known or names.token or len(found) > limit)

    @inlineCallbacks
    def _list(self, names: _GroupedNames) -> DeferredGenerator:
        beginning = names.prefix + xml_safe_prefix(names.after) if names.after else ""
        delimiter = f"/{names.sign}"
        listing = yield self._client.list_objects(
            names.prefix,
            delimiter=delimiter,
            after=beginning,
            token=names.token,
            limit=_PAGE_KEYS,
        )
        names.add(listing)

    @inlineCallbacks
    def _has_marker(self, folder: str, sign: str, marks: Sequence[str]) -> DeferredGenerator:
        listing = yield self._client.list_objects(folder + sign, delimiter="/", limit=_MAX_MARKERS)
        return any(f"{folder}{mark}/" in listing.prefixes for mark in marks)
