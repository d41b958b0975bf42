"""The list of cases: unique names, adjacent setups, suitable servers."""

from itertools import groupby

import pytest

from tests.bench.cases import all_cases
from tests.bench.kinds import Bare, Distribution, Nginx, Ours
from tests.bench.seed import FULL, Content
from tests.bench.setups import PLAIN, Setup

CASES = all_cases(Content(FULL))


def test_names_are_unique():
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names) > 60


def test_cases_of_a_setup_are_adjacent_and_plain_ends_with_peak_memory():
    setups = [setup for setup, _ in groupby(CASES, lambda case: case.setup)]
    assert len(setups) == len(set(setups))
    assert setups[0] == PLAIN
    assert [case.name for case in CASES if case.setup == PLAIN][-1] == "peak memory"


@pytest.mark.parametrize("name", ["blob GET 256 MiB, 16 conn.", "push 256 MiB, 8 clients"])
def test_case_names_contain_the_sizes(name):
    assert name in [case.name for case in CASES]


def test_cases_suit_the_servers_that_can_run_them():
    with_peers = {case.name: case.suits("registry", local=False) for case in CASES}
    assert with_peers["push 4 KiB, 1 client"]
    assert not with_peers["start to first 200"]
    assert not with_peers["tags list of 10000"]
    static = [case.name for case in CASES if case.suits("files", local=True)]
    assert static
    assert all("GET" in name or "HEAD" in name for name in static)
    bare = [case.name for case in CASES if case.suits("page", local=True)]
    assert bare == ["start to first 200", "idle memory"]


def test_settings_without_effect_are_dropped_from_a_setup():
    registry, nginx = Distribution("registry"), Nginx("nginx")
    assert registry.effective(Setup(workers=2, gated=True)) == PLAIN
    assert registry.effective(Setup(tls=True)) == Setup(tls=True)
    assert nginx.effective(Setup(gated=True)) is None
    assert nginx.effective(Setup(login="token")) is None
    assert nginx.effective(Setup(metrics=True, notifications=True, tls=True)) == Setup(tls=True)
    assert Bare().effective(Setup(tls=True)) is None
    assert nginx.effective(Setup(bucket="streamed")) is None
    assert Ours().effective(Setup(gated=True, tls=True)) is None


def test_setups_are_formatted():
    assert str(Setup(tls=True, workers=2)) == "TLS, 2 workers"
    assert str(Setup(bucket="redirected")) == "bucket, redirected"
    assert str(PLAIN) == ""
