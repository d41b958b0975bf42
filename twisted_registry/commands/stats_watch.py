"""``twisted-registry stats --watch``: what a registry does, and what uses its store, now and again.

The activity is read from the metrics of the running registry, at the debug address of its
configuration. The store is read by this process, rarely: that takes long if the store is large.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from twisted_registry.app.metrics_client import MetricsUnavailable, fetch_metrics, metrics_address
from twisted_registry.commands.output import format_size, format_span, format_table, format_time
from twisted_registry.frame.errors import StartError, require_extra
from twisted_registry.oci.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from typing import TextIO

    from twisted_registry.config.schema import Configuration
    from twisted_registry.statistics.activity import Activity, Samples

#: Seconds from one walk through the store to the next, at least; and as a multiple of the time that
#: the last one took.
_MIN_WALK_INTERVAL_S = 60.0
_WALK_INTERVAL_FACTOR = 20
_MAX_SLOWEST = 3
_CLEAR_SCREEN = "\x1b[H\x1b[2J"


@define(eq=False)
class Watch:
    """Prints a block of text at intervals, until it is cancelled.

    :ivar out: a terminal, which shows the last block only, or a file, which gets all.
    :ivar describe_store: reads the store, and returns lines of text.
    :ivar interval_s: seconds between two blocks.
    """

    configuration: Configuration
    out: TextIO
    reactor: Any
    describe_store: Callable[[], Awaitable[str]]
    interval_s: float
    _store: str = field(init=False, default="reading the store ...\n")
    _next_walk_s: float = field(init=False, default=0.0)
    _walk: Deferred[None] | None = field(init=False, default=None)
    _samples: Samples | None = field(init=False, default=None)
    _read_at: float = field(init=False, default=0.0)

    async def run(self) -> None:
        """Print, until this is cancelled."""
        try:
            while True:
                self._walk_if_due()
                activity = "".join(f"{line}\n" for line in await self._describe_activity())
                now = format_time(self.reactor.seconds())
                self._print(f"{now}\n{activity}\n{self._store}")
                await deferLater(self.reactor, self.interval_s)
        except CancelledError:
            return
        finally:
            if self._walk is not None:
                self._walk.cancel()

    def _print(self, block: str) -> None:
        self.out.write(f"{_CLEAR_SCREEN}{block}" if self.out.isatty() else f"{block}\n")
        self.out.flush()

    def _walk_if_due(self) -> None:
        if self._walk is None and self.reactor.seconds() >= self._next_walk_s:
            walk = Deferred.fromCoroutine(self._read_store())
            if not walk.called:
                self._walk = walk.addErrback(lambda failure: failure.trap(CancelledError) and None)

    async def _read_store(self) -> None:
        began = self.reactor.seconds()
        try:
            self._store = await self.describe_store()
        except RegistryError as error:
            self._store = f"the store cannot be read: {error}\n"
        finally:
            ended = self.reactor.seconds()
            pause_s = max(_MIN_WALK_INTERVAL_S, _WALK_INTERVAL_FACTOR * (ended - began))
            self._next_walk_s, self._walk = ended + pause_s, None

    async def _describe_activity(self) -> Sequence[str]:
        try:
            samples = await self._read_samples()
        except (MetricsUnavailable, StartError) as error:
            self._samples = None
            return [f"no activity: {error}"]
        now, before, read_at = self.reactor.seconds(), self._samples, self._read_at
        self._samples, self._read_at = samples, now
        if before is None or now <= read_at:
            return [f"activity: in {format_span(self.interval_s)}"]
        from twisted_registry.statistics.activity import compare  # noqa: PLC0415 - extra

        return list(describe_activity(compare(before, samples, now - read_at)))

    async def _read_samples(self) -> Samples:
        address = metrics_address(self.configuration)
        with require_extra("metrics", "stats --watch"):
            from twisted_registry.statistics.activity import parse_samples  # noqa: PLC0415
        text = await fetch_metrics(address, self.reactor)
        try:
            return parse_samples(text)
        except ValueError as error:
            raise MetricsUnavailable(f"{address}: these are no metrics: {error}") from error


def describe_activity(activity: Activity) -> Iterable[str]:
    """Yield what a registry does, as text."""
    rows = [
        ("requests", f"{activity.requests:.1f}/s, {activity.errors:.1f}/s answered 5xx"),
        ("received", f"{format_size(activity.received_bytes)}/s"),
        ("sent", f"{format_size(activity.sent_bytes)}/s"),
        ("in flight", f"requests {activity.in_flight}, uploads {activity.uploads}"),
    ]
    rows += [
        ("slow" if not number else "", f"{each.method} {each.handler}: {format_span(each.seconds)}")
        for number, each in enumerate(activity.slowest[:_MAX_SLOWEST])
    ]
    yield from format_table(rows).splitlines()
