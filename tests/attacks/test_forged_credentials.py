"""Invalid credentials: forged, unsigned, expired and foreign tokens, and unknown users.

``auth/test_token_verifier.py`` and ``tokens/test_signing.py`` test each check of a token. These
tests send the credentials over the network, under each authentication scheme.
"""

from __future__ import annotations

import hmac
import json
from base64 import b64encode, urlsafe_b64decode
from urllib.parse import quote

import jwt
import pytest
import pytest_twisted
from twisted.internet import reactor

from tests.attacks.attacked_registry import (
    EXTERNAL_TOKENS,
    OWN_TOKENS,
    PASSWORDS,
    SERVER_SECRET,
    SETUPS_HERE,
    TARGET,
    USERS,
)
from tests.support.passwords import BcryptCosts, basic_header
from tests.support.tokens import (
    SECRET,
    certificate,
    claims,
    forge,
    jwk,
    key,
    mint,
    public_pem,
    segment,
    x5c,
)

SCOPE = "repository:secret/app:pull,push,delete"
OTHER = key("P-256", "attacker")
#: The key of the trusted token server.
TRUSTED = key("P-256")


def parts(token):
    """Return the header and the claims of a token."""
    head, payload, _ = token.split(".")
    return [
        json.loads(urlsafe_b64decode(each + "=" * (-len(each) % 4))) for each in (head, payload)
    ]


def change_token(token, new_claims=(), **head):
    """Return a token with changed header or claims and the old signature."""
    old_head, old_claims = parts(token)
    new_head, merged_claims = {**old_head, **head}, {**old_claims, **dict(new_claims)}
    return f"{segment(new_head)}.{segment(merged_claims)}.{token.rpartition('.')[2]}"


def sign_again(token, private, algorithm, new_claims=(), **head):
    """Return the claims of a token, signed with the key of an attacker."""
    old_head, old_claims = parts(token)
    old_head.pop("alg")
    return jwt.encode(
        {**old_claims, **dict(new_claims)}, private, algorithm, headers={**old_head, **head}
    )


def sign_with_hmac(token, secret, **head):
    """Return a token that is signed with HMAC and a guessed secret."""
    old_head, old_claims = parts(token)
    return forge({**old_head, "alg": "HS256", **head}, old_claims, secret)


def sign_as_earlier_versions(token):
    """Return an administrator's token, signed with a key that was derived from ``http.secret``."""
    period = int(reactor.seconds() // 86_400)
    derived = hmac.digest(
        SERVER_SECRET.encode(), b"twisted-registry token key %d" % period, "sha256"
    )
    rights = [{"repositories": ["**"], "actions": ["*", "pull", "push", "delete"]}]
    head = {**parts(token)[0], "alg": "HS256", "kid": str(period)}
    return forge(head, {**parts(token)[1], "sub": "robot:x", "rights": rights}, derived)


#: Forgeries by name: each function makes one from a valid token.
FORGERIES = {
    **{
        f"alg {name}": lambda token, name=name: forge({**parts(token)[0], "alg": name},
                                                      parts(token)[1])
        for name in ("none", "None", "NONE", "nOnE", "", None)
    },
    "no alg": lambda token: forge({"kid": parts(token)[0]["kid"]}, parts(token)[1]),
    "none, and the signature of another": lambda token: change_token(token, alg="none"),
    "no signature": lambda token: token.rpartition(".")[0] + ".",
    "two parts": lambda token: token.rpartition(".")[0],
    "half a signature": lambda token: token[:-20],
    "other claims": lambda token: change_token(token, {"sub": "root"}),
    "another head": lambda token: change_token(token, typ="at+jwt"),
    "another key": lambda token: sign_again(token, OTHER, "ES256"),
    "another key of another kind": lambda token: sign_again(token, key("RSA"), "RS256"),
    "another key, in the header": lambda token: sign_again(
        token, OTHER, "ES256", jwk=jwk(OTHER)
    ),
    "another key with the trusted kid": lambda token: sign_again(
        token, OTHER, "ES256", jwk=jwk(OTHER, kid=parts(token)[0]["kid"])
    ),
    "another key, with a certificate": lambda token: sign_again(
        token, OTHER, "ES256", x5c=x5c(certificate(OTHER))
    ),
    **{
        f"another key, to be fetched ({name})": lambda token, name=name: sign_again(
            token, OTHER, "ES256", **{name: "http://127.0.0.1:1/keys.json"}
        )
        for name in ("jku", "x5u")
    },
    "the public key as a secret": lambda token: sign_with_hmac(token, public_pem(TRUSTED)),
    "the public key as a secret, as JSON": lambda token: sign_with_hmac(
        token, json.dumps(jwk(TRUSTED)).encode()
    ),
    **{
        f"{what} as a secret": lambda token, secret=secret: sign_with_hmac(token, secret)
        for what, secret in {
            "nothing": b"", "zeros": bytes(32), "the configured secret": b"nobody-knows-this",
            "another": SECRET,
        }.items()
    },
    **{
        f"kid {kid!r}": lambda token, kid=kid: sign_with_hmac(token, b"", kid=kid)
        for kid in (
            "/dev/null", "../../../../dev/null", "' UNION SELECT '' --", "", "0", "-1", "*", None,
            "http://127.0.0.1:1/", "a" * 3000, "\x00", "\n", 0, 1.5, [], {}, ["k"], {"k": 1}, True,
        )
    },
    "a key from the configured secret": sign_as_earlier_versions,
    "crit": lambda token: sign_with_hmac(token, SECRET, crit=["exp"]),
    "not encoded": lambda token: sign_with_hmac(token, SECRET, b64=False, crit=["b64"]),
    "encrypted": lambda token: f"{token}.{segment(b'x')}.{segment(b'y')}",
    "deep": lambda _: f"{segment(b'[' * 4000)}.{segment({})}.",
    "not JSON": lambda _: "eyJ.eyJ.eyJ",
    "nothing": lambda _: "",
    "long": lambda _: "a" * 12_000,
}  # fmt: skip


@pytest.mark.parametrize("name", FORGERIES)
@pytest_twisted.ensureDeferred
async def test_a_forged_token_is_refused(registry, name):
    scheme = EXTERNAL_TOKENS if registry.scheme == PASSWORDS else registry.scheme
    token = await _valid_token(registry, scheme)
    forged = FORGERIES[name](token)
    assert forged != token
    challenge = await registry.assert_refused(f"Bearer {forged}")
    if registry.scheme == PASSWORDS:
        assert challenge == 'Basic realm="here"'
    elif forged:
        assert challenge.endswith('scope="repository:secret/app:pull",error="invalid_token"')
    # A token is not accepted as a password.
    await registry.assert_refused(basic_header("root", forged))
    await registry.assert_still_serves()


async def _valid_token(registry, scheme):
    if scheme == OWN_TOKENS:
        return await registry.token("root", SCOPE)
    return mint(TRUSTED, "ES256", registry.claims("root", SCOPE), kid="k")


def external_token(**more):
    return mint(TRUSTED, "ES256", claims(reactor.seconds(), sub="root", **more), kid="k")


@pytest.mark.parametrize(
    "more",
    [
        {"iss": "another"}, {"iss": None}, {"aud": "another"}, {"aud": None},
        {"aud": ["another"]}, {"exp": None}, {"exp": 1}, {"nbf": 2**40},
    ],
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_a_token_for_another_audience_issuer_or_time_is_refused(registry, more):
    """The key is trusted, but the claims are for another service or another time."""
    challenge = await registry.assert_refused(f"Bearer {external_token(**more)}")
    assert ('error="invalid_token"' in challenge) == (registry.scheme != PASSWORDS)


@pytest_twisted.ensureDeferred
async def test_credentials_of_another_scheme_are_refused(registry):
    async def status(authorization):
        headers = {"Authorization": authorization}
        return (await registry.api.request_target("GET", TARGET, headers)).status

    own = await registry.token("root", SCOPE) if registry.scheme == OWN_TOKENS else "eyJ"
    good = {
        PASSWORDS: {basic_header("root", USERS["root"])},
        EXTERNAL_TOKENS: {f"Bearer {await _valid_token(registry, EXTERNAL_TOKENS)}"},
        # Clients without support for tokens may send a name and a password.
        OWN_TOKENS: {f"Bearer {own}", basic_header("root", USERS["root"])},
    }
    for authorization in set().union(*good.values()):
        expected = 200 if authorization in good[registry.scheme] else 401
        assert await status(authorization) == expected
    raw = b64encode(f"root:{USERS['root']}".encode()).decode()
    for authorization in (raw, f"Bearer {raw}", f"Basic {own}", f"Digest {raw}", f"Negotiate {raw}",
                  USERS["root"], f"Basic root:{USERS['root']}", f"Basic {raw}, Basic {raw}",
                  f"Bearer {own}, Bearer {own}", "null", "undefined", "Basic null"):  # fmt: skip
        assert await status(authorization) == 401, authorization


HEADERS = {
    "X-Remote-User": "root",
    "Remote-User": "root",
    "X-Forwarded-User": "root",
    "X-Forwarded-For": "127.0.0.1",
    "X-Real-IP": "127.0.0.1",
    "Forwarded": "for=127.0.0.1;proto=https",
    "X-Original-URL": "/v2/public/app/tags/list",
    "X-Rewrite-URL": "/v2/public/app/tags/list",
    "X-HTTP-Method-Override": "GET",
    "X-Client-Cert": "root",
    "X-SSL-Client-Verify": "SUCCESS",
    "X-SSL-Client-S-DN": "CN=root",
    "Cookie": "user=root; session=1",
    "Proxy-Authorization": basic_header("root", USERS["root"]),
    "X-Registry-Auth": basic_header("root", USERS["root"]),
}


@pytest_twisted.ensureDeferred
async def test_no_other_header_authenticates(registry):
    for name, value in HEADERS.items():
        for method in ("GET", "HEAD", "DELETE", "PUT", "POST"):
            answer = await registry.api.request_target(method, TARGET, {name: value}, b"")
            assert answer.status in {401, 405}, (name, method)
            assert (answer.status == 405) == (method == "POST")
    for query in ("access_token=x", f"token={USERS['root']}", "_method=GET", "user=root"):
        assert (await registry.api.request_target("GET", f"{TARGET}?{query}")).status == 401


@pytest_twisted.ensureDeferred
async def test_two_authorization_headers_give_no_more_access_than_one(registry):
    """A second, invalid Authorization header grants nothing that the valid one does not."""
    good = (await _authorization(registry, "ada"))["Authorization"]
    own = "/v2/team/app/tags/list"
    seen = set()
    for lines in ([good, "Bearer x"], ["Bearer x", good], [good, good], [good, ""]):
        text = "".join(f"Authorization: {line}\r\n" for line in lines)
        for target, answers in ((own, {200, 401}), (TARGET, {401, 403})):
            head = f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{text}\r\n"
            answer = await registry.api.raw(head.encode())
            assert answer.status in answers
            seen.add(answer.status)
    assert 200 in seen


async def _authorization(registry, user):
    if registry.scheme == PASSWORDS:
        return {"Authorization": basic_header(user, USERS[user])}
    return {"Authorization": f"Bearer {await registry.token(user, 'repository:team/app:pull')}"}


@pytest.mark.parametrize("registry", SETUPS_HERE, ids=str, indirect=True)
@pytest.mark.parametrize("endpoint", ["api", "token", "form"])
@pytest_twisted.ensureDeferred
async def test_an_unknown_name_costs_what_a_wrong_password_does(registry, monkeypatch, endpoint):
    """Count bcrypt checks: their time is the only difference that a client could measure."""
    if registry.scheme == EXTERNAL_TOKENS or (registry.scheme == PASSWORDS and endpoint != "api"):
        return
    counted = BcryptCosts(monkeypatch)
    costs = set()
    for name in ("root", "nobody", "", "root\x00", "robot:root", "ci:root", "\xff", "a" * 500):
        for password in ("wrong", "", "x" * 200, "\x00"):
            if not (name or password):
                continue  # the same as no login
            answer = await _log_in(registry, endpoint, name, password)
            assert answer.status == 401, (name, password)
            costs.add(tuple(counted.take()))
    assert costs == {(4,)}


async def _log_in(registry, endpoint, name, password):
    if endpoint == "form":
        form = f"grant_type=password&username={quote(name)}&password={quote(password)}"
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return await registry.api.request_target("POST", "/auth/token", headers, form.encode())
    target = "/auth/token" if endpoint == "token" else TARGET
    return await registry.api.request_target(
        "GET", target, {"Authorization": basic_header(name, password)}
    )
