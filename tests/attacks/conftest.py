from __future__ import annotations

import pytest_twisted

from tests.attacks.attacked_registry import SCHEMES, serve_registry


@pytest_twisted.async_yield_fixture(scope="module", params=SCHEMES)
async def registry(request, tmp_path_factory):
    """The registry of a module, with each authentication scheme."""
    async with serve_registry(request.param, tmp_path_factory.mktemp("attacked")) as made:
        yield made
        await made.assert_still_serves()
        assert not [event for event in made.events if "Traceback" in event]
