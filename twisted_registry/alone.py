"""A registry, or one piece of work on its store, in a process of its own without twistd.

This and :mod:`twisted_registry.tap` are the only modules with a reactor of their own. Here nothing
reads options as twistd does, so that nothing for it is imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet import reactor as default_reactor

from twisted_registry.heap import freeze_imports

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from twisted_registry.config.loading import LoadedConfiguration

T = TypeVar("T")


def run(loaded: LoadedConfiguration, reactor: Any = default_reactor) -> int:
    """Serve until a signal comes, without twistd.

    :returns: the exit status: 1 if the registry could not start.
    """
    with freeze_imports():
        from twisted_registry.process import serve  # noqa: PLC0415 - see tap.py
    return serve(loaded, reactor)


def run_once(work: Callable[[Any], Coroutine[Any, Any, T]], reactor: Any = default_reactor) -> T | None:
    """Run the reactor for one piece of work.

    :param work: is given the reactor.
    :returns: what it returned; see :func:`twisted_registry.commands.run_once.run_once`.
    """
    from twisted_registry.commands import run_once  # noqa: PLC0415 - see tap.py

    return run_once.run_once(lambda: work(reactor), reactor)


def work(reactor: Any = default_reactor) -> int:
    """Serve as one of several processes: what the first of them starts.

    :returns: the exit status.
    """
    with freeze_imports():
        from twisted_registry.worker import run_worker  # noqa: PLC0415 - see tap.py
    return run_worker(reactor)
