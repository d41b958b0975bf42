"""A short run of the fuzzer of a registry that serves; ``.ci/nightly`` has the long one."""

from __future__ import annotations

import sys
from collections import Counter

import pytest
from attrs import evolve

from tests.fuzz.fuzz_registry import Sample, find_growth, find_memory_growth, fuzz
from tests.support.held_objects import Held
from tests.support.process_usage import Usage

#: A registry that keeps each connection.
LEAKING = """
import sys
from tests.support import held_objects
from twisted_registry.http.site import HTTPSite

make, kept = HTTPSite.buildProtocol, []

def make_and_keep(site, address):
    kept.append(make(site, address))
    return kept[-1]

HTTPSite.buildProtocol = make_and_keep
sys.exit(held_objects.main())
"""


@pytest.mark.integration
def test_random_and_mutated_requests_do_no_harm(tmp_path):
    fuzzing = fuzz(tmp_path, count=1500, seed=1)
    assert fuzzing.problems == []
    # The requests are not all refused before they reach a resource.
    assert {b"200", b"201", b"202", b"401", b"404"} <= set(fuzzing.statuses)


@pytest.mark.integration
def test_the_fuzzer_finds_a_leak(tmp_path):
    """A check of the fuzzer itself."""
    fuzzing = fuzz(tmp_path, count=600, seed=1, command=(sys.executable, "-c", LEAKING, "serve"))
    (problem,) = fuzzing.problems
    assert "more blocks" in problem
    assert "HTTPConnection" in problem


SAMPLE = Sample(Usage(1, 10, 5, 50_000), Held(1000, Counter({"dict": 7})), 0)


@pytest.mark.parametrize(
    ("after", "found"),
    [
        (evolve(SAMPLE, uploads=1), "1 uploads were left"),
        (evolve(SAMPLE, usage=Usage(3, 10, 5, 0)), "2 connections were left"),
        (evolve(SAMPLE, usage=Usage(1, 60, 5, 0)), "50 more files"),
        (evolve(SAMPLE, usage=Usage(1, 10, 55, 0)), "50 more threads"),
        (
            evolve(SAMPLE, held=Held(1101, Counter({"dict": 9}))),
            "101 more blocks, among them 2 dict",
        ),
    ],
)
def test_growth_between_two_samples_is_a_problem(after, found):
    assert find_growth(SAMPLE, SAMPLE, 100) == []
    (problem,) = find_growth(SAMPLE, after, 100)
    assert problem.startswith(found)


def test_memory_that_grows_is_a_problem():
    assert find_memory_growth([(at, 50_000 + at % 500) for at in range(100)]) == []
    (problem,) = find_memory_growth([(at, 50_000 + at * 100) for at in range(100)])
    assert "memory grew by 9900 KiB" in problem
