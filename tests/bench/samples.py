"""One round of one case at one server: its parameters and its result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import field, frozen

if TYPE_CHECKING:
    from tests.bench.generator import Load
    from tests.bench.seed import Content


@frozen
class Run:
    """The parameters of a round.

    :ivar seconds: duration, where it can be chosen.
    :ivar label: distinguishes the content it pushes from that of all other rounds.
    """

    content: Content
    seconds: float
    label: str


@frozen
class Sample:
    """The result of a round.

    :ivar value: in the unit of the case.
    :ivar p50: the median time of a request, a download or a push, in ms.
    :ivar p99: likewise the 99th percentile.
    :ivar count: the number of requests.
    :ivar processor: the seconds of processor time that the server used.
    :ivar generator: likewise the load generator.
    :ivar elapsed: the seconds that the requests took.
    :ivar more: further figures for the JSON file.
    """

    value: float
    p50: float | None = None
    p99: float | None = None
    errors: int = 0
    fault: str = ""
    count: int = 0
    processor: float | None = None
    generator: float | None = None
    elapsed: float | None = None
    more: dict[str, float] = field(factory=dict)


def failed_sample(fault: str) -> Sample:
    """Return the sample of a failed round."""
    return Sample(0, errors=1, fault=fault)


def sample_from_load(seen: Load, value: float) -> Sample:
    """Return the sample of a load generator's result, with the value of the case."""
    return Sample(
        value,
        seen.p50,
        seen.p99,
        seen.errors,
        seen.fault,
        seen.count,
        generator=seen.processor,
        elapsed=seen.elapsed,
    )


class Measure:
    """The measurement of a case."""

    def check(self, server, run: Run) -> str:
        """Warm up before the first round; return ``""`` or what is wrong with the responses."""
        del server, run
        return ""

    def __call__(self, server, run: Run) -> Sample:
        """Take one sample."""
        raise AssertionError("each measure implements it")

    def seconds(self, run: Run) -> float:
        """Return the estimated duration of a sample in seconds."""
        return run.seconds + 0.3
