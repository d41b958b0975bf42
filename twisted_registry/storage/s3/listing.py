"""Listings of folders, of all files below a folder, and of folders that contain markers.

A store lists keys in byte order, and the common prefix of a folder ends with a slash. Therefore
``a-b`` is listed before ``a/``, although the name ``a`` sorts first. A page ends where no folder
that is listed later could sort before its end; the few names that could are looked up one by one.

Marker listing finds folders at any depth without a walk. The keys of a repository continue with
``/_layers/`` or ``/_manifests/`` after its name. A listing with the delimiter ``/_`` returns one
common prefix for each repository, up to 1000 at any depth, and each is then checked by another
listing. AWS, Ceph and Swift support delimiters of two characters. A store that accepts only a
slash, or uses only the first character, is recognized by its error or its response.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Final

from attrs import define, field
from twisted.internet.defer import Deferred, inlineCallbacks

from twisted_registry.storage.interfaces import Entry, is_name, is_path
from twisted_registry.storage.s3.errors import NotFound, S3Error, Unsupported
from twisted_registry.storage.s3.files import gather_limited, is_driver_internal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted_registry.storage.s3.interfaces import (
        DeferredGenerator,
        IS3Client,
        ObjectListing,
    )

#: Keys and prefixes in a page: the maximum of S3.
_PAGE_KEYS: Final = 1000
#: Additional keys to request, since some are skipped.
_EXTRA_KEYS: Final = 8
#: Folders that are looked up at the same time.
_MAX_CONCURRENT_LOOKUPS: Final = 8
#: Characters that XML can contain, as many as fit into any key.
_XML_SAFE: Final = re.compile(r"[ -~\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]{0,200}")


@define(eq=False)
class _FolderPage:
    """The entries of a folder that were listed so far.

    :ivar prefix: of the keys in the folder.
    :ivar after: only names greater than this.
    :ivar required_file: select only subfolders that contain a file of this path that is not
        empty; "" selects all entries.
    :ivar entries: by name.
    :ivar last: the last listed key, without the prefix.
    :ivar exists: whether the folder has any key.
    """

    prefix: str
    after: str
    required_file: str = ""
    entries: dict[str, Entry] = field(factory=dict)
    last: str = ""
    exists: bool = False

    def add(self, listing: ObjectListing) -> None:
        """Add a page of the store."""
        for key in listing.prefixes:
            self._note_key(key)
            self._take(Entry(key[len(self.prefix) : -1], None))
        for info in listing.objects:
            self._note_key(info.key)
            name = info.key[len(self.prefix) :]
            if not self.required_file:
                self._take(Entry(name, info.size, info.modified))
                continue
            folder, _, rest = name.partition("/")
            if rest == self.required_file and info.size:
                self._take(Entry(folder, None))

    def _note_key(self, key: str) -> None:
        self.exists = True
        self.last = max(self.last, key[len(self.prefix) :])

    def _take(self, entry: Entry) -> None:
        if entry.path > self.after and is_name(entry.path):
            self.entries[entry.path] = entry

    def first(self, limit: int) -> list[Entry]:
        """Return the first entries by name."""
        return [self.entries[name] for name in sorted(self.entries)[:limit]]

    def unlisted_candidates(self, name: str) -> list[str]:
        """Return prefixes of ``name`` that may be folders which were not listed yet."""
        starts = (name[:end] for end in range(1, len(name)) if name[end] < "/")
        return [
            start
            for start in starts
            if start > self.after
            and f"{start}/{self.required_file}" > self.last
            and start not in self.entries
        ]


def list_folder(
    client: IS3Client, prefix: str, after: str, limit: int
) -> Deferred[list[Entry] | None]:
    """Fire with the entries of a folder, sorted by name; None if the folder does not exist.

    With ``after``, a missing folder has no entries.

    :param prefix: of the keys in the folder.
    :param after: only names greater than this.
    :param limit: maximum number of entries.
    """
    return _fill_page(client, _FolderPage(prefix, after), limit, "/")


@inlineCallbacks
def list_folders(
    client: IS3Client, prefix: str, after: str, limit: int
) -> DeferredGenerator[list[str] | None]:
    """Fire with the names of the subfolders, sorted; None if the folder does not exist.

    The arguments are those of :func:`list_folder`.
    """
    names: list[str] = []
    while len(names) < limit:
        wanted = limit - len(names)
        entries: list[Entry] | None = yield list_folder(client, prefix, after, wanted)
        if entries is None:
            return None
        names += [entry.path for entry in entries if entry.is_folder]
        if len(entries) < wanted:
            break
        after = entries[-1].path
    return names


def list_folders_with_file(
    client: IS3Client, prefix: str, required_file: str, after: str, limit: int
) -> Deferred[list[Entry] | None]:
    """Fire with the subfolders that contain a file that is not empty, as :func:`list_folder`.

    All keys below the folder are listed. Subfolders have few keys, so that one page covers hundreds
    of them, which would otherwise need a request each.

    :param required_file: path of the file in the subfolder.
    """
    return _fill_page(client, _FolderPage(prefix, after, required_file), limit, "")


@inlineCallbacks
def _fill_page(
    client: IS3Client, page: _FolderPage, limit: int, delimiter: str
) -> DeferredGenerator[list[Entry] | None]:
    """List until the page is full; fire with its entries, None if the folder does not exist."""
    after = page.prefix + xml_safe_prefix(page.after) if page.after else ""
    size = min(_PAGE_KEYS, limit + _EXTRA_KEYS) if delimiter else _PAGE_KEYS
    listing: ObjectListing = yield client.list_objects(
        page.prefix, delimiter=delimiter, after=after, limit=size
    )
    page.add(listing)
    while listing.token and len(page.entries) < limit:
        listing = yield client.list_objects(page.prefix, delimiter=delimiter, token=listing.token)
        page.add(listing)
    if listing.token:
        yield _check_candidates(client, page, limit)
    return page.first(limit) if page.exists or after else None


@inlineCallbacks
def _check_candidates(client: IS3Client, page: _FolderPage, limit: int) -> DeferredGenerator[None]:
    """Look up folders that belong to the page but are listed after it."""
    checked: set[str] = set()
    while True:
        last = page.first(limit)[-1].path
        names = [name for name in page.unlisted_candidates(last) if name not in checked]
        if not names:
            return
        checked.update(names)
        yield gather_limited(
            _MAX_CONCURRENT_LOOKUPS, [partial(_check_folder, client, page, name) for name in names]
        )


@inlineCallbacks
def _check_folder(client: IS3Client, page: _FolderPage, name: str) -> DeferredGenerator[None]:
    """Add a folder to the page if it exists, and contains the required file."""
    folder = f"{page.prefix}{name}/"
    if page.required_file:
        try:
            exists = (yield client.head_object(folder + page.required_file)).size > 0
        except NotFound:
            exists = False
    else:
        exists = bool((yield client.list_objects(folder, limit=1)).objects)
    if exists:
        page.entries[name] = Entry(name, None)


def xml_safe_prefix(after: str) -> str:
    """Return the beginning of a name that XML can contain.

    Stores repeat ``start-after`` in the response. A shorter value lists more keys, which the caller
    skips.
    """
    match = _XML_SAFE.match(after)
    assert match is not None
    return match[0]


@inlineCallbacks
def walk_objects(
    client: IS3Client, root: str, prefix: str, after: str, limit: int
) -> DeferredGenerator[Sequence[Entry]]:
    """Fire with the files whose keys begin with ``prefix``, sorted by path.

    :param root: prefix of all keys, which paths do not contain.
    :param after: only paths greater than this.
    :param limit: maximum number of files.
    """
    found: list[Entry] = []
    token = ""
    while True:
        listing: ObjectListing = yield client.list_objects(
            prefix,
            after=root + xml_safe_prefix(after) if after else "",
            token=token,
            limit=_PAGE_KEYS,
        )
        for info in listing.objects:
            path = info.key[len(root) :]
            # Other programs store empty objects with a trailing slash for folders.
            if path > after and not is_driver_internal(path) and not path.endswith("/"):
                found.append(Entry(path, info.size, info.modified))
        token = listing.token
        if not token or len(found) >= limit:
            return found[:limit]


#: Prefixes to request of a folder: its markers are among the first.
_MAX_MARKERS: Final = 8

#: Statuses of stores that do not support the delimiter.
_REFUSALS: Final = frozenset({400, 405, 501})


class _DelimiterUnsupported(Exception):
    """Raised if the response is not grouped by the delimiter."""


@define(eq=False)
class _GroupedNames:
    """Names of folders from a listing with a delimiter.

    :ivar prefix: of the keys.
    :ivar sign: prefix of the names of all markers.
    :ivar after: only names greater than this.
    :ivar known: listed names that were not checked for markers yet.
    :ivar checked: names that were checked.
    :ivar last: the last listed key, without the prefix.
    :ivar delimiter_works: whether a response was grouped by the delimiter.
    :ivar token: continuation token; empty at the end and before the first page.
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
        """Add a page of the store."""
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

    def take(self, count: int) -> list[str]:
        """Return the next names to check: known ones up to ``count``, and unlisted ones before."""
        names = sorted(self.known)[:count]
        if names and self.token:
            # Smaller names may be listed later: "a" after "a-b", "a.b" and "a/1".
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
    """Finds folders that contain markers.

    :ivar max_concurrent: maximum number of pending requests.
    """

    _client: IS3Client
    _max_concurrent: int
    _delimiter_supported: bool | None = field(init=False, default=None)

    @inlineCallbacks
    def page(
        self, prefix: str, sign: str, marks: Sequence[str], after: str, limit: int
    ) -> DeferredGenerator[tuple[Sequence[str], bool] | None]:
        """Fire with names and whether there may be more; None if the store cannot group names.

        :param prefix: of all keys.
        :param sign: prefix of the names of all markers, and of no other folder that contains
            subfolders.
        :param marks: names of the markers; a folder must contain one of them.
        :param after: only names greater than this.
        :param limit: maximum number of names, at least 1.
        """
        if self._delimiter_supported is False:
            return None
        names = _GroupedNames(prefix, sign, after)
        try:
            yield self._list(names)
        except _DelimiterUnsupported:
            self._delimiter_supported = False
        except S3Error as error:
            # Stores report unsupported parameters with different codes.
            if type(error) not in (S3Error, Unsupported) or error.status not in _REFUSALS:
                raise
            self._delimiter_supported = False
        else:
            self._delimiter_supported = self._delimiter_supported or names.delimiter_works or None
        if not self._delimiter_supported:
            # An empty response may also come from a store that ignores the delimiter.
            return None
        found: list[str] = []
        while len(found) < limit:
            while names.token and len(names.known) < limit - len(found):
                yield self._list(names)
            taken = names.take(limit - len(found))
            if not taken:
                break
            checks = [partial(self._has_marker, f"{prefix}{name}/", sign, marks) for name in taken]
            has_marker: Sequence[bool] = yield gather_limited(self._max_concurrent, checks)
            found += [name for name, marked in zip(taken, has_marker, strict=True) if marked]
        found.sort()
        return found[:limit], bool(names.known or names.token or len(found) > limit)

    @inlineCallbacks
    def _list(self, names: _GroupedNames) -> DeferredGenerator[None]:
        after = names.prefix + xml_safe_prefix(names.after) if names.after else ""
        delimiter = f"/{names.sign}"
        listing: ObjectListing = yield self._client.list_objects(
            names.prefix,
            delimiter=delimiter,
            after=after,
            token=names.token,
            limit=_PAGE_KEYS,
        )
        names.add(listing)

    @inlineCallbacks
    def _has_marker(self, folder: str, sign: str, marks: Sequence[str]) -> DeferredGenerator[bool]:
        listing: ObjectListing = yield self._client.list_objects(
            folder + sign, delimiter="/", limit=_MAX_MARKERS
        )
        return any(f"{folder}{mark}/" in listing.prefixes for mark in marks)
