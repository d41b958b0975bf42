"""Names in a folder, in the order of the names.

A store lists keys in the order of their bytes, and a folder's key ends with a slash: so ``a-b``
comes before ``a/``, though ``a`` is the smaller name. A page is cut where no folder that is yet
to come could belong before its end; the few that could are asked for by name.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from attrs import define, field
from twisted.internet.defer import inlineCallbacks

from twisted_registry.storage.interfaces import Entry
from twisted_registry.storage.paths import is_name
from twisted_registry.storage.s3.copying import at_once
from twisted_registry.storage.s3.errors import NotFound
from twisted_registry.storage.s3.keys import is_driver_internal

if TYPE_CHECKING:
    from twisted_registry.storage.s3.interfaces import IS3Client
    from twisted_registry.storage.s3.objects import ObjectListing
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
def list_folders_with_file(client: IS3Client, prefix: str, holding: str, after: str, limit: int) -> DeferredGenerator:
    """Fire with those folders in a folder that hold a file with bytes, as :func:`list_folder`.

    All keys below are listed, which are few in each folder: one answer tells of hundreds of
    folders, where to ask for each would take hundreds.

    :param holding: the path of the file inside them.
    """
    page = _FolderPage(prefix, after, holding)
    found = yield _fill_page(client, page, limit, "")
    return found


@inlineCallbacks
def _fill_page(client: IS3Client, page: _FolderPage, limit: int, delimiter: str) -> DeferredGenerator:
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
        yield at_once(_MAX_CONCURRENT_LOOKUPS, [partial(_check_folder, client, page, name) for name in names])


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
def walk_objects(client: IS3Client, root: str, prefix: str, after: str, limit: int) -> DeferredGenerator:
    """Fire with the files whose keys begin with ``prefix``, sorted by path.

    :param root: of all keys: what the paths do not hold.
    :param after: only paths greater than this.
    :param limit: at most so many.
    """
    found: list[Entry] = []
    token = ""
    while True:
        listing = yield client.list_objects(
            prefix, after=root + xml_safe_prefix(after) if after else "", token=token, limit=_PAGE_KEYS
        )
        for info in listing.objects:
            path = info.key[len(root) :]
            # An empty object that stands for a folder is none of ours.
            if path > after and not is_driver_internal(path) and not path.endswith("/"):
                found.append(Entry(path, info.size, info.modified))
        token = listing.token
        if not token or len(found) >= limit:
            return found[:limit]
