from __future__ import annotations

import pytest_twisted

from tests.bench import bearers


@pytest_twisted.ensureDeferred
async def test_each_kind_is_measured_with_and_without_a_token():
    times = await bearers.measure(3)
    found = {name: figures for name, *figures in bearers.rows(times)}
    kinds = [bearers.AGAIN, bearers.OTHER, bearers.FIRST, bearers.SECOND]
    assert list(found) == [*kinds, bearers.BOTH]
    assert {len(each) for each in times.values()} == {3}
    assert all(figure > 0 for figures in found.values() for figure in figures)
    for column in (0, 1):
        both = sum(found[name][column] for name in kinds[2:])
        assert abs(found[bearers.BOTH][column] - both) < 1e-6
