"""Progress of a run: a line for each case, or a bar on a terminal."""

import io

import pytest

from tests.bench.cases import Case
from tests.bench.figures import rows
from tests.bench.progress import Progress, duration
from tests.bench.samples import Measure, Sample, failed_sample

CASE = Case("GET", "req/s", Measure(), "manifests")


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_line_shows_ratios_and_the_time_left():
    clock, stream = Clock(), io.StringIO()
    progress = Progress(2, 40.0, stream, clock)
    progress.begin("GET")
    clock.now = 20.0
    progress.done(10.0)
    progress.end(rows(CASE, {"ours": [Sample(3)], "docker-registry": [failed_sample("no")]}, {}))
    assert stream.getvalue() == "1/2 GET, docker-registry FAILED; 1 min 00 s left\n"
    progress.end(rows(CASE, {"ours": [Sample(3)], "docker-registry": [Sample(2)]}, {}))
    assert "ours x1.5" in stream.getvalue()


def test_a_terminal_gets_a_bar():
    stream = Terminal()
    progress = Progress(1, 4.0, stream, Clock())
    progress.begin("GET")
    progress.done(2.0)
    progress.end([])
    last = stream.getvalue().split("\r\033[K")[-1]
    assert last.startswith("[############............] 1/1 0 s left: GET")
    progress.close()
    assert stream.getvalue().endswith("\r\033[K")


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (59, "59 s"), (125, "2 min 05 s")])
def test_durations_are_formatted(seconds, text):
    assert duration(seconds) == text
