from __future__ import annotations

import pytest_twisted

from tests.attacks.defended import KINDS, defended


@pytest_twisted.async_yield_fixture(scope="module", params=KINDS)
async def world(request, tmp_path_factory):
    """A registry of the module, under each authentication scheme."""
    async with defended(request.param, tmp_path_factory.mktemp("defended")) as made:
        yield made
        assert await made.serves()
        assert not [event for event in made.events if "Traceback" in event]
