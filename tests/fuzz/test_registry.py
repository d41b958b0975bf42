"""A short run of the fuzzer of a registry that serves; ``.ci/nightly`` has the long one."""

from __future__ import annotations

import pytest

from tests.fuzz.fuzz_registry import fuzz


@pytest.mark.integration
def test_random_and_mutated_requests_do_no_harm(tmp_path):
    fuzzing = fuzz(tmp_path, count=1500, seed=1)
    assert fuzzing.problems == []
    # The requests are not all refused before they reach a resource.
    assert {b"200", b"201", b"202", b"401", b"404"} <= set(fuzzing.statuses)
