from __future__ import annotations

import pytest_twisted

from tests.attacks.attacked_registry import SETUPS, serve_registry


@pytest_twisted.async_yield_fixture(scope="module", params=SETUPS, ids=str)
async def registry(request, tmp_path_factory):
    """The registry of a module, with each authentication scheme, and with one and two workers."""
    scheme, workers = request.param
    async with serve_registry(scheme, tmp_path_factory.mktemp("attacked"), workers) as made:
        yield made
        await made.assert_still_serves()
        assert "Traceback" not in made.logged()
