"""States of the checks of a registry, and the service that runs the checks.

As in Distribution, a check fails when it has found a fault as many times in a row as its threshold
says, and passes again at the first time that it finds none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from attrs import define, field, frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import implementer

from twisted_registry.health.interfaces import CheckFailed, HealthState, IHealth

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from twisted_registry.health.interfaces import ICheck

log = Logger()

#: The name of the check that operators set, as in Distribution.
MANUAL_CHECK: Final = "manual_http_status"
_MANUAL_REASON: Final = "manual check"


@frozen(eq=False)
class ScheduledCheck:
    """A check, and when it runs.

    :ivar interval_s: seconds from one run to the next.
    :ivar timeout_s: seconds after which a run that has not ended has failed.
    :ivar threshold: how many runs have to fail in a row, at least 1.
    """

    check: ICheck
    interval_s: float
    timeout_s: float
    threshold: int = 1


@define(eq=False, repr=False)
class _Result:
    """What the runs of one check have found so far."""

    name: str
    threshold: int = 1
    reason: str = field(init=False, default="")
    has_run: bool = field(init=False, default=False)
    _failures: int = field(init=False, default=0)

    @property
    def is_failing(self) -> bool:
        return self._failures >= self.threshold

    def update(self, reason: str) -> None:
        self.has_run, self.reason = True, reason
        self._failures = self._failures + 1 if reason else 0


@implementer(IHealth)
class HealthRegistry:
    """The states of all checks, and the state of the registry that follows from them.

    A change of a check is logged once.
    """

    def __init__(self, checks: Sequence[ScheduledCheck] = ()) -> None:
        """Begin in the state STARTING, or HEALTHY without checks."""
        self._results = [_Result(each.check.name, each.threshold) for each in checks]
        self._manual = _Result(MANUAL_CHECK)
        self._state = int(self._find_state())
        self._publish: Callable[[int], object] = lambda _: None

    def share(self, publish: Callable[[int], object]) -> None:
        """Call a function with the state now, and after each change."""
        self._publish = publish
        publish(self._state)

    def state(self) -> int:
        """Return the state of the registry."""
        return self._state

    def failing(self) -> Mapping[str, str]:
        """Return the reasons of the checks that fail, by their names."""
        return {
            each.name: each.reason for each in (*self._results, self._manual) if each.is_failing
        }

    def passing(self) -> Mapping[str, bool]:
        """Return whether each check passes, by its name; without those that have not run."""
        return {
            each.name: not each.is_failing
            for each in (*self._results, self._manual)
            if each.has_run or each is self._manual
        }

    def update(self, number: int, reason: str) -> None:
        """Note the result of a run.

        :param number: of the check, in the order in which they were given.
        :param reason: why it has failed; empty if it has not.
        """
        self._update(self._results[number], reason)

    def set_down(self, *, down: bool) -> None:
        """Fail, or pass again, because an operator says so."""
        self._update(self._manual, _MANUAL_REASON if down else "")

    def _update(self, result: _Result, reason: str) -> None:
        was_failing = result.is_failing
        result.update(reason)
        if result.is_failing and not was_failing:
            log.error(
                "health check fails, requests are answered 503: check={check} reason={reason}",
                check=result.name,
                reason=reason,
            )
        elif was_failing and not result.is_failing:
            log.info("health check passes again: check={check}", check=result.name)
        state = int(self._find_state())
        if state != self._state:
            self._state = state
            self._publish(state)

    def _find_state(self) -> HealthState:
        if any(each.is_failing for each in (*self._results, self._manual)):
            return HealthState.FAILING
        has_run = all(each.has_run for each in self._results)
        return HealthState.HEALTHY if has_run else HealthState.STARTING


def _starting() -> int:
    return HealthState.STARTING


@implementer(IHealth)
@define(eq=False, repr=False)
class FollowedHealth:
    """The state that another process has found.

    :ivar read: returns that state.
    """

    read: Callable[[], int] = _starting

    def state(self) -> int:
        """Return the state of the registry."""
        return self.read()


class HealthChecks(Service):
    """Runs checks while the service runs: each at once, and then at its interval.

    A check that takes longer than its interval is not started again before it has ended.
    """

    def __init__(
        self,
        registry: HealthRegistry,
        checks: Sequence[ScheduledCheck],
        clock: Any,
    ) -> None:
        """Prepare the service.

        :param registry: receives the results; made for the same checks.
        """
        self.setName("health")
        self._registry = registry
        self._checks = checks
        self._clock = clock
        self._loops: list[LoopingCall] = []
        self._running: set[Deferred[None]] = set()

    def startService(self) -> None:
        """Run each check, now and at its interval."""
        super().startService()
        for number, scheduled in enumerate(self._checks):
            loop = LoopingCall(self._run, number, scheduled)
            loop.clock = self._clock
            self._loops.append(loop)
            loop.start(scheduled.interval_s)

    def stopService(self) -> None:
        """Cancel the checks."""
        super().stopService()
        loops, self._loops = self._loops, []
        for loop in loops:
            if loop.running:
                loop.stop()
        for running in list(self._running):
            running.cancel()

    async def _run(self, number: int, scheduled: ScheduledCheck) -> None:
        running = Deferred.fromCoroutine(scheduled.check.run())
        running.addTimeout(scheduled.timeout_s, self._clock, _raise_timeout)
        self._running.add(running)
        try:
            await running
            reason = ""
        except Exception as error:  # noqa: BLE001 - whatever is wrong, the check has failed
            reason = " ".join(str(error).split()) or type(error).__name__
        finally:
            self._running.discard(running)
        if self.running:  # otherwise it was cancelled
            self._registry.update(number, reason)


def _raise_timeout(_: object, timeout_s: float) -> None:
    raise CheckFailed(f"no result after {timeout_s:g} s")
