"""Tokens that the registry signs, and forged ones."""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import urlsafe_b64encode

import jwt
import pytest
import pytest_twisted
from attrs import evolve
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from twisted.internet.task import Clock

from tests.support.tokens import make_signer
from twisted_registry.auth.access import LEEWAY_S
from twisted_registry.auth.scopes import ResourceActions, Scope
from twisted_registry.tokens.keys import KEYS_TTL_S, TokenKey
from twisted_registry.tokens.signing import TokenClaims, TokenInvalid

KEY = TokenKey(b"0123456789abcdef" * 2)
BEGIN = 1_800_000_000
SCOPE = Scope((ResourceActions("repository", "a/b", ("pull",)),))
ADA = TokenClaims("ada", SCOPE, account="version")


def clock_at(now):
    clock = Clock()
    clock.advance(now)
    return clock


@pytest.fixture
def clock():
    return clock_at(BEGIN)


@pytest.fixture
def signer(clock):
    return make_signer(clock, KEY)


def encode_parts(*parts):
    def one(part):
        raw = part if isinstance(part, bytes) else json.dumps(part).encode()
        return urlsafe_b64encode(raw).rstrip(b"=")

    return b".".join(map(one, parts)).decode()


async def rejection(signer, token):
    with pytest.raises(TokenInvalid) as caught:
        await signer.verify(token)
    assert token not in str(caught.value) or not token
    return str(caught.value)


@pytest.mark.parametrize(
    "claims",
    [
        ADA,
        TokenClaims(""),
        TokenClaims("ada", record="0123456789abcdef"),
        TokenClaims("ci:job", SCOPE, rules=("0123456789abcdef", "fedcba9876543210")),
    ],
)
@pytest_twisted.ensureDeferred
async def test_signed_claims_are_verified(signer, claims):
    token = await signer.sign(claims)
    assert await signer.verify(token) == evolve(claims, expires=BEGIN + 300)
    assert KEY.secret.hex() not in repr((signer, KEY)) + token
    assert repr(KEY.secret) not in repr((signer, KEY))


@pytest_twisted.ensureDeferred
async def test_claims_are_those_of_distribution(signer):
    claims = jwt.decode(await signer.sign(ADA), options={"verify_signature": False})
    assert claims.pop("jti")
    assert claims == {
        "iss": "twisted-registry", "sub": "ada", "aud": "here", "account": "version",
        "iat": BEGIN, "nbf": BEGIN, "exp": BEGIN + 300,
        "access": [{"type": "repository", "name": "a/b", "actions": ["pull"]}],
    }  # fmt: skip


@pytest_twisted.ensureDeferred
async def test_tokens_are_unique(signer):
    assert await signer.sign(ADA) != await signer.sign(ADA)


@pytest_twisted.ensureDeferred
async def test_token_is_valid_for_the_same_key_and_service(signer, clock):
    token = await signer.sign(ADA)
    assert (await make_signer(clock, KEY).verify(token)).name == "ada"
    for other in (
        make_signer(clock, TokenKey.generate()),
        make_signer(clock, KEY, service="elsewhere"),
    ):
        await rejection(other, token)


@pytest_twisted.ensureDeferred
async def test_validity_with_leeway(signer, clock):
    token = await signer.sign(ADA)
    await rejection(make_signer(clock_at(BEGIN - LEEWAY_S - 1), KEY), token)
    clock.advance(300 + LEEWAY_S - 1)
    assert await signer.verify(token)
    clock.advance(1)
    assert "expired" in await rejection(signer, token)


@pytest_twisted.ensureDeferred
async def test_replaced_key_is_accepted_until_its_tokens_have_expired(clock):
    old = make_signer(clock, KEY)
    eternal = await make_signer(clock, KEY, lifetime=10**9).sign(ADA)
    retired = evolve(KEY, retired=float(BEGIN))
    signer = make_signer(clock, TokenKey.generate(), retired)
    # A process that has not yet read the new key signs with the old one.
    clock.advance(KEYS_TTL_S)
    last = await old.sign(ADA)
    clock.advance(300 + LEEWAY_S - 1)
    assert (await signer.verify(last)).name == "ada"
    # What is cached of a token ends with its key, whatever the token says.
    assert (await signer.verify(eternal)).expires == clock.seconds() + 1
    clock.advance(1)
    assert "no longer in use" in await rejection(signer, eternal)
    assert (await signer.verify(await signer.sign(ADA))).name == "ada"


@pytest_twisted.ensureDeferred
async def test_tokens_name_the_key_that_has_signed(clock):
    other = TokenKey.generate()
    token = await make_signer(clock, other, KEY).sign(ADA)
    assert jwt.get_unverified_header(token)["kid"] == other.id
    assert (await make_signer(clock, KEY, other).verify(token)).name == "ada"


def make_claims(**more):
    claims = {
        "iss": "twisted-registry", "sub": "root", "aud": "here", "iat": BEGIN, "nbf": BEGIN,
        "exp": BEGIN + 300,
        "access": [{"type": "repository", "name": "secret", "actions": ["*"]}],
    }  # fmt: skip
    return {name: value for name, value in {**claims, **more}.items() if value is not None}


def sign_claims(claims, **head):
    """A token with any content and a valid signature."""
    unsigned = encode_parts({"alg": "HS256", "kid": KEY.id, **head}, claims)
    mac = hmac.new(KEY.secret, unsigned.encode(), hashlib.sha256).digest()
    return f"{unsigned}.{encode_parts(mac)}"


@pytest_twisted.ensureDeferred
async def test_helper_signs_valid_tokens(signer):
    assert (await signer.verify(sign_claims(make_claims()))).name == "root"


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "", "HS512", "RS256", "EdDSA"])
@pytest_twisted.ensureDeferred
async def test_other_algorithms_are_rejected(signer, alg):
    unsigned = encode_parts({"alg": alg, "kid": KEY.id}, make_claims())
    for signature in ("", sign_claims(make_claims()).rpartition(".")[2]):
        await rejection(signer, f"{unsigned}.{signature}")
    await rejection(signer, sign_claims(make_claims(), alg=alg))


@pytest_twisted.ensureDeferred
async def test_keys_named_by_the_token_are_not_used(signer):
    """Neither an embedded key nor one at a URL."""
    kid = KEY.id
    attacker = rsa.generate_private_key(65537, 2048)
    curve = ec.generate_private_key(ec.SECP256R1())
    public = jwt.algorithms.RSAAlgorithm.to_jwk(attacker.public_key(), as_dict=True)
    for head in ({"jwk": public}, {"jku": "http://127.0.0.1:1/"}, {"x5u": "http://127.0.0.1:1/"}):
        await rejection(signer, jwt.encode(make_claims(), attacker, "RS256", {"kid": kid, **head}))
    await rejection(signer, jwt.encode(make_claims(), curve, "ES256", {"kid": kid}))
    for key in (b"0" * 32, kid.encode().rjust(32), KEY.secret.hex().encode()):
        await rejection(signer, jwt.encode(make_claims(), key, "HS256", {"kid": kid}))


@pytest.mark.parametrize(
    "kid",
    [
        None, "", "0", "-1", "../../../dev/null", "/dev/null", "1 or 1=1", "' union select 'x",
        "9" * 400, "1e9", "٢٠٨٣٣", 20833, [], {}, f"{KEY.id}\n", KEY.id.upper(), KEY.id[:-1],
        [KEY.id], "http://127.0.0.1:1/", "\x00",
    ],
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_malicious_key_ids_are_rejected(signer, kid):
    head = {"alg": "HS256"} if kid is None else {"alg": "HS256", "kid": kid}
    unsigned = encode_parts(head, make_claims())
    for key in (b"", KEY.secret):
        mac = hmac.new(key, unsigned.encode(), hashlib.sha256).digest()
        await rejection(signer, f"{unsigned}.{encode_parts(mac)}")


@pytest.mark.parametrize(
    "more",
    [
        {"exp": None}, {"nbf": None}, {"iss": None}, {"aud": None}, {"sub": None},
        {"iss": "another"}, {"aud": "another"}, {"aud": ["another"]}, {"sub": 1},
        {"exp": "soon"}, {"exp": {}}, {"nbf": []}, {"exp": BEGIN - LEEWAY_S}, {"nbf": BEGIN + 3600},
        {"access": "repository:a:pull"}, {"access": {}}, {"rules": 1}, {"rules": "abc"},
        {"rules": {}}, {"exp": float("nan")}, {"exp": float("inf")},
    ],
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_malformed_claims_are_rejected_even_if_signed(signer, more):
    await rejection(signer, sign_claims(make_claims(**more)))


@pytest.mark.parametrize("token", ["", "x", "a.b", "a.b.c", "a.b.c.d", "é", "..", "{}", "a" * 5000])
@pytest_twisted.ensureDeferred
async def test_malformed_tokens_are_rejected(signer, token):
    await rejection(signer, token)


@pytest.mark.parametrize("nesting", [b"[", b'{"a":'])
@pytest_twisted.ensureDeferred
async def test_deeply_nested_token_is_rejected(signer, nesting):
    """The header is parsed before the signature is verified, the claims after."""
    deep = nesting * 100_000
    assert "header" in await rejection(signer, f"{encode_parts(deep)}.{encode_parts({})}.")
    await rejection(signer, sign_claims(deep))


@pytest_twisted.ensureDeferred
async def test_changed_token_is_rejected(signer):
    head, claims, mac = (await signer.sign(ADA)).split(".")
    other = encode_parts({**make_claims(), "sub": "root"})
    for token in (f"{head}.{other}.{mac}", f"{head}.{claims}.{mac[:-2]}", f"{head}.{claims}."):
        await rejection(signer, token)
