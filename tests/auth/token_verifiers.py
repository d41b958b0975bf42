"""Keys, and a TokenVerifier that assert_accepted them."""

from __future__ import annotations

import pytest

from tests.support.tokens import (
    ISSUER,
    NOW,
    SECRET,
    SERVICE,
    SIGNING,
    certificate,
    jwk,
    jwks,
    key,
    segment,
)
from twisted_registry.auth.access import LoginFailed
from twisted_registry.auth.bearer import TokenVerifier
from twisted_registry.auth.interfaces import Identity
from twisted_registry.auth.keys import TrustAnchors, make_keyring
from twisted_registry.config.access import ALGORITHMS

ROOT, LEAF, OTHER = key("P-256", "root"), key("P-256", "leaf"), key("P-256", "other")
ROOT_CERTIFICATE = certificate(ROOT)
LEAF_CERTIFICATE = certificate(LEAF, (ROOT, ROOT_CERTIFICATE), authority=False)
KEY_SET = jwks(
    *(jwk(key(kind), kid=kind) for kind in sorted(set(SIGNING.values()))),
    {"kty": "oct", "k": segment(SECRET), "kid": "secret"},
)


def make_verifier(bundle=None, keys=KEY_SET, algorithms=ALGORITHMS, now=NOW):
    authorities = None if bundle is None else TrustAnchors.from_pem(bundle)
    ring = make_keyring(authorities, keys)
    return TokenVerifier(ISSUER, SERVICE, ring, lambda: now, frozenset(algorithms))


def rejection(verifier, token):
    """Check that a token is rejected; return the reason."""
    with pytest.raises(LoginFailed) as caught:
        verifier.verify(token)
    assert caught.value.error == "invalid_token"
    return caught.value.reason


def assert_accepted(verifier, token):
    """Check that a token is accepted, as that of the user "me"."""
    assert verifier.verify(token).login.identity == Identity("me")
