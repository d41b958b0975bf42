"""The collector's protocol holds in every interleaving, and each safeguard is needed."""

from __future__ import annotations

import pytest

from tests.gc.collector_model import Rules, explore, is_broken, is_lost

# Hundreds of thousands of states: seconds, but minutes under coverage on a machine that is busy.
pytestmark = pytest.mark.timeout(900)


def test_no_image_that_was_answered_201_is_ever_broken():
    states, way = explore(Rules(), is_broken)
    assert way is None
    # It is not safe because nothing happens.
    assert any(all(server.step == "pushed" for server in state.servers) for state in states)
    assert any(not state.store.blob for state in states)
    # What is in the trash comes back for a push, unless somebody empties it just then.
    copying = [state for state in states if "copying" in {one.step for one in state.servers}]
    assert {"trash", ""} <= {state.store.blob for state in copying}


@pytest.mark.parametrize(
    "missing",
    [{"second_look": False}, {"read_back": False}, {"probe": False}, {"stalls": True}],
    ids=lambda rules: next(iter(rules)),
)
def test_without_a_safeguard_images_break(missing):
    _, way = explore(Rules(**missing), is_broken)
    assert way is not None


def test_no_bytes_that_were_pushed_again_are_lost_unless_a_process_stalls_for_long():
    _, way = explore(Rules(lapses=False), is_lost)
    assert way is None


@pytest.mark.parametrize(
    "missing",
    [
        {"second_look": False},
        {"quiet": False},
        {"record_first": False},
        {"lapses": True},
        {"stalls": True},
    ],
    ids=lambda rules: next(iter(rules)),
)
def test_without_a_safeguard_bytes_are_lost(missing):
    _, way = explore(Rules(**{"lapses": False, **missing}), is_lost)
    assert way is not None
