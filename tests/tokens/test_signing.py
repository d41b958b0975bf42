"""Tokens that the registry signs, and forged ones."""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import urlsafe_b64encode

import jwt
import pytest
from attrs import evolve
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from twisted.internet.task import Clock

from twisted_registry.auth.access import LEEWAY_S
from twisted_registry.auth.interfaces import Identity
from twisted_registry.auth.rules import IdentityWithRights, Right, Rights
from twisted_registry.auth.scopes import ResourceActions, Scope
from twisted_registry.tokens.signing import TokenClaims, TokenInvalid, TokenSigner

SECRET = b"the secret of a store, and of who shares it"
DAY = 24 * 3600.0
BEGIN = 1_800_000_000 // DAY * DAY
SCOPE = Scope((ResourceActions("repository", "a/b", ("pull",)),))
ADA = TokenClaims(Identity("ada", frozenset({"team"})), SCOPE)


@pytest.fixture
def clock():
    clock = Clock()
    clock.advance(BEGIN)
    return clock


@pytest.fixture
def signer(clock):
    return TokenSigner(SECRET, clock, "here", 300.0, DAY)


def encode_parts(*parts):
    def one(part):
        raw = part if isinstance(part, bytes) else json.dumps(part).encode()
        return urlsafe_b64encode(raw).rstrip(b"=")

    return b".".join(map(one, parts)).decode()


def rejection(signer, token):
    with pytest.raises(TokenInvalid) as caught:
        signer.verify(token)
    assert token not in str(caught.value) or not token
    return str(caught.value)


@pytest.mark.parametrize(
    "claims",
    [
        ADA,
        TokenClaims(Identity("")),
        TokenClaims(Identity("ada"), record="0123456789abcdef"),
        TokenClaims(
            IdentityWithRights(
                "robot:ci", Rights((Right.make(["a/**", "!a/b"], ["push", "delete"]),))
            ),
            SCOPE,
        ),
    ],
)
def test_signed_claims_are_verified(signer, claims):
    assert signer.verify(signer.sign(claims)) == evolve(claims, expires=BEGIN + 300)
    assert "secret" not in repr(signer)


def test_claims_are_those_of_distribution(signer):
    token = signer.sign(ADA)
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims.pop("jti")
    assert claims == {
        "iss": "twisted-registry", "sub": "ada", "aud": "here", "groups": ["team"],
        "iat": BEGIN, "nbf": BEGIN, "exp": BEGIN + 300,
        "access": [{"type": "repository", "name": "a/b", "actions": ["pull"]}],
    }  # fmt: skip


def test_tokens_are_unique(signer):
    assert signer.sign(ADA) != signer.sign(ADA)


def test_token_is_valid_for_the_same_secret_and_service(signer, clock):
    token = signer.sign(ADA)
    assert TokenSigner(SECRET, clock, "here", 300.0, DAY).verify(token).identity.name == "ada"
    for other in (
        TokenSigner(b"another", clock, "here", 300.0, DAY),
        TokenSigner(SECRET, clock, "elsewhere", 300.0, DAY),
    ):
        rejection(other, token)


def test_validity_with_leeway(signer, clock):
    token = signer.sign(ADA)
    early = Clock()
    early.advance(BEGIN - LEEWAY_S - 1)
    rejection(evolve(signer, clock=early), token)
    clock.advance(300 + LEEWAY_S - 1)
    assert signer.verify(token)
    clock.advance(1)
    assert "expired" in rejection(signer, token)


def test_key_of_the_previous_period_is_accepted(signer, clock):
    clock.advance(DAY - 1)
    before = signer.sign(ADA)
    clock.advance(2)
    after = signer.sign(ADA)
    kids = [jwt.get_unverified_header(token)["kid"] for token in (before, after)]
    assert int(kids[1]) == int(kids[0]) + 1
    assert signer.verify(before)
    assert signer.verify(after)
    # A machine whose clock is behind has the key already.
    behind = Clock()
    behind.advance(clock.seconds() - 30)
    assert evolve(signer, clock=behind).verify(after)


def test_old_key_is_rejected(signer, clock):
    eternal = evolve(signer, lifetime=100 * DAY)
    token = eternal.sign(ADA)
    clock.advance(DAY)
    assert signer.verify(token)
    clock.advance(DAY)
    assert "no longer in use" in rejection(signer, token)


def make_claims(**more):
    claims = {
        "iss": "twisted-registry", "sub": "root", "aud": "here", "iat": BEGIN, "nbf": BEGIN,
        "exp": BEGIN + 300,
        "access": [{"type": "repository", "name": "secret", "actions": ["*"]}],
    }  # fmt: skip
    return {name: value for name, value in {**claims, **more}.items() if value is not None}


def key_of(period):
    """The key of a period. Releases that share a secret have to derive the same key."""
    return hmac.digest(SECRET, b"twisted-registry token key %d" % period, hashlib.sha256)


def sign_claims(claims, **head):
    """A token with any content and a valid signature."""
    period = int(BEGIN // DAY)
    unsigned = encode_parts({"alg": "HS256", "kid": str(period), **head}, claims)
    mac = hmac.new(key_of(period), unsigned.encode(), hashlib.sha256).digest()
    return f"{unsigned}.{encode_parts(mac)}"


def test_helper_signs_valid_tokens(signer):
    assert signer.verify(sign_claims(make_claims())).identity.name == "root"


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "", "HS512", "RS256", "EdDSA"])
def test_other_algorithms_are_rejected(signer, alg):
    kid = str(int(BEGIN // DAY))
    unsigned = encode_parts({"alg": alg, "kid": kid}, make_claims())
    for signature in ("", sign_claims(make_claims()).rpartition(".")[2]):
        rejection(signer, f"{unsigned}.{signature}")
    rejection(signer, sign_claims(make_claims(), alg=alg))


def test_keys_named_by_the_token_are_not_used(signer):
    """Neither an embedded key nor one at a URL."""
    kid = str(int(BEGIN // DAY))
    attacker = rsa.generate_private_key(65537, 2048)
    curve = ec.generate_private_key(ec.SECP256R1())
    public = jwt.algorithms.RSAAlgorithm.to_jwk(attacker.public_key(), as_dict=True)
    for head in ({"jwk": public}, {"jku": "http://127.0.0.1:1/"}, {"x5u": "http://127.0.0.1:1/"}):
        rejection(signer, jwt.encode(make_claims(), attacker, "RS256", {"kid": kid, **head}))
    rejection(signer, jwt.encode(make_claims(), curve, "ES256", {"kid": kid}))
    for key in (b"0" * 32, kid.encode().rjust(32), SECRET):
        rejection(signer, jwt.encode(make_claims(), key, "HS256", {"kid": kid}))


@pytest.mark.parametrize(
    "kid",
    [
        None, "", "0", "-1", "../../../dev/null", "/dev/null", "1 or 1=1", "' union select 'x",
        "9" * 400, "1e9", "٢٠٨٣٣", 20833, [], {}, "20833\n", "http://127.0.0.1:1/", "\x00",
    ],
)  # fmt: skip
def test_malicious_key_ids_are_rejected(signer, kid):
    head = {"alg": "HS256"} if kid is None else {"alg": "HS256", "kid": kid}
    unsigned = encode_parts(head, make_claims())
    for key in (b"", SECRET, key_of(0), key_of(int(BEGIN // DAY))):
        mac = hmac.new(key, unsigned.encode(), hashlib.sha256).digest()
        rejection(signer, f"{unsigned}.{encode_parts(mac)}")


@pytest.mark.parametrize(
    "more",
    [
        {"exp": None}, {"nbf": None}, {"iss": None}, {"aud": None}, {"sub": None},
        {"iss": "another"}, {"aud": "another"}, {"aud": ["another"]}, {"sub": 1},
        {"exp": "soon"}, {"exp": {}}, {"nbf": []}, {"exp": BEGIN - LEEWAY_S}, {"nbf": BEGIN + 3600},
        {"access": "repository:a:pull"}, {"access": {}}, {"groups": 1}, {"rights": 1},
        {"rights": [{}]}, {"rights": [{"repositories": ["a**"], "actions": ["pull"]}]},
    ],
)  # fmt: skip
def test_malformed_claims_are_rejected_even_if_signed(signer, more):
    rejection(signer, sign_claims(make_claims(**more)))


@pytest.mark.parametrize("token", ["", "x", "a.b", "a.b.c", "a.b.c.d", "é", "..", "{}", "a" * 5000])
def test_malformed_tokens_are_rejected(signer, token):
    rejection(signer, token)


def test_changed_token_is_rejected(signer):
    head, claims, mac = signer.sign(ADA).split(".")
    other = encode_parts({**make_claims(), "sub": "root"})
    for token in (f"{head}.{other}.{mac}", f"{head}.{claims}.{mac[:-2]}", f"{head}.{claims}."):
        rejection(signer, token)
