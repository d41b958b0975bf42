"""Runs checks at the same time, each with a time bound."""

from __future__ import annotations

from threading import Thread
from typing import TYPE_CHECKING, Any

from attrs import frozen
from twisted.internet.defer import Deferred, gatherResults
from twisted.python.failure import Failure

from twisted_registry.doctor.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

#: For a check without another bound.
DEFAULT_TIMEOUT_S = 15.0


@frozen
class Check:
    """One check.

    :ivar name: what is checked, in one or two words.
    :ivar run: returns what was found; nothing if all is well.
    :ivar timeout_s: seconds after which the check counts as failed.
    """

    name: str
    run: Callable[[], Awaitable[Sequence[Finding]]]
    timeout_s: float = DEFAULT_TIMEOUT_S


@frozen
class CheckResult:
    """The result of a check."""

    name: str
    findings: tuple[Finding, ...]


def on_thread(
    reactor: Any, function: Callable[[], Sequence[Finding]]
) -> Callable[[], Awaitable[Sequence[Finding]]]:
    """Return a check that runs a blocking function on a new thread.

    The end of the process does not wait for the thread: a disk may never answer.
    """

    def start() -> Deferred[Sequence[Finding]]:
        result: Deferred[Sequence[Finding]] = Deferred()

        def work() -> None:
            try:
                found = function()
            except Exception:  # noqa: BLE001 - goes to the caller
                reactor.callFromThread(result.errback, Failure())
            else:
                reactor.callFromThread(result.callback, found)

        Thread(target=work, daemon=True).start()
        return result

    return start


async def run_checks(checks: Sequence[Check], reactor: Any) -> list[CheckResult]:
    """Run checks; the results are in the same order."""
    running = [Deferred.fromCoroutine(_run_check(check, reactor)) for check in checks]
    return list(await gatherResults(running))


async def _run_check(check: Check, clock: Any) -> CheckResult:
    problem = f"the check did not end within {check.timeout_s:g} s"
    advice = "find out what does not answer: a disk, a name server, a firewall"
    timeout = Finding(check.name, problem, "timeout", advice)

    async def run() -> Sequence[Finding]:
        return await check.run()

    running: Deferred[Any] = Deferred.fromCoroutine(run())
    try:
        found = await running.addTimeout(check.timeout_s, clock, lambda _, __: [timeout])
    except Exception as error:  # noqa: BLE001 - the other checks go on
        problem = f"the check failed: {error}"
        found = [Finding(check.name, problem, type(error).__name__, "report this as a bug")]
    return CheckResult(check.name, tuple(found))
