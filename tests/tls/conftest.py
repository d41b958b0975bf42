from __future__ import annotations

import pytest

from tests.tls.socket_pair import PARTIAL_WRITE, Pair


@pytest.fixture
def make_pair():
    """Makes connections before their handshake, and closes them after the test."""
    pairs = []

    def make(*arguments, **more):
        pairs.append(Pair(*arguments, **more))
        return pairs[-1]

    yield make
    for pair in pairs:
        pair.close()


@pytest.fixture(params=[0, PARTIAL_WRITE], ids=["whole", "record by record"])
def pair(request, make_pair):
    """A connection after its handshake."""
    return make_pair(request.param).shake_hands()
