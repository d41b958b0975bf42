"""Two minutes of the soak; ``nightly`` runs it for half an hour, and compares what grows."""

from __future__ import annotations

import pytest

from tests.soak.soak import Options, Soak

SHORT = Options(120, kill_every_s=30, pause_s=12)
LONG = Options(1800)


@pytest.mark.integration
@pytest.mark.parametrize(
    "options",
    [
        pytest.param(SHORT, id="short", marks=pytest.mark.timeout(400)),
        pytest.param(LONG, id="long", marks=[pytest.mark.nightly, pytest.mark.timeout(2400)]),
    ],
)
def test_nothing_is_lost_and_nothing_leaks(tmp_path, options):
    soak = Soak(options, tmp_path)
    soak.run()
    print(soak.report())
    assert soak.problems() == []
    assert len(soak.kills) == options.seconds // options.kill_every_s - 1
    # The load has been mixed.
    counts = soak.ledger.counts
    assert soak.checked > 50
    assert counts["pushes"] > options.seconds
    for what in ("DELETE 202", "GET 206", "HEAD 200", "PATCH 202", "left early", "token 200"):
        assert counts[what] > 10, what
