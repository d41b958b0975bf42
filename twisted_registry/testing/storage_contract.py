"""The promises of a driver that concern copies, moves and removals.

See :mod:`twisted_registry.testing.storage_contract`, which runs them with the rest.

The promises of a storage driver as programs: what every driver is tested with.

For authors of drivers too. Run :func:`check_promise` with a fresh driver and each of
:data:`ALL_PROMISES`, under any test framework; with pytest and pytest-twisted::

    @pytest.mark.parametrize("promise", ALL_PROMISES, ids=lambda promise: promise.__name__)
    @pytest_twisted.ensureDeferred
    async def test_promise(promise, driver):
        await keeps(driver, promise)
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
    folders,
    host_lock,
    leftovers,
)
from twisted_registry.storage.interfaces import (
    OPTIONAL_INTERFACES,
    IStorageDriver,
    MethodUnsupported,
    MoveRefused,
    PathExists,
    PathInvalid,
    PathNotFound,
    StorageError,
)
from twisted_registry.testing.contract_kit import error_of
from twisted_registry.testing.stream_contract import READER_PROMISES, WRITER_PROMISES


async def copy_copies(driver: IStorageDriver) -> None:
    """``copy`` leaves the source, replaces the destination and makes folders."""
    await driver.put("a/source", b"new")
    await driver.put("a/old", b"old content")
    await driver.copy("a/source", "a/old")
    await driver.copy("a/source", "b/c/fresh")
    await driver.put("a/source", b"changed")
    assert await driver.get("a/old", 100) == b"new"
    assert await driver.get("b/c/fresh", 100) == b"new"
    await driver.delete("a")
    await driver.delete("b")


async def move_moves(driver: IStorageDriver) -> None:
    """``move`` takes the source away, replaces the destination and makes folders."""
    await driver.put("a/old", b"old content")
    await driver.put("a/source", b"new")
    await driver.move("a/source", "a/old")
    assert await driver.get("a/old", 100) == b"new"
    await driver.move("a/old", "b/c/fresh")
    assert await driver.get("b/c/fresh", 100) == b"new"
    await driver.move("b/c/fresh", "b/c/fresh")
    assert [entry.path for entry in await driver.walk("")] == ["b/c/fresh"]
    await driver.delete("b/c/fresh")


async def move_asks_at_the_last_moment(driver: IStorageDriver) -> None:
    """A ``move`` that is not wanted any more leaves the source, and no destination."""
    await driver.put("a/source", b"content")
    refused = await error_of(driver.move("a/source", "b/moved", still=lambda: False))
    assert isinstance(refused, MoveRefused)
    assert [entry.path for entry in await driver.walk("")] == ["a/source"]
    await driver.move("a/source", "b/moved", still=lambda: True)
    assert await driver.get("b/moved", 7) == b"content"
    gone = await error_of(driver.move("none", "b/moved", still=lambda: True))
    assert isinstance(gone, PathNotFound)
    await driver.delete("b/moved")


async def prune_removes_empty_folders(driver: IStorageDriver) -> None:
    """``prune`` takes folders away that hold nothing, and nothing else."""
    await driver.put("a/b/c/gone", b"")
    await driver.put("a/kept", b"")
    await bulk_lookup(driver).delete_many(["a/b/c/gone"])
    await folders(driver).prune(["a/kept", "a/b/c", "a/b", "a", "none/at/all"])
    assert isinstance(await error_of(driver.stat("a/b")), PathNotFound)
    assert [entry.path for entry in await driver.walk("")] == ["a/kept"]
    await driver.put("a/b/c/again", b"again")
    assert await driver.get("a/b/c/again", 5) == b"again"
    await driver.delete("a")


async def delete_removes(driver: IStorageDriver) -> None:
    """``delete`` takes one file, or a folder and all that is in it, and nothing beside it."""
    for path in ("a/b/one", "a/b/c/two", "a/bb", "a/keep"):
        await driver.put(path, b"")
    await driver.delete("a/bb")
    await driver.delete("a/b")
    assert [entry.path for entry in await driver.walk("")] == ["a/keep"]
    assert isinstance(await error_of(driver.stat("a/b")), PathNotFound)
    assert [entry.path for entry in await driver.list("a")] == ["keep"]
    await driver.put("a/b/one", b"again")
    await driver.delete("a")


async def delete_many_passes_over_what_is_gone(driver: IStorageDriver) -> None:
    """``delete_many`` removes what there is of a list."""
    for path in ("a/one", "b/two", "b/keep"):
        await driver.put(path, b"")
    await bulk_lookup(driver).delete_many(["a/none", "a/one", "no/folder", "b/two", "b/keep/below"])
    await bulk_lookup(driver).delete_many([])
    assert [entry.path for entry in await driver.walk("")] == ["b/keep"]
    await driver.delete("b")


CHANGE_PROMISES: tuple[Callable[[IStorageDriver], Awaitable[None]], ...] = (
    copy_copies,
    move_moves,
    move_asks_at_the_last_moment,
    prune_removes_empty_folders,
    delete_removes,
    delete_many_passes_over_what_is_gone,
)


Promise = Callable[[IStorageDriver], Awaitable[None]]


async def check_promise(driver: IStorageDriver, promise: Promise) -> None:
    """Fail with AssertionError unless the driver keeps a promise and ends up empty."""
    await promise(driver)
    left = [entry.path for entry in await driver.walk("")]
    assert left == [], f"left behind: {left}"


async def provides_the_interface(driver: IStorageDriver) -> None:
    """It has every method and attribute, with the right arguments."""
    verifyObject(IStorageDriver, driver)
    assert driver.name
    assert driver.min_chunk_bytes >= 0
    for interface in OPTIONAL_INTERFACES:
        provided = interface(driver, None)
        assert provided is None or verifyObject(interface, provided)


async def put_stores(driver: IStorageDriver) -> None:
    """``get`` answers what ``put`` stored, in folders that nobody made, and nothing at all."""
    await driver.put("a/b/file", b"content")
    await driver.put("a/empty", b"", durable=False)
    assert await driver.get("a/b/file", 7) == b"content"
    assert await driver.get("a/empty", 0) == b""
    await driver.delete("a")


async def put_replaces(driver: IStorageDriver) -> None:
    """A later ``put`` replaces the file, shorter or not."""
    await driver.put("file", b"a long one")
    await driver.put("file", b"short")
    assert await driver.get("file", 100) == b"short"
    await driver.delete("file")


async def get_many_reads_what_there_is(driver: IStorageDriver) -> None:
    """``get_many`` keeps the order asked for, and says None where there is no file."""
    await driver.put("a/one", b"1")
    await driver.put("two", b"22")
    await driver.put("empty", b"")
    asked = ["two", "nothing", "a/one", "two/below", "a", "no/folder", "empty", "two"]
    found = [b"22", None, b"1", None, None, None, b"", b"22"]
    assert list(await bulk_lookup(driver).get_many(asked, 2)) == found
    assert list(await bulk_lookup(driver).get_many([], 2)) == []
    assert type(await error_of(bulk_lookup(driver).get_many(["a/one", "two"], 1))) is StorageError
    await bulk_lookup(driver).delete_many(["a/one", "two", "empty"])


async def get_has_a_limit(driver: IStorageDriver) -> None:
    """A file of more than ``limit`` bytes is an error."""
    await driver.put("file", b"12345")
    assert await driver.get("file", 5) == b"12345"
    assert type(await error_of(driver.get("file", 4))) is StorageError
    await driver.delete("file")


async def what_is_not_there_is_not_found(driver: IStorageDriver) -> None:
    """Each method that needs something says when there is nothing."""
    await driver.put("file", b"")
    for path in ("nothing", "no/folder/at/all", "file/below"):
        assert isinstance(await error_of(driver.get(path, 10)), PathNotFound)
        assert isinstance(await error_of(driver.stat(path)), PathNotFound)
        assert isinstance(await error_of(driver.copy(path, "other")), PathNotFound)
        assert isinstance(await error_of(driver.move(path, "other")), PathNotFound)
        assert isinstance(await error_of(driver.delete(path)), PathNotFound)
        assert isinstance(await error_of(driver.open(path)), PathNotFound)
        assert isinstance(await error_of(driver.list(path)), PathNotFound)
        assert isinstance(await error_of(bulk_lookup(driver).list_folders(path)), PathNotFound)
        assert list(await driver.walk(path)) == []
    await driver.delete("file")


async def a_glance_tells_one_file_from_another(driver: IStorageDriver) -> None:
    """``peek`` never says of a changed file what it said before, and sees no folder."""
    marks = []
    for content in (b"one", b"two", b"three"):
        await driver.put("folder/file", content)
        marks.append(fast_lookup(driver).peek("folder/file"))
    seen = [mark for mark in marks if mark is not None]
    assert not any(fast_lookup(driver).validate([("folder/file", mark)]) for mark in seen[:-1])
    if marks[-1] is not None:
        look = ("folder/file", marks[-1])
        assert fast_lookup(driver).validate([look, look])
        assert not fast_lookup(driver).validate([look, ("folder/other", marks[-1])])
        reader = fast_lookup(driver).open_cached(*look)
        assert reader is None or reader.size == len(b"three")
        if reader is not None:
            reader.close()
    assert len(set(seen)) == len(seen)
    assert all(mark.size in (3, 5) for mark in seen)
    assert fast_lookup(driver).peek("folder") is None
    await driver.delete("folder")
    assert fast_lookup(driver).peek("folder/file") is None


async def a_folder_is_no_file(driver: IStorageDriver) -> None:
    """A folder can not be read or moved as a file. (Object stores find no file there.)"""
    await driver.put("folder/file", b"")
    no_file = PathInvalid | PathNotFound
    assert isinstance(await error_of(driver.get("folder", 10)), no_file)
    assert isinstance(await error_of(driver.open("folder")), no_file)
    assert isinstance(await error_of(driver.copy("folder", "other")), no_file)
    assert isinstance(await error_of(driver.move("folder", "other")), no_file)
    assert [entry.path for entry in await driver.walk("")] == ["folder/file"]
    await driver.delete("folder")


async def create_stores_once(driver: IStorageDriver) -> None:
    """``create`` makes a file and replaces none; of several that race, one succeeds."""
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


async def stat_tells_size_and_time(driver: IStorageDriver) -> None:
    """``stat`` names the whole path; a folder has no size."""
    await driver.put("folder/file", b"12345")
    file = await driver.stat("folder/file")
    assert (file.path, file.size, file.is_folder) == ("folder/file", 5, False)
    folder = await driver.stat("folder")
    assert (folder.path, folder.size, folder.is_folder) == ("folder", None, True)
    assert (await driver.stat("")).is_folder
    await driver.delete("folder")


async def a_folder_changes_with_its_entries(driver: IStorageDriver) -> None:
    """A folder's time moves when an entry is made or removed, if the driver tells it."""
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


async def sweep_leaves_what_was_stored(driver: IStorageDriver) -> None:
    """``remove_leftovers`` removes leftovers of crashes, of which a healthy store has none."""
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


async def list_answers_one_folder_in_order(driver: IStorageDriver) -> None:
    """``list`` sorts by code point, and says what is a file and what a folder."""
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


async def folders_are_answered_in_order(driver: IStorageDriver) -> None:
    """``folders`` names what ``list`` calls folders, and sees each change at once."""
    names = ["B", "a", "a-b", "a.b", "b", "\u00e9", "\U0001f4e6"]
    for name in reversed(names):
        await driver.put(f"x/{name}/file", b"1")
    await driver.put("x/aa", b"a file")
    assert list(await bulk_lookup(driver).list_folders("x")) == names
    assert list(await bulk_lookup(driver).list_folders("")) == ["x"]
    for limit in range(1, len(names) + 2):
        assert await _folder_pages(driver, "x", limit) == names
    assert list(await bulk_lookup(driver).list_folders("x", "a.")) == names[3:]
    assert list(await bulk_lookup(driver).list_folders("x/a")) == []
    await driver.put("x/c/d/file", b"1")
    await driver.delete("x/a")
    assert list(await bulk_lookup(driver).list_folders("x")) == [
        "B",
        "a-b",
        "a.b",
        "b",
        "c",
        *names[5:],
    ]
    await driver.delete("x")


async def folders_may_have_to_hold_something(driver: IStorageDriver) -> None:
    """``folders`` answers those that hold a file with bytes, and sees each new one at once."""
    for name in ("a", "b", "c", "d", "e"):
        await driver.put(f"x/{name}/current/link", b"1")
    await driver.put("x/b/current/link", b"")
    await driver.put("x/c0/current/other", b"1")
    await driver.put("x/c1/current/link/below", b"1")
    await driver.put("x/c2/current", b"1")

    async def holding(after: str = "", limit: int = 1000) -> Sequence[str]:
        return list(await bulk_lookup(driver).list_folders("x", after, limit, "current/link"))

    assert await holding() == ["a", "c", "d", "e"]
    assert await holding("", 3) == ["a", "c", "d"]
    assert await holding("a", 1) == ["c"]
    assert await holding("bb") == ["c", "d", "e"]
    await driver.put("x/b/current/link", b"1")
    await driver.put("x/c0/current/link", b"1")
    assert await holding() == ["a", "b", "c", "c0", "d", "e"]
    assert await holding("b", 3) == ["c", "c0", "d"]
    await driver.put("x/d/current/link", b"")
    await driver.delete("x/e/current/link")
    await driver.delete("x/a")
    assert await holding() == ["b", "c", "c0"]
    await driver.put("x/e/current/link", b"1")
    assert await holding() == ["b", "c", "c0", "e"]
    assert list(await bulk_lookup(driver).list_folders("", containing="b/current/link")) == ["x"]
    await driver.delete("x")


async def folders_many_answers_for_each(driver: IStorageDriver) -> None:
    """``list_folders_many`` keeps the order asked for; what is no folder holds none."""
    for path in ("x/b/file", "x/a/file", "x/c/file", "y/z/file", "y/file"):
        await driver.put(path, b"1")
    asked = ["y", "none", "x", "x/a", "x/a/file", "x/a/file/below", "y"]
    found = await bulk_lookup(driver).list_folders_many(asked, 10)
    assert [list(names) for names in found] == [["z"], [], ["a", "b", "c"], [], [], [], ["z"]]
    assert [
        list(names) for names in await bulk_lookup(driver).list_folders_many(["x", "y"], 2)
    ] == [
        ["a", "b"],
        ["z"],
    ]
    assert list(await bulk_lookup(driver).list_folders_many([], 2)) == []
    await driver.delete("x")
    await driver.delete("y")


async def marked_answers_all_that_hold_a_mark_or_says_to_walk(driver: IStorageDriver) -> None:
    """``list_marked`` finds folders of any depth, in the order of whole paths, unless it is None."""
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


async def walk_answers_all_files_in_order(driver: IStorageDriver) -> None:
    """``walk`` sorts by whole path, which is not the order of a walk through a tree."""
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


async def presign_answers_a_url_or_not(driver: IStorageDriver) -> None:
    """``presign`` gives a URL, or says that the driver has none."""
    await driver.put("file", b"")
    presigner = find_presigner(driver)
    if presigner is not None:
        assert "://" in await presigner.presign("file", "GET", 60)
    await driver.delete("file")


async def _pages(method: Callable[..., Any], path: str, limit: int) -> list[str]:
    """Read all, ``limit`` at a time; the first page that is not full ends it."""
    found: list[str] = []
    while True:
        page = await method(path, found[-1] if found else "", limit)
        found += [entry.path for entry in page]
        if len(page) < limit:
            return found


async def hold_may_be_taken_again(driver: IStorageDriver) -> None:
    """A name that was let go can be held again; it may be any text."""
    for name in ("a/b:tag", "a name of any kind \n", "a/b:tag", ""):
        release = await host_lock(driver).lock(name)
        release()


async def _folder_pages(driver: IStorageDriver, path: str, limit: int) -> list[str]:
    found: list[str] = []
    while True:
        page = await bulk_lookup(driver).list_folders(path, found[-1] if found else "", limit)
        found += page
        if len(page) < limit:
            return found


ALL_PROMISES: tuple[Promise, ...] = (
    provides_the_interface,
    put_stores,
    put_replaces,
    get_has_a_limit,
    get_many_reads_what_there_is,
    what_is_not_there_is_not_found,
    a_glance_tells_one_file_from_another,
    a_folder_is_no_file,
    create_stores_once,
    stat_tells_size_and_time,
    a_folder_changes_with_its_entries,
    *CHANGE_PROMISES,
    sweep_leaves_what_was_stored,
    list_answers_one_folder_in_order,
    folders_are_answered_in_order,
    folders_may_have_to_hold_something,
    folders_many_answers_for_each,
    marked_answers_all_that_hold_a_mark_or_says_to_walk,
    walk_answers_all_files_in_order,
    presign_answers_a_url_or_not,
    hold_may_be_taken_again,
    *READER_PROMISES,
    *WRITER_PROMISES,
)
