"""A fault in one case is reported, and the other cases are still measured."""

import io

import pytest

from tests.bench.cases import Case
from tests.bench.fleet import Fleet
from tests.bench.kinds import Bare
from tests.bench.progress import Progress
from tests.bench.rounds import measure_cases
from tests.bench.samples import Measure, Sample
from tests.bench.seed import QUICK, Content
from tests.bench.servers import Peer, ServerFailed


class Steady(Measure):
    def __call__(self, server, run):
        return Sample(2.0, count=4, elapsed=1.0)


class Raises(Measure):
    def __call__(self, server, run):
        raise ValueError("an unexpected response")


class Refuses(Measure):
    def check(self, server, run):
        return "a body that differs"


class Kills(Measure):
    def __call__(self, server, run):
        server.kill()
        raise ConnectionResetError("the other side is gone")


class Dead(Bare):
    """A server that ends immediately."""

    def command(self, place):
        return ["sh", "-c", "echo it will not do; exit 3"]


def case(measure):
    return Case(type(measure).__name__, "req/s", measure, "manifests", needs=frozenset(), bare=True)


@pytest.fixture
def run(tmp_path):
    """Return a function that measures cases at servers of a kind, twice each."""

    def measure(*measures, kind=None, peers=()):
        cases = [case(measure) for measure in measures]
        kinds = [kind or Bare()]
        with Fleet(kinds, peers, tmp_path, Content(QUICK), str) as fleet:
            progress = Progress(len(cases), 1.0, io.StringIO())
            found = measure_cases(
                fleet, cases, Content(QUICK), rounds=2, seconds=0.1, progress=progress
            )
            return [row for rows in found for row in rows]

    return measure


def test_a_case_yields_a_row(run):
    (row,) = run(Steady())
    assert (row.median, row.errors, row.rounds) == (2, 0, [2, 2])
    assert row.processor is not None


def test_a_failing_case_does_not_affect_the_others(run):
    raised, refused, steady = run(Raises(), Refuses(), Steady())
    assert (raised.errors, raised.fault) == (2, "ValueError: an unexpected response")
    assert (refused.errors, refused.fault) == (1, "a body that differs")
    assert (steady.errors, steady.median) == (0, 2)


def test_a_server_that_dies_is_reported_and_restarted(run):
    killed, steady = run(Kills(), Steady())
    assert killed.errors == 2
    assert killed.fault.startswith("bare ended with status -9")
    assert (steady.errors, steady.median) == (0, 2)


def test_a_server_that_does_not_start_is_reported_in_each_case(run):
    first, second = run(Steady(), Steady(), kind=Dead())
    assert "bare is not up: it will not do" in first.fault
    assert second.fault == first.fault


def test_a_peer_is_measured_in_its_own_setup_only(run, tmp_path):
    plain, secure = Peer("plain", "http://x"), Peer("secure", "https://x")
    with Fleet([], [plain, secure], tmp_path, Content(QUICK), str) as fleet:
        assert fleet.servers_for(case(Steady())) == [plain]


def test_a_server_that_cannot_restart_is_left_out(tmp_path):
    with Fleet([Bare()], [], tmp_path, Content(QUICK), str) as fleet:
        (server,) = fleet.servers_for(case(Steady()))
        server.stop()
        server.kind = Dead()
        with pytest.raises(ServerFailed, match="ended with status"):
            server.check()
        assert "is not up" in server.fault
