"""``twisted-registry garbage-collect``: one collection as a command of its own.

It takes the flags of Distribution's and prints its lines, but may run beside a registry that
serves: it is the collector of the registry itself.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

from attrs import asdict, define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.logger import globalLogBeginner

from twisted_registry.errors import RegistryError
from twisted_registry.listener import StartError
from twisted_registry.logs import make_observer
from twisted_registry.maintenance.garbage import Collected, CollectionFailed, Watcher
from twisted_registry.service import make_collector, make_driver
from twisted_registry.storage.checked import CheckedDriver

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.python.failure import Failure

    from twisted_registry.config.loading import Loaded
    from twisted_registry.digest import Digest
    from twisted_registry.maintenance.garbage import Collector
    from twisted_registry.storage.interfaces import IStorageDriver

_WIDTH = 40


@define(eq=False)
class Lines(Watcher):
    """Prints what is going on, as Distribution does."""

    out: TextIO

    def marking(self, name: str) -> None:
        """Name a repository."""
        self._say(name)

    def marked(self, name: str, digest: Digest) -> None:
        """Name a manifest that is kept."""
        self._say(f"{name}: marking manifest {digest}")

    def eligible(self, manifests: Sequence[tuple[str, Digest]], blobs: Sequence[Digest]) -> None:
        """Name what may go."""
        for name, digest in manifests:
            self._say(f"{name}: manifest eligible for deletion: {digest}")
        for digest in blobs:
            self._say(f"blob eligible for deletion: {digest}")

    def _say(self, line: str) -> None:
        self.out.write(f"{line}\n")


@define(eq=False)
class Bar(Watcher):
    """Draws a bar on a terminal: repositories while it marks, then what is removed."""

    out: TextIO
    _repositories: int = field(init=False, default=0)

    def marking(self, name: str) -> None:
        """Count a repository."""
        self._repositories += 1
        self._draw(f"marking: {self._repositories} repositories, now {name[:_WIDTH]}")

    def removed(self, done: int, total: int) -> None:
        """Draw how far it is."""
        filled = "#" * (_WIDTH * done // total)
        self._draw(f"removing [{filled:<{_WIDTH}}] {done} of {total}")
        if done == total:
            self._repositories = 0

    def clear(self) -> None:
        """Leave nothing behind."""
        self._draw("")

    def _draw(self, line: str) -> None:
        self.out.write(f"\r\x1b[K{line}")
        self.out.flush()


@define(eq=False)
class _Command:
    """One run on a reactor of its own; an interrupted one takes its list away first."""

    collector: Collector
    driver: IStorageDriver
    reactor: Any
    result: Collected | Failure | None = field(init=False, default=None)
    _running: Deferred[None] | None = field(init=False, default=None)

    def run(self) -> None:
        """Run to the end, or until a signal comes."""
        self.reactor.callWhenRunning(self._start)
        self.reactor.addSystemEventTrigger("before", "shutdown", self._stop)
        self.reactor.run()

    def _start(self) -> None:
        running = Deferred.fromCoroutine(self._work())
        self._running = running.addBoth(self._over)

    async def _work(self) -> Collected:
        try:
            return await self.collector.run()
        finally:
            await self.collector.references.close()
            await self.driver.close()

    def _over(self, result: Collected | Failure) -> None:
        self.result = result
        # While it stops already, it must not be told to.
        with suppress(ReactorNotRunning):
            self.reactor.stop()

    def _stop(self) -> Deferred[None] | None:
        if self._running is not None:
            self._running.cancel()
        return self._running


def collect(
    loaded: Loaded,
    reactor: Any,
    *,
    dry_run: bool = False,
    untagged: bool = False,
    quiet: bool = False,
    as_json: bool = False,
) -> int:
    """Collect once, and print what was done.

    :param quiet: print the sums only.
    :param as_json: print one JSON document, for machines.
    :returns: the exit status: 1 if the run could not go on.
    """
    observer = make_observer(sys.stderr, "warn", "text", {})
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    configuration = loaded.configuration
    if "inmemory" in configuration.storage.drivers:
        _complain("storage.inmemory: a store in memory has nothing to collect")
        return 1
    bar = Bar(sys.stderr) if sys.stderr.isatty() else None
    watcher: Watcher = bar or Watcher()
    if not (quiet or as_json or bar):
        watcher = Lines(sys.stdout)
    try:
        driver = make_driver(configuration, reactor, os.environ)
    except StartError as error:
        _complain(str(error))
        return 1
    checked = CheckedDriver(driver, reactor)
    command = _Command(
        make_collector(
            configuration, checked, reactor, untagged=untagged, dry_run=dry_run, watcher=watcher
        ),
        driver,
        reactor,
    )
    command.run()
    if bar is not None:
        bar.clear()
    result = command.result
    if isinstance(result, Collected):
        if as_json:
            sys.stdout.write(f"{json.dumps(asdict(result))}\n")
        else:
            _tell(result, "eligible for deletion" if dry_run else "deleted")
        return 0
    if result is None or result.check(CancelledError):
        _complain("interrupted; nothing is lost, and it can be run again")
    elif result.check(CollectionFailed, RegistryError):
        _complain(str(result.value))
    else:
        result.printTraceback(sys.stderr)
    return 1


def _tell(collected: Collected, verb: str) -> None:
    sys.stdout.write(
        f"{collected.marked} blobs marked, {collected.blobs} blobs and {collected.manifests} "
        f"manifests {verb} ({collected.size} bytes)\n"
    )
    if collected.leased:
        sys.stdout.write(f"{collected.leased} stay, for clients asked for them meanwhile\n")
    for name in collected.troubled:
        sys.stdout.write(f"{name}: holds a manifest that can not be read; all its blobs are kept\n")


def _complain(line: str) -> None:
    sys.stderr.write(f"twisted-registry: {line}\n")
