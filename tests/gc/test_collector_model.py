"""The collector's protocol in every interleaving, with and without each safeguard."""

from __future__ import annotations

import pytest

from tests.gc.collector_model import Rules, explore, is_broken, is_lost

# Hundreds of thousands of states: seconds, or minutes under coverage on a busy machine.
pytestmark = pytest.mark.timeout(900)


def test_no_image_that_was_answered_201_is_broken():
    states, way = explore(Rules(), is_broken)
    assert way is None
    # Both pushes succeed in some interleavings, and the blob is removed in some.
    assert any(all(server.step == "pushed" for server in state.servers) for state in states)
    assert any(not state.store.blob for state in states)
    # A push restores bytes from the trash, unless they are removed from it at that moment.
    copying = [state for state in states if "copying" in {one.step for one in state.servers}]
    assert {"trash", ""} <= {state.store.blob for state in copying}


@pytest.mark.parametrize(
    "missing",
    [
        {"second_mark": False},
        {"read_list": False},
        {"check_presence": False},
        {"collector_stalls": True},
        {"exit_is_certain": False},
    ],
    ids=lambda rules: next(iter(rules)),
)
def test_images_break_without_each_safeguard(missing):
    _, way = explore(Rules(**missing), is_broken)
    assert way is not None


def test_bytes_pushed_again_are_not_lost_unless_a_process_stalls():
    _, way = explore(Rules(processes_stall=False), is_lost)
    assert way is None


@pytest.mark.parametrize(
    "missing",
    [
        {"second_mark": False},
        {"drain": False},
        {"record_first": False},
        {"lease_early": False},
        {"stop_when_overdue": False},
        {"processes_stall": True},
        {"collector_stalls": True},
    ],
    ids=lambda rules: next(iter(rules)),
)
def test_bytes_are_lost_without_each_safeguard(missing):
    _, way = explore(Rules(**{"processes_stall": False, **missing}), is_lost)
    assert way is not None
