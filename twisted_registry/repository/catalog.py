"""All repositories, in the order of their whole names.

``-`` and ``.`` sort before ``/``, so ``a``, ``a-b``, ``a.b``, ``a/b`` is the order, which no walk
of the tree gives. In every folder the walk therefore sorts two kinds of steps by name: the
repository ``x`` itself, and all below it as ``x/``. Whatever lies below ``x/`` sorts between
``x/`` and the next step, so the names come out in order, and the walk stops after a page.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from twisted_registry.reference import NameInvalid, check_name
from twisted_registry.repository import layout
from twisted_registry.repository.failures import translated
from twisted_registry.storage.interfaces import PathNotFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from twisted_registry.storage.interfaces import IStorageDriver

_PAGE = 5000


async def walk(
    driver: IStorageDriver, after: str = "", marks: Sequence[str] = layout.REPOSITORY_MARKS
) -> AsyncIterator[str]:
    """Yield the names of repositories in order.

    :param after: only names greater than this; it need not be one.
    :param marks: what makes a folder count, see :func:`is_repository`.
    """
    async for name in _below(driver, "", after, marks):
        yield name


@translated
async def is_repository(
    driver: IStorageDriver, name: str, marks: Sequence[str] = layout.REPOSITORY_MARKS
) -> bool:
    """Whether the store knows a repository of this name.

    :param marks: the names of folders of which one is enough.
    """
    folder = layout.repository(name)
    for mark in marks:
        with suppress(PathNotFound):
            await driver.stat(f"{folder}/{mark}")
            return True
    return False


async def _below(
    driver: IStorageDriver, prefix: str, after: str, marks: Sequence[str]
) -> AsyncIterator[str]:
    for step in await _steps(driver, prefix, after):
        if not step.endswith("/"):
            if await is_repository(driver, step, marks):
                yield step
        else:
            async for name in _below(driver, step, after, marks):
                yield name


@translated
async def _steps(driver: IStorageDriver, prefix: str, after: str) -> list[str]:
    """The steps of one folder that can lead to names greater than ``after``, in order."""
    folder = layout.repository(prefix.rstrip("/")) if prefix else layout.REPOSITORIES
    steps: list[str] = []
    last = ""
    while True:
        try:
            entries = await driver.list(folder, last, _PAGE)
        except PathNotFound:
            break
        for entry in entries:
            name = prefix + entry.path
            if not entry.is_folder or not _is_name(name):
                continue
            if name > after:
                steps.append(name)
            below = f"{name}/"
            if below > after or after.startswith(below):
                steps.append(below)
        if len(entries) < _PAGE:
            break
        last = entries[-1].path
    steps.sort()
    return steps


def _is_name(text: str) -> bool:
    try:
        check_name(text)
    except NameInvalid:
        return False
    return True
