"""Coroutines that seldom wait: run to their end at once, with a Deferred only for one that does.

A warm pull waits for nothing. What ``Deferred.fromCoroutine`` prepares for waiting costs as much
as the whole of its handler.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator

_T = TypeVar("_T")


def run_until_wait(work: Coroutine[Any, Any, _T]) -> Deferred[_T] | None:
    """Run ``work`` until it ends or waits.

    :returns: None if it has ended, whatever its result; else a Deferred as
        ``Deferred.fromCoroutine`` gives it, of which the first step has been made.
    :raises Exception: what it raised before it waited.
    """
    try:
        awaited = work.send(None)
    except StopIteration:
        return None
    return Deferred.fromCoroutine(_resume(work, awaited))


def _resume(
    work: Coroutine[Any, Any, _T], awaited: Deferred[Any]
) -> Generator[Deferred[Any], Any, _T]:
    """What remains of a coroutine that waits for ``awaited``, as a generator of its own."""
    try:
        while True:
            try:
                result = yield awaited
            except GeneratorExit:
                work.close()
                raise
            except BaseException as error:  # noqa: BLE001 (it is the coroutine's to handle)
                awaited = work.throw(error)
            else:
                awaited = work.send(result)
    except StopIteration as end:
        outcome: _T = end.value
        return outcome
