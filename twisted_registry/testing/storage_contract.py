"""Contract tests of storage drivers: one function for each promise of the interfaces.

Authors of drivers run them with a fresh, empty driver and each function of
:data:`STORAGE_CONTRACT`, in any test framework. With pytest and pytest-twisted, and a fixture
``driver``::

    @pytest.mark.parametrize("test", STORAGE_CONTRACT, ids=lambda test: test.__name__)
    @pytest_twisted.ensureDeferred
    async def test_storage_contract(test, driver):
        await check_contract(driver, test)

The optional interfaces of a driver are tested if it provides them. The bulk operations are tested
in any case, because the registry uses their substitutes
(``twisted_registry.storage.fallbacks``) with drivers that have none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from twisted.internet.defer import DeferredList
from zope.interface.verify import verifyObject

from twisted_registry.storage.fallbacks import (
    bulk_lookup,
    fast_lookup,
    find_marker_listing,
    find_presigner,
    host_lock,
    leftovers,
)
from twisted_registry.storage.interfaces import (
    OPTIONAL_INTERFACES,
    IFolders,
    IStorageDriver,
    MethodUnsupported,
    MoveRefused,
    PathExists,
    PathInvalid,
    PathNotFound,
    StorageError,
)
from twisted_registry.testing.stream_contract import READER_CONTRACT, WRITER_CONTRACT, error_of

ContractTest = Callable[[IStorageDriver], Awaitable[None]]


async def check_contract(driver: IStorageDriver, test: ContractTest) -> None:
    """Run one test with an empty driver, which must be empty again afterwards.

    :raises AssertionError: if the driver breaks the contract.
    """
    await test(driver)
    left = [entry.path for entry in await driver.walk("")]
    assert left == [], f"left behind: {left}"


async def provides_its_interfaces_with_the_right_signatures(driver: IStorageDriver) -> None:
    """All methods and attributes exist and take the right arguments."""
    verifyObject(IStorageDriver, driver)
    assert driver.name
    assert driver.min_chunk_bytes >= 0
    for interface in OPTIONAL_INTERFACES:
        provided = interface(driver, None)
        assert provided is None or verifyObject(interface, provided)


async def get_returns_what_put_stored(driver: IStorageDriver) -> None:
    """``put`` makes the folders that it needs; a file can be empty."""
    await driver.put("a/b/file", b"content")
    await driver.put("a/empty", b"", durable=False)
    assert await driver.get("a/b/file", 7) == b"content"
    assert await driver.get("a/empty", 0) == b""
    await driver.delete("a")


async def put_replaces_a_file(driver: IStorageDriver) -> None:
    """A shorter file replaces a longer one completely."""
    await driver.put("file", b"a long one")
    await driver.put("file", b"short")
    assert await driver.get("file", 100) == b"short"
    await driver.delete("file")


async def get_fails_for_files_above_the_limit(driver: IStorageDriver) -> None:
    """The error is a ``StorageError``, not one of its subclasses."""
    await driver.put("file", b"12345")
    assert await driver.get("file", 5) == b"12345"
    assert type(await error_of(driver.get("file", 4))) is StorageError
    await driver.delete("file")


async def missing_paths_raise_path_not_found(driver: IStorageDriver) -> None:
    """Every method that needs a file or folder raises ``PathNotFound`` without it."""
    bulk = bulk_lookup(driver)
    await driver.put("file", b"")
    for path in ("nothing", "no/folder/at/all", "file/below"):
        assert isinstance(await error_of(driver.get(path, 10)), PathNotFound)
        assert isinstance(await error_of(driver.stat(path)), PathNotFound)
        assert isinstance(await error_of(driver.copy(path, "other")), PathNotFound)
        assert isinstance(await error_of(driver.move(path, "other")), PathNotFound)
        assert isinstance(await error_of(driver.delete(path)), PathNotFound)
        assert isinstance(await error_of(driver.open(path)), PathNotFound)
        assert isinstance(await error_of(driver.list(path)), PathNotFound)
        assert isinstance(await error_of(bulk.list_folders(path)), PathNotFound)
        assert list(await driver.walk(path)) == []
    await driver.delete("file")


async def folders_cannot_be_used_as_files(driver: IStorageDriver) -> None:
    """Reading, copying or moving a folder fails; object stores find no file."""
    await driver.put("folder/file", b"")
    no_file = PathInvalid | PathNotFound
    assert isinstance(await error_of(driver.get("folder", 10)), no_file)
    assert isinstance(await error_of(driver.open("folder")), no_file)
    assert isinstance(await error_of(driver.copy("folder", "other")), no_file)
    assert isinstance(await error_of(driver.move("folder", "other")), no_file)
    assert [entry.path for entry in await driver.walk("")] == ["folder/file"]
    await driver.delete("folder")


async def create_succeeds_once_of_several_concurrent_calls(driver: IStorageDriver) -> None:
    """``create`` never replaces a file, or is not supported at all."""
    contents = [b"%d" % number * 1000 for number in range(8)]
    racing = [driver.create("a/file", content) for content in contents]
    ended: Any = await DeferredList(racing, consumeErrors=True)
    winners = [content for content, (won, _) in zip(contents, ended, strict=True) if won]
    losers = [failure.value for won, failure in ended if not won]
    if all(isinstance(error, MethodUnsupported) for error in losers) and not winners:
        return
    assert len(winners) == 1
    assert all(isinstance(error, PathExists) for error in losers)
    assert isinstance(await error_of(driver.create("a/file", b"late")), PathExists)
    assert await driver.get("a/file", 1000) == winners[0]
    await driver.delete("a")
    await driver.create("a/file", b"again")
    await driver.delete("a/file")


async def stat_returns_the_size_of_files_and_none_for_folders(driver: IStorageDriver) -> None:
    """The entry has the whole path."""
    await driver.put("folder/file", b"12345")
    file = await driver.stat("folder/file")
    assert (file.path, file.size, file.is_folder) == ("folder/file", 5, False)
    folder = await driver.stat("folder")
    assert (folder.path, folder.size, folder.is_folder) == ("folder", None, True)
    assert (await driver.stat("")).is_folder
    await driver.delete("folder")


async def the_time_of_a_folder_changes_with_its_entries(driver: IStorageDriver) -> None:
    """Drivers that have a time for folders change it with each new or deleted entry."""
    await driver.put("folder/one", b"")
    first = (await driver.stat("folder")).modified
    if first is not None:
        await driver.put("folder/two/three", b"")
        second = (await driver.stat("folder")).modified
        await driver.delete("folder/one")
        third = (await driver.stat("folder")).modified
        assert second is not None
        assert third is not None
        assert first < second < third
    await driver.delete("folder")


async def copy_replaces_the_destination_and_keeps_the_source(driver: IStorageDriver) -> None:
    """``copy`` makes the folders that it needs."""
    await driver.put("a/source", b"new")
    await driver.put("a/old", b"old content")
    await driver.copy("a/source", "a/old")
    await driver.copy("a/source", "b/c/fresh")
    await driver.put("a/source", b"changed")
    assert await driver.get("a/old", 100) == b"new"
    assert await driver.get("b/c/fresh", 100) == b"new"
    await driver.delete("a")
    await driver.delete("b")


async def move_replaces_the_destination_and_removes_the_source(driver: IStorageDriver) -> None:
    """``move`` makes the folders that it needs; moving a file to itself is allowed."""
    await driver.put("a/old", b"old content")
    await driver.put("a/source", b"new")
    await driver.move("a/source", "a/old")
    assert await driver.get("a/old", 100) == b"new"
    await driver.move("a/old", "b/c/fresh")
    assert await driver.get("b/c/fresh", 100) == b"new"
    await driver.move("b/c/fresh", "b/c/fresh")
    assert [entry.path for entry in await driver.walk("")] == ["b/c/fresh"]
    await driver.delete("b/c/fresh")


async def move_changes_nothing_if_still_returns_false(driver: IStorageDriver) -> None:
    """``move`` raises ``MoveRefused`` and makes no destination."""
    await driver.put("a/source", b"content")
    refused = await error_of(driver.move("a/source", "b/moved", still=lambda: False))
    assert isinstance(refused, MoveRefused)
    assert [entry.path for entry in await driver.walk("")] == ["a/source"]
    await driver.move("a/source", "b/moved", still=lambda: True)
    assert await driver.get("b/moved", 7) == b"content"
    gone = await error_of(driver.move("none", "b/moved", still=lambda: True))
    assert isinstance(gone, PathNotFound)
    await driver.delete("b/moved")


async def delete_removes_one_file_or_a_whole_folder(driver: IStorageDriver) -> None:
    """Paths that begin with the same characters stay."""
    for path in ("a/b/one", "a/b/c/two", "a/bb", "a/keep"):
        await driver.put(path, b"")
    await driver.delete("a/bb")
    await driver.delete("a/b")
    assert [entry.path for entry in await driver.walk("")] == ["a/keep"]
    assert isinstance(await error_of(driver.stat("a/b")), PathNotFound)
    assert [entry.path for entry in await driver.list("a")] == ["keep"]
    await driver.put("a/b/one", b"again")
    await driver.delete("a")


async def list_returns_one_folder_in_code_point_order(driver: IStorageDriver) -> None:
    """``list`` returns pages and distinguishes files from folders."""
    for path in ("x/b", "x/a/below", "x/a-b", "x/B", "x/a.b", "x/\u00e9", "x/\U0001f4e6", "y"):
        await driver.put(path, b"123")
    entries = await driver.list("x")
    names = ["B", "a", "a-b", "a.b", "b", "\u00e9", "\U0001f4e6"]
    assert [entry.path for entry in entries] == names
    assert [entry.path for entry in entries if entry.is_folder] == ["a"]
    assert {entry.size for entry in entries if not entry.is_folder} == {3}
    assert [entry.path for entry in await driver.list("")] == ["x", "y"]
    for limit in range(1, len(names) + 2):
        assert await _pages(driver.list, "x", limit) == names
    assert [entry.path for entry in await driver.list("x", "a.")] == names[3:]
    await driver.delete("x")
    await driver.delete("y")


async def walk_returns_all_files_ordered_by_whole_path(driver: IStorageDriver) -> None:
    """This is not the order in which a tree is usually walked."""
    paths = ["w/a-b", "w/a.b/c", "w/a/b", "w/a/b.c", "w/a/c/d", "w/a0", "w/b/a"]
    for path in [*paths, "ww/other"]:
        await driver.put(path, path.encode())
    entries = await driver.walk("w")
    assert [entry.path for entry in entries] == paths
    assert [entry.size for entry in entries] == [len(path) for path in paths]
    assert [entry.path for entry in await driver.walk("")] == [*paths, "ww/other"]
    for limit in range(1, len(paths) + 2):
        assert await _pages(driver.walk, "w", limit) == paths
    for after in ("w/a", "w/a/", "w/a/bb", "w/a/c", "w/a/c/d", "w/a/z", "w/zz", "v"):
        later = [path for path in paths if path > after]
        assert [entry.path for entry in await driver.walk("w", after)] == later
    await driver.delete("w")
    await driver.delete("ww")


async def peek_and_validate_detect_every_change(driver: IStorageDriver) -> None:
    """A changed file never has its earlier version; a folder has none."""
    lookup = fast_lookup(driver)
    versions = []
    for content in (b"one", b"two", b"three"):
        await driver.put("folder/file", content)
        versions.append(lookup.peek("folder/file"))
    seen = [version for version in versions if version is not None]
    assert not any(lookup.validate([("folder/file", version)]) for version in seen[:-1])
    if versions[-1] is not None:
        current = ("folder/file", versions[-1])
        assert lookup.validate([current, current])
        assert not lookup.validate([current, ("folder/other", versions[-1])])
        reader = lookup.open_cached(*current)
        assert reader is None or reader.size == len(b"three")
        if reader is not None:
            reader.close()
    assert len(set(seen)) == len(seen)
    assert all(version.size in (3, 5) for version in seen)
    assert lookup.peek("folder") is None
    await driver.delete("folder")
    assert lookup.peek("folder/file") is None


async def get_many_returns_contents_in_order_and_none_for_missing_files(
    driver: IStorageDriver,
) -> None:
    """A folder, or a path below a file, is missing, too."""
    bulk = bulk_lookup(driver)
    await driver.put("a/one", b"1")
    await driver.put("two", b"22")
    await driver.put("empty", b"")
    asked = ["two", "nothing", "a/one", "two/below", "a", "no/folder", "empty", "two"]
    found = [b"22", None, b"1", None, None, None, b"", b"22"]
    assert list(await bulk.get_many(asked, 2)) == found
    assert list(await bulk.get_many([], 2)) == []
    assert type(await error_of(bulk.get_many(["a/one", "two"], 1))) is StorageError
    await bulk.delete_many(["a/one", "two", "empty"])


async def delete_many_skips_missing_files(driver: IStorageDriver) -> None:
    """All others of the list are deleted."""
    bulk = bulk_lookup(driver)
    for path in ("a/one", "b/two", "b/keep"):
        await driver.put(path, b"")
    await bulk.delete_many(["a/none", "a/one", "no/folder", "b/two", "b/keep/below"])
    await bulk.delete_many([])
    assert [entry.path for entry in await driver.walk("")] == ["b/keep"]
    await driver.delete("b")


async def list_folders_returns_folders_in_code_point_order(driver: IStorageDriver) -> None:
    """``list_folders`` returns no files, and sees each change at once."""
    bulk = bulk_lookup(driver)
    names = ["B", "a", "a-b", "a.b", "b", "\u00e9", "\U0001f4e6"]
    for name in reversed(names):
        await driver.put(f"x/{name}/file", b"1")
    await driver.put("x/aa", b"a file")
    assert list(await bulk.list_folders("x")) == names
    assert list(await bulk.list_folders("")) == ["x"]
    for limit in range(1, len(names) + 2):
        assert await _folder_pages(driver, "x", limit) == names
    assert list(await bulk.list_folders("x", "a.")) == names[3:]
    assert list(await bulk.list_folders("x/a")) == []
    await driver.put("x/c/d/file", b"1")
    await driver.delete("x/a")
    assert list(await bulk.list_folders("x")) == ["B", "a-b", "a.b", "b", "c", *names[5:]]
    await driver.delete("x")


async def list_folders_selects_folders_that_contain_a_file(driver: IStorageDriver) -> None:
    """An empty file does not count; a new file is seen by the next call."""
    bulk = bulk_lookup(driver)
    for name in ("a", "b", "c", "d", "e"):
        await driver.put(f"x/{name}/current/link", b"1")
    await driver.put("x/b/current/link", b"")
    await driver.put("x/c0/current/other", b"1")
    await driver.put("x/c1/current/link/below", b"1")
    await driver.put("x/c2/current", b"1")

    async def containing(after: str = "", limit: int = 1000) -> Sequence[str]:
        return list(await bulk.list_folders("x", after, limit, "current/link"))

    assert await containing() == ["a", "c", "d", "e"]
    assert await containing("", 3) == ["a", "c", "d"]
    assert await containing("a", 1) == ["c"]
    assert await containing("bb") == ["c", "d", "e"]
    await driver.put("x/b/current/link", b"1")
    await driver.put("x/c0/current/link", b"1")
    assert await containing() == ["a", "b", "c", "c0", "d", "e"]
    assert await containing("b", 3) == ["c", "c0", "d"]
    await driver.put("x/d/current/link", b"")
    await driver.delete("x/e/current/link")
    await driver.delete("x/a")
    assert await containing() == ["b", "c", "c0"]
    await driver.put("x/e/current/link", b"1")
    assert await containing() == ["b", "c", "c0", "e"]
    assert list(await bulk.list_folders("", containing="b/current/link")) == ["x"]
    await driver.delete("x")


async def list_folders_many_returns_the_folders_of_each_path(driver: IStorageDriver) -> None:
    """A missing folder, and a file, has none."""
    bulk = bulk_lookup(driver)
    for path in ("x/b/file", "x/a/file", "x/c/file", "y/z/file", "y/file"):
        await driver.put(path, b"1")
    asked = ["y", "none", "x", "x/a", "x/a/file", "x/a/file/below", "y"]
    found = await bulk.list_folders_many(asked, 10)
    assert [list(names) for names in found] == [["z"], [], ["a", "b", "c"], [], [], [], ["z"]]
    assert [list(names) for names in await bulk.list_folders_many(["x", "y"], 2)] == [
        ["a", "b"],
        ["z"],
    ]
    assert list(await bulk.list_folders_many([], 2)) == []
    await driver.delete("x")
    await driver.delete("y")


async def prune_deletes_only_empty_folders(driver: IStorageDriver) -> None:
    """Files, folders with content and missing paths are skipped."""
    pruner: IFolders | None = IFolders(driver, None)
    if pruner is None:
        return
    bulk = bulk_lookup(driver)
    await driver.put("a/b/c/gone", b"")
    await driver.put("a/kept", b"")
    await bulk.delete_many(["a/b/c/gone"])
    await pruner.prune(["a/kept", "a/b/c", "a/b", "a", "none/at/all"])
    assert isinstance(await error_of(driver.stat("a/b")), PathNotFound)
    assert [entry.path for entry in await driver.walk("")] == ["a/kept"]
    await driver.put("a/b/c/again", b"again")
    assert await driver.get("a/b/c/again", 5) == b"again"
    await driver.delete("a")


async def remove_leftovers_deletes_no_stored_file(driver: IStorageDriver) -> None:
    """A store without crashes has no leftovers, not even while a file is written."""
    await driver.put("swept/file", b"content")
    writer = await driver.writer("swept/growing", 0)
    writer.write(b"some")
    changed = (await driver.stat("swept/file")).modified
    assert await leftovers(driver).remove_leftovers((changed or 0) / 1e9) == 0
    assert await writer.commit() == 4
    await writer.close()
    assert await driver.get("swept/file", 10) == b"content"
    assert await driver.get("swept/growing", 10) == b"some"
    await driver.delete("swept")


async def presign_returns_a_url(driver: IStorageDriver) -> None:
    """It is an absolute URL."""
    presigner = find_presigner(driver)
    if presigner is not None:
        await driver.put("file", b"")
        assert "://" in await presigner.presign("file", "GET", 60)
        await driver.delete("file")


async def a_host_lock_can_be_taken_again_after_release(driver: IStorageDriver) -> None:
    """The name of a lock is any text."""
    locks = host_lock(driver)
    for name in ("a/b:tag", "a name of any kind \n", "a/b:tag", ""):
        release = await locks.lock(name)
        release()


async def list_marked_returns_folders_with_a_marker_at_any_depth(driver: IStorageDriver) -> None:
    """They are sorted by whole path. The store may turn out not to support this."""
    names = ["a", "a-b", "a.b", "a/1", "a/b", "a/b/c", "a0", "b"]
    for number, name in enumerate(names):
        await driver.put(f"m/{name}/{('_one/x', '_two/y/z')[number % 2]}", b"1")
    for other in ("a/_three/x", "aa/_three/x", "c/_one", "z/_three/_one"):
        await driver.put(f"m/{other}", b"1")

    marker_listing = find_marker_listing(driver)

    async def list_marked(after: str, limit: int) -> tuple[Sequence[str], bool] | None:
        if marker_listing is None:
            return None
        return await marker_listing.list_marked("m", "_", ("_one", "_two"), after, limit)

    if await list_marked("", 1) is not None:
        for after in ("", *names, "a/", "a/a", "z"):
            later = [name for name in names if name > after]
            for limit in range(1, len(names) + 2):
                answer = await list_marked(after, limit)
                assert answer is not None
                found, more = answer
                assert list(found) == later[:limit]
                # There may be more while folders without a mark are to come.
                assert more or len(later) <= limit
                assert not more or len(found) == limit
        assert await list_marked("", 100) == (names, False)
    await driver.delete("m")


async def _pages(method: Callable[..., Any], path: str, limit: int) -> list[str]:
    """Return all paths, read in pages of ``limit`` entries."""
    found: list[str] = []
    while True:
        page = await method(path, found[-1] if found else "", limit)
        found += [entry.path for entry in page]
        if len(page) < limit:
            return found


async def _folder_pages(driver: IStorageDriver, path: str, limit: int) -> list[str]:
    """Return all names of folders, read in pages of ``limit`` names."""
    found: list[str] = []
    while True:
        page = await bulk_lookup(driver).list_folders(path, found[-1] if found else "", limit)
        found += page
        if len(page) < limit:
            return found


STORAGE_CONTRACT: tuple[ContractTest, ...] = (
    provides_its_interfaces_with_the_right_signatures,
    get_returns_what_put_stored,
    put_replaces_a_file,
    get_fails_for_files_above_the_limit,
    missing_paths_raise_path_not_found,
    folders_cannot_be_used_as_files,
    create_succeeds_once_of_several_concurrent_calls,
    stat_returns_the_size_of_files_and_none_for_folders,
    the_time_of_a_folder_changes_with_its_entries,
    copy_replaces_the_destination_and_keeps_the_source,
    move_replaces_the_destination_and_removes_the_source,
    move_changes_nothing_if_still_returns_false,
    delete_removes_one_file_or_a_whole_folder,
    list_returns_one_folder_in_code_point_order,
    walk_returns_all_files_ordered_by_whole_path,
    peek_and_validate_detect_every_change,
    get_many_returns_contents_in_order_and_none_for_missing_files,
    delete_many_skips_missing_files,
    list_folders_returns_folders_in_code_point_order,
    list_folders_selects_folders_that_contain_a_file,
    list_folders_many_returns_the_folders_of_each_path,
    prune_deletes_only_empty_folders,
    remove_leftovers_deletes_no_stored_file,
    presign_returns_a_url,
    a_host_lock_can_be_taken_again_after_release,
    list_marked_returns_folders_with_a_marker_at_any_depth,
    *READER_CONTRACT,
    *WRITER_CONTRACT,
)
