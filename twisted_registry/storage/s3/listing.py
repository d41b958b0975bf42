"""Names in a folder, in the order of the names.

A store lists keys in the order of their bytes, and a folder's key ends with a slash: so ``a-b``
comes before ``a/``, though ``a`` is the smaller name. A page is cut where no folder that is yet
to come could belong before its end; the few that could are asked for by name.

Folders that hold marked ones, at any depth, without a walk through the tree.

The keys of a repository go on with ``/_layers/`` or ``/_manifests/`` behind its name. A listing
whose delimiter is ``/_`` answers one line for all that begins alike up to there: the names of up
to a thousand repositories at any depth, each of which is then looked at by a listing of its own.
That a delimiter may have two characters is so on AWS, Ceph and Swift. A store that takes only a
slash, or only the first of them, is told by its error or its answer.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Final

from attrs import define, field
from twisted.internet.defer import inlineCallbacks

from twisted_registry.storage.interfaces import Entry, is_name, is_path
from twisted_registry.storage.s3.errors import NotFound, S3Error, Unsupported
from twisted_registry.storage.s3.files import at_once, is_driver_internal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted_registry.storage.s3.interfaces import IS3Client, ObjectListing
    from twisted_registry.storage.s3.sinks import DeferredGenerator

#: Keys in an answer of the store.
_PAGE_KEYS = 1000
#: Keys that are asked for beyond those that are wanted, for what is skipped.
_EXTRA_KEYS = 8
#: Folders that are asked for by name at once.
_MAX_CONCURRENT_LOOKUPS = 8
#: Characters of XML, as many as fit into any key.
_XML_SAFE = re.compile(r"[ -~\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]{0,200}")


@define(eq=False)
class _FolderPage:
    """What lies in a folder, as far as it was listed.

    :ivar prefix: of the keys in the folder.
    :ivar after: names up to this are left out.
    :ivar holding: what a folder must hold to be of interest; empty takes all, and files too.
    :ivar last: the last key that was listed, behind the prefix.
    :ivar anything: whether the store knows any key of the folder.
    """

    prefix: str
    after: str
    holding: str = ""
    entries: dict[str, Entry] = field(factory=dict)
    last: str = ""
    exists: bool = False

    def add(self, listing: ObjectListing) -> None:
        """Take what the store listed."""
        for key in listing.prefixes:
            self._note_key(key)
            self._take(Entry(key[len(self.prefix) : -1], None))
        for info in listing.objects:
            self._note_key(info.key)
            name = info.key[len(self.prefix) :]
            if not self.holding:
                self._take(Entry(name, info.size, info.modified))
                continue
            folder, _, rest = name.partition("/")
            if rest == self.holding and info.size:
                self._take(Entry(folder, None))

    def _note_key(self, key: str) -> None:
        self.exists = True
        self.last = max(self.last, key[len(self.prefix) :])

    def _take(self, entry: Entry) -> None:
        if entry.path > self.after and is_name(entry.path):
            self.entries[entry.path] = entry

    def first(self, limit: int) -> list[Entry]:
        """The first entries by name."""
        return [self.entries[name] for name in sorted(self.entries)[:limit]]

    def unlisted_candidates(self, name: str) -> list[str]:
        """Names before ``name`` that folders might have which were not listed yet."""
        starts = (name[:end] for end in range(1, len(name)) if name[end] < "/")
        return [
            start
            for start in starts
            if start > self.after
            and f"{start}/{self.holding}" > self.last
            and start not in self.entries
        ]


@inlineCallbacks
def list_folder(client: IS3Client, prefix: str, after: str, limit: int) -> DeferredGenerator:
    """Fire with the entries of a folder, sorted by name; None if there is no such folder.

    Behind ``after`` a folder that is not there is one that ends.

    :param prefix: of its keys.
    :param after: only names greater than this.
    :param limit: at most so many.
    """
    page = _FolderPage(prefix, after)
    found = yield _fill_page(client, page, limit, "/")
    return found


@inlineCallbacks
def list_folders(client: IS3Client, prefix: str, after: str, limit: int) -> DeferredGenerator:
    """Fire with the names of the folders in a folder, sorted; None if there is no such folder.

    The arguments are those of :func:`list_folder`.
    """
    names: list[str] = []
    while len(names) < limit:
        wanted = limit - len(names)
        entries = yield list_folder(client, prefix, after, wanted)
        if entries is None:
            return None
        names += [entry.path for entry in entries if entry.is_folder]
        if len(entries) < wanted:
            break
        after = entries[-1].path
    return names


@inlineCallbacks
def list_folders_with_file(
    client: IS3Client, prefix: str, holding: str, after: str, limit: int
) -> DeferredGenerator:
    """Fire with those folders in a folder that hold a file with bytes, as :func:`list_folder`.

    All keys below are listed, which are few in each folder: one answer tells of hundreds of
    folders, where to ask for each would take hundreds.

    :param holding: the path of the file inside them.
    """
    page = _FolderPage(prefix, after, holding)
    found = yield _fill_page(client, page, limit, "")
    return found


@inlineCallbacks
def _fill_page(
    client: IS3Client, page: _FolderPage, limit: int, delimiter: str
) -> DeferredGenerator:
    after = page.prefix + xml_safe_prefix(page.after) if page.after else ""
    size = min(_PAGE_KEYS, limit + _EXTRA_KEYS) if delimiter else _PAGE_KEYS
    listing = yield client.list_objects(page.prefix, delimiter=delimiter, after=after, limit=size)
    page.add(listing)
    while listing.token and len(page.entries) < limit:
        listing = yield client.list_objects(page.prefix, delimiter=delimiter, token=listing.token)
        page.add(listing)
    if listing.token:
        yield _check_candidates(client, page, limit)
    return page.first(limit) if page.exists or after else None


@inlineCallbacks
def _check_candidates(client: IS3Client, page: _FolderPage, limit: int) -> DeferredGenerator:
    """Ask for the folders that belong to the page and are listed behind it."""
    asked: set[str] = set()
    while True:
        last = page.first(limit)[-1].path
        names = [name for name in page.unlisted_candidates(last) if name not in asked]
        if not names:
            return
        asked.update(names)
        yield at_once(
            _MAX_CONCURRENT_LOOKUPS, [partial(_check_folder, client, page, name) for name in names]
        )


@inlineCallbacks
def _check_folder(client: IS3Client, page: _FolderPage, name: str) -> DeferredGenerator:
    folder = f"{page.prefix}{name}/"
    if page.holding:
        try:
            there = (yield client.head_object(folder + page.holding)).size > 0
        except NotFound:
            there = False
    else:
        there = bool((yield client.list_objects(folder, limit=1)).objects)
    if there:
        page.entries[name] = Entry(name, None)


def xml_safe_prefix(after: str) -> str:
    """The beginning of a name that any store takes: what is skipped too little is left out here.

    Stores answer with what they were asked, also if it can not stand in a document.
    """
    match = _XML_SAFE.match(after)
    assert match is not None
    return match[0]


@inlineCallbacks
def walk_objects(
    client: IS3Client, root: str, prefix: str, after: str, limit: int
) -> DeferredGenerator:
    """Fire with the files whose keys begin with ``prefix``, sorted by path.

    :param root: of all keys: what the paths do not hold.
    :param after: only paths greater than this.
    :param limit: at most so many.
    """
    found: list[Entry] = []
    token = ""
    while True:
        listing = yield client.list_objects(
            prefix,
            after=root + xml_safe_prefix(after) if after else "",
            token=token,
            limit=_PAGE_KEYS,
        )
        for info in listing.objects:
            path = info.key[len(root) :]
            # An empty object that stands for a folder is none of ours.
            if path > after and not is_driver_internal(path) and not path.endswith("/"):
                found.append(Entry(path, info.size, info.modified))
        token = listing.token
        if not token or len(found) >= limit:
            return found[:limit]


#: Lines of an answer of the store: the most that any gives.
_PAGE_KEYS_MARKED: Final = 1000
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
    def page(
        self, prefix: str, sign: str, marks: Sequence[str], after: str, limit: int
    ) -> DeferredGenerator:
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
            limit=_PAGE_KEYS_MARKED,
        )
        names.add(listing)

    @inlineCallbacks
    def _has_marker(self, folder: str, sign: str, marks: Sequence[str]) -> DeferredGenerator:
        listing = yield self._client.list_objects(folder + sign, delimiter="/", limit=_MAX_MARKERS)
        return any(f"{folder}{mark}/" in listing.prefixes for mark in marks)
