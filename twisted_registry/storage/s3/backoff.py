"""When to ask again: later each time, and never all at once."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from attrs import frozen

from twisted_registry.storage.s3.errors import SlowDown

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted_registry.storage.s3.errors import S3Error


@frozen
class Backoff:
    """Exponential back-off with full jitter.

    :ivar attempts: how often a request is sent at most.
    :ivar base: seconds that the first wait is shorter than; each next one may be twice as long.
    :ivar slow_base: the same, where the store asks for fewer requests.
    :ivar longest: seconds that no wait exceeds.
    :ivar patience: seconds after the first attempt after which there is no other.
    :ivar chance: answers a number from 0 to 1.
    """

    attempts: int = 5
    base: float = 0.2
    slow_base: float = 1.0
    max_delay: float = 10.0
    max_elapsed: float = 60.0
    jitter: Callable[[], float] = random.random

    def delay(self, error: S3Error, attempt: int, elapsed: float) -> float | None:
        """Answer after how many seconds to try again, or None for not at all.

        :param error: what the attempt ended with.
        :param attempt: the number of the attempt, from 1.
        :param elapsed: seconds since the first began.
        """
        if not error.retryable or attempt >= self.attempts or elapsed >= self.max_elapsed:
            return None
        return self.wait(attempt, slow=isinstance(error, SlowDown))

    def wait(self, attempt: int, *, slow: bool) -> float:
        """Answer how many seconds lie between an attempt and the next."""
        base = self.slow_base if slow else self.base
        return min(self.max_delay, base * 2.0 ** (attempt - 1)) * self.jitter()
