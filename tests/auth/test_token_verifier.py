"""Verification of tokens: signatures, keys and claims."""

from __future__ import annotations

import json
from contextlib import suppress

import jwt as library
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from zope.interface.verify import verifyObject

from tests.auth.token_verifiers import (
    LEAF,
    LEAF_CERTIFICATE,
    OTHER,
    ROOT,
    ROOT_CERTIFICATE,
    assert_accepted,
    make_verifier,
    rejection,
)
from tests.support.tokens import (
    ISSUER,
    NOW,
    SECRET,
    SERVICE,
    SIGNING,
    certificate,
    claims,
    forge,
    jwk,
    jwks,
    key,
    mint,
    pem,
    public_pem,
    segment,
    x5c,
)
from twisted_registry.auth.access import LoginFailed
from twisted_registry.auth.interfaces import ANONYMOUS, CATALOG, Access, IScope
from twisted_registry.auth.keys import SigningKey, key_ids
from twisted_registry.config.access import ALGORITHMS


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_algorithms(algorithm):
    kind = SIGNING.get(algorithm)
    token = mint(key(kind) if kind else SECRET, algorithm, kid=kind or "secret")
    assert_accepted(make_verifier(), token)
    others = [each for each in ALGORITHMS if each != algorithm]
    assert (
        "not allowed" in rejection(make_verifier(algorithms=others), token)
        or kind == "RSA"
        or not kind
    )
    rejection(make_verifier(), token[:-8] + ("A" * 8 if token[-8:] != "A" * 8 else "B" * 8))


def test_scope_of_a_token():
    access = [
        {"type": "repository", "name": "a/b", "actions": ["pull"]},
        {"type": "repository", "class": "image", "name": "a/b", "actions": ["push", "pull"]},
        {"type": "repository", "name": "c", "actions": ["*"]},
        {"type": "registry", "name": "catalog", "actions": ["*"]},
        {"type": "repository", "name": "d", "actions": None},
        {},
    ]
    login = make_verifier().verify(mint(SECRET, "HS256", claims(access=access), kid="secret")).login
    assert verifyObject(IScope, login.scope)
    allowed = {
        (name, action)
        for name in ("a/b", "a", "c", "d", "")
        for action in ("pull", "push", "delete", "*")
        if login.scope.allows(login.identity, Access("repository", name, action))
    }
    assert allowed == {
        ("a/b", "pull"), ("a/b", "push"),
        *(("c", action) for action in ("pull", "push", "delete", "*")),
    }  # fmt: skip
    assert login.scope.allows(login.identity, CATALOG)


@pytest.mark.parametrize("more", [{"access": None}, {"access": []}, {"nbf": None}])
def test_optional_claims(more):
    login = make_verifier().verify(mint(SECRET, "HS256", claims(**more), kid="secret")).login
    assert "access" not in more or not login.scope.allows(login.identity, CATALOG)


@pytest.mark.parametrize("subject", [None, ""])
def test_token_without_a_name_is_not_anonymous(subject):
    login = make_verifier().verify(mint(SECRET, "HS256", claims(sub=subject), kid="secret")).login
    assert login.identity == ANONYMOUS
    assert login.identity is not ANONYMOUS


@pytest.mark.parametrize("audience", [SERVICE, [SERVICE], ["x", SERVICE]])
def test_audience_may_be_a_list(audience):
    assert_accepted(make_verifier(), mint(SECRET, "HS256", claims(aud=audience), kid="secret"))


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"iss": "another"}, "wrong issuer"),
        ({"iss": None}, "wrong issuer"),
        ({"iss": [ISSUER]}, "wrong issuer"),
        ({"aud": "another"}, "wrong audience"),
        ({"aud": None}, "wrong audience"),
        ({"aud": [[SERVICE]]}, "wrong audience"),
        ({"aud": {SERVICE: 1}}, "wrong audience"),
        ({"exp": None}, "exp or nbf"),
        ({"exp": "1e99"}, "exp or nbf"),
        ({"exp": True}, "exp or nbf"),
        ({"exp": float("nan")}, "exp or nbf"),
        ({"exp": float("inf")}, "exp or nbf"),
        ({"exp": 10**400}, "OverflowError"),
        ({"nbf": "soon"}, "exp or nbf"),
        ({"sub": 1}, "not a name"),
        ({"sub": "a\nb"}, "not a name"),
        ({"sub": "\ud800"}, "not a name"),
        ({"access": {}}, "access "),
        ({"access": "repository"}, "access "),
        ({"access": 1}, "access "),
        ({"access": [{"type": 1}]}, "access "),
        ({"access": [{"name": ["a"]}]}, "access "),
        ({"access": [{"actions": "pull"}]}, "access "),
        ({"access": [{"actions": [["pull"]]}]}, "access "),
    ],
)
def test_wrong_claims_are_rejected(more, reason):
    token = forge({"alg": "HS256", "kid": "secret"}, claims(**more), SECRET)
    assert reason in rejection(make_verifier(), token)


def test_leeway_of_a_minute():
    token = mint(SECRET, "HS256", claims(exp=NOW, nbf=NOW), kid="secret")
    for offset in (-60, 0, 60):
        assert make_verifier(now=NOW + offset).verify(token).expires == NOW + 60
    assert "has expired" in rejection(make_verifier(now=NOW + 60.1), token)
    assert "not yet valid" in rejection(make_verifier(now=NOW - 60.1), token)


def test_certificate_keys_have_the_ids_of_distribution_2_and_3():
    verifier = make_verifier(pem(ROOT_CERTIFICATE, certificate(key("RSA"))), None)
    for private, algorithm in ((ROOT, "ES256"), (key("RSA"), "RS256")):
        names = key_ids(private.public_key())
        for name in names:
            assert_accepted(verifier, mint(private, algorithm, kid=name))
        assert len(names[-1].split(":")) == 12
        rejection(verifier, mint(OTHER, "ES256", kid=names[0]))
    rejection(verifier, mint(ROOT, "ES256", kid="root"))
    rejection(verifier, mint(ROOT, "ES256"))


def test_thumbprint_of_rfc_7638():
    # RFC 7638 section 3.1.
    n = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMst"
        "n64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
    )  # fmt: skip
    made = SigningKey.from_jwk({"kty": "RSA", "e": "AQAB", "n": n})
    assert key_ids(made.key)[0] == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


def test_key_with_leading_zeros_also_has_the_id_of_distribution():
    found = {len(key_ids(key("P-256", str(number)).public_key())) for number in range(3)}
    assert found == {3}
    number = next(n for n in range(1, 2000) if _x(n) < 2**248)
    standard, shorter, _ = key_ids(ec.derive_private_key(number, ec.SECP256R1()).public_key())
    assert standard != shorter


def _x(number):
    return ec.derive_private_key(number, ec.SECP256R1()).public_key().public_numbers().x


def test_certificate_chains():
    middle = key("P-384", "middle")
    middle_certificate = certificate(middle, (ROOT, ROOT_CERTIFICATE))
    below = certificate(LEAF, (middle, middle_certificate), authority=False)
    verifier = make_verifier(pem(ROOT_CERTIFICATE), None)
    assert_accepted(verifier, mint(LEAF, "ES256", x5c=x5c(LEAF_CERTIFICATE)))
    assert_accepted(verifier, mint(LEAF, "ES256", x5c=x5c(below, middle_certificate)))
    assert_accepted(verifier, mint(ROOT, "ES256", x5c=x5c(ROOT_CERTIFICATE)))
    assert_accepted(
        make_verifier(pem(LEAF_CERTIFICATE), None), mint(LEAF, "ES256", x5c=x5c(LEAF_CERTIFICATE))
    )
    for chain in (
        [below],
        [certificate(LEAF)],
        [certificate(LEAF, (OTHER, ROOT_CERTIFICATE))],
        [certificate(LEAF, (OTHER, certificate(OTHER)))],
        [certificate(OTHER, (LEAF, LEAF_CERTIFICATE)), LEAF_CERTIFICATE],
        [certificate(LEAF, (ROOT, ROOT_CERTIFICATE), ends=-0.5)],
        [LEAF_CERTIFICATE] * 11,
    ):
        rejection(verifier, mint(LEAF, "ES256", x5c=x5c(*chain)))
        rejection(verifier, mint(OTHER, "ES256", x5c=x5c(*chain)))
    rejection(verifier, mint(OTHER, "ES256", x5c=x5c(LEAF_CERTIFICATE)))
    for chain in ("x", ["x"], ["AAAA"], [1], {"a": 1}, x5c(LEAF_CERTIFICATE)[0]):
        rejection(verifier, mint(LEAF, "ES256", x5c=chain))
    assert "no authority" in rejection(
        make_verifier(), mint(LEAF, "ES256", x5c=x5c(LEAF_CERTIFICATE))
    )


def test_expired_chain_is_rejected():
    token = mint(LEAF, "ES256", claims(NOW + 2 * 86400), x5c=x5c(LEAF_CERTIFICATE))
    assert "expired" in rejection(
        make_verifier(pem(ROOT_CERTIFICATE), None, now=NOW + 2 * 86400), token
    )


def test_embedded_key_must_be_trusted():
    verifier = make_verifier(pem(ROOT_CERTIFICATE))
    assert_accepted(verifier, mint(ROOT, "ES256", jwk=jwk(ROOT)))
    assert_accepted(verifier, mint(key("RSA"), "RS256", jwk=jwk(key("RSA"), kid="x")))
    assert_accepted(verifier, mint(LEAF, "ES256", jwk=jwk(LEAF, x5c=x5c(LEAF_CERTIFICATE))))
    rejection(verifier, mint(OTHER, "ES256", jwk=jwk(OTHER)))
    rejection(verifier, mint(OTHER, "ES256", jwk=jwk(OTHER, kid="P-256")))
    rejection(verifier, mint(OTHER, "ES256", jwk=jwk(OTHER), kid="P-256"))
    rejection(verifier, mint(OTHER, "ES256", jwk=jwk(ROOT)))
    rejection(verifier, mint(OTHER, "ES256", jwk=jwk(OTHER, x5c=x5c(LEAF_CERTIFICATE))))
    for brought in (
        "x",
        {},
        {"kty": "oct", "k": segment(SECRET)},
        {"kty": "RSA", "n": "", "e": ""},
    ):
        rejection(verifier, mint(SECRET, "HS256", jwk=brought))


def test_unsigned_tokens_are_rejected():
    for name in ("none", "None", "NONE", "nOnE", "", None, 0, ["HS256"], {"a": 1}):
        for kid in ("secret", "P-256", "RSA"):
            for secret in (None, b"", SECRET):
                if (name, kid) != ("HS256", "secret"):
                    rejection(make_verifier(), forge({"alg": name, "kid": kid}, secret=secret))
    assert rejection(make_verifier(), forge({"kid": "secret"}, secret=SECRET))
    rejection(make_verifier(algorithms=["none"]), forge({"alg": "none", "kid": "secret"}))


@pytest.mark.parametrize("kind", sorted(set(SIGNING.values())))
def test_public_key_is_not_accepted_as_hmac_secret(kind):
    """The attacker uses the public key as an HMAC secret."""
    private = key(kind)
    for secret in (
        public_pem(private),
        public_pem(private).strip(),
        b"",
        json.dumps(jwk(private)).encode(),
    ):
        rejection(make_verifier(), forge({"alg": "HS256", "kid": kind}, secret=secret))


def test_key_is_limited_to_its_algorithms():
    keys = jwks(jwk(key("RSA"), kid="a", alg="RS256"), jwk(key("Ed25519"), kid="b", alg="Ed25519"))
    assert_accepted(make_verifier(keys=keys), mint(key("RSA"), "RS256", kid="a"))
    assert_accepted(make_verifier(keys=keys), mint(key("Ed25519"), "EdDSA", kid="b"))
    rejection(make_verifier(keys=keys), mint(key("RSA"), "PS256", kid="a"))


@pytest.mark.parametrize(
    "kid",
    ["../../../dev/null", "/dev/null", "' OR 1=1 --", "", "P-256\0", "http://evil.example/jwks",
     "keys[0]", "__class__", None, 1, ["P-256"], {"P-256": 1}],
)  # fmt: skip
def test_malicious_key_ids_are_rejected(kid):
    for secret in (None, b"", SECRET):
        rejection(make_verifier(), forge({"alg": "HS256", "kid": kid}, secret=secret))


def test_key_urls_are_ignored():
    for name in ("jku", "x5u"):
        rejection(
            make_verifier(), mint(OTHER, "ES256", kid="other", **{name: "http://127.0.0.1:1/"})
        )


def test_critical_extensions_are_rejected():
    for crit in (["exp"], ["b64"], [], "exp", [1]):
        rejection(
            make_verifier(), forge({"alg": "HS256", "kid": "secret", "crit": crit}, secret=SECRET)
        )
    rejection(
        make_verifier(), forge({"alg": "HS256", "kid": "secret", "b64": False}, secret=SECRET)
    )


@pytest.mark.parametrize(
    "token",
    ["", ".", "..", "...", "a.b", "a.b.c", "a.b.c.d", "\xe4.\u2603.\ud800", "é" * 100,
     f"{segment(b'[')}.{segment({})}.", f"{segment(b'[' * 100_000)}.{segment({})}.",
     f"{segment([])}.{segment({})}.", f"{segment('a')}.{segment({})}."],
)  # fmt: skip
def test_malformed_tokens_are_rejected(token):
    rejection(make_verifier(), token)


@pytest.mark.parametrize("payload", [b"", b"[", b"[]", b"1", b"null", b"\xff", b"[" * 100_000])
def test_malformed_claims_are_rejected(payload):
    jws = library.api_jws.PyJWS()
    token = jws.encode(payload, SECRET, "HS256", headers={"kid": "secret"})
    rejection(make_verifier(), token)


@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=10))
def test_random_text_is_rejected(header, payload, signature):
    rejection(VERIFIER, f"{header}.{payload}.{signature}")
    rejection(
        VERIFIER, f"{segment(header.encode('utf-8', 'replace'))}.{segment(payload)}.{signature}"
    )


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


@given(
    st.dictionaries(st.sampled_from(["alg", "kid", "x5c", "jwk", "crit", "b64", "typ"]), _JSON),
    st.dictionaries(st.sampled_from(["iss", "aud", "exp", "nbf", "sub", "access"]), _JSON),
)
def test_random_unsigned_tokens_are_rejected(header, changes):
    rejection(VERIFIER, forge(header, changes))


@given(st.dictionaries(st.sampled_from(["exp", "nbf", "sub", "access"]), _JSON))
def test_random_signed_claims_raise_nothing_else(changes):
    token = forge({"alg": "HS256", "kid": "secret"}, {**claims(), **changes}, SECRET)
    with suppress(LoginFailed):
        name = VERIFIER.verify(token).login.identity.name
        assert name.encode().decode() == changes.get("sub", "me")


VERIFIER = make_verifier()


def test_secrets_are_not_in_the_repr():
    verifier = make_verifier()
    assert SECRET.decode()[:12] not in repr(verifier)
    assert SECRET.decode()[:12] not in repr(verifier.keyring.keys["secret"])
