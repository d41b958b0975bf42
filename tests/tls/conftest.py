"""A connection that has shaken hands."""

from __future__ import annotations

import pytest

from tests.tls.socket_pair import PARTIAL_WRITE, Pair


@pytest.fixture(params=[0, PARTIAL_WRITE], ids=["whole", "record by record"])
def pair(request):
    made = Pair(request.param).shake_hands()
    yield made
    made.theirs.close()
    if made.below.closed is None:
        made.below.end.close()
