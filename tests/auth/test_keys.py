"""Keys, key sets and certificate bundles for token signatures."""

from __future__ import annotations

import jwt as library
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.auth.token_verifiers import (
    OTHER,
    ROOT,
    ROOT_CERTIFICATE,
    assert_accepted,
    make_verifier,
    rejection,
)
from tests.support.tokens import SECRET, jwk, jwks, mint, pem, private_pem, segment
from twisted_registry.auth.keys import KeyUnusable, SigningKey, TrustAnchors, key_ids, make_keyring


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b"null", b'{"keys": {}}', b'{"keys": [1]}', b"\xff", b"[" * 100_000],
)
def test_malformed_key_set_is_an_error(content):
    with pytest.raises(KeyUnusable, match="expected JSON with a list of keys"):
        make_keyring(None, content)


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ({"kty": "RSA", "n": "AQAB", "e": "AQAB"}, "keys[0]: the key cannot be read"),
        ({}, "cannot be read"),
        ({"kty": "oct", "k": segment(b"hunter2"), "kid": "a"}, "is too short"),
        ({"kty": "oct", "k": segment(SECRET), "alg": "RS256"}, "does not fit its alg"),
        ({"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"}, "cannot be read"),
        ({"kty": "OKP", "crv": "X25519", "x": "AA"}, "cannot be read"),
    ],
)
def test_error_of_an_unusable_key_does_not_contain_it(listed, message):
    with pytest.raises(KeyUnusable) as caught:
        make_keyring(None, jwks(listed))
    assert message in str(caught.value)
    assert not any(str(value) in str(caught.value) for value in listed.values() if len(value) > 6)


def test_keys_for_other_uses_are_ignored():
    keys = jwks(jwk(OTHER, kid="other", use="enc"), jwk(ROOT, kid="root", use="sig"))
    assert_accepted(make_verifier(keys=keys), mint(ROOT, "ES256", kid="root"))
    rejection(make_verifier(keys=keys), mint(OTHER, "ES256", kid="other"))
    with pytest.raises(KeyUnusable, match="no key for signatures"):
        make_keyring(None, jwks(jwk(OTHER, use="enc")))
    with pytest.raises(KeyUnusable):
        SigningKey.from_jwk(jwk(OTHER, use="enc"))


def test_only_the_public_half_of_a_private_key_is_kept():
    algorithm = library.algorithms.get_default_algorithms()["ES256"]
    private = {**algorithm.to_jwk(OTHER, as_dict=True), "kid": "other"}
    assert "d" in private
    checking = make_verifier(keys=jwks(private))
    assert_accepted(checking, mint(OTHER, "ES256", kid="other"))
    assert not hasattr(checking.keyring.keys["other"].key, "sign")


def test_weak_and_unknown_keys_are_rejected():
    small = rsa.generate_private_key(65537, 1024)
    for weak in (
        small.public_key(),
        ec.generate_private_key(ec.SECP256K1()).public_key(),
        object(),
    ):
        with pytest.raises(KeyUnusable):
            SigningKey.from_public_key(weak)
    assert key_ids(object()) == key_ids(ec.generate_private_key(ec.SECP256K1()).public_key()) == ()


@pytest.mark.parametrize("content", [b"", b"x", private_pem(OTHER), pem(ROOT_CERTIFICATE)[:-60]])
def test_malformed_certificate_bundle_is_an_error(content):
    with pytest.raises(ValueError):
        TrustAnchors.from_pem(content)
