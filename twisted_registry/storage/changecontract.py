"""The promises of a driver that concern copies, moves and removals.

See :mod:`twisted_registry.storage.contract`, which runs them with the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_registry.storage.contractkit import error_of
from twisted_registry.storage.interfaces import MoveRefused, PathNotFound

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from twisted_registry.storage.interfaces import IStorageDriver


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
    await driver.delete_many(["a/b/c/gone"])
    await driver.prune(["a/kept", "a/b/c", "a/b", "a", "none/at/all"])
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
    await driver.delete_many(["a/none", "a/one", "no/folder", "b/two", "b/keep/below"])
    await driver.delete_many([])
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
