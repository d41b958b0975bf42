"""Invalid credentials: forged, unsigned, expired and foreign tokens, and unknown users.

``auth/test_token_verifier.py`` and ``tokens/test_signing.py`` test each check of a token. These
tests send the credentials over the network, under each authentication scheme.
"""

from __future__ import annotations

import json
from base64 import b64encode, urlsafe_b64decode

import jwt
import pytest
import pytest_twisted
from twisted.internet import reactor

from tests.attacks.defended import OWN, PASSWORDS, SIGNED, TARGET, USERS
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
    head, said, _ = token.split(".")
    return [json.loads(urlsafe_b64decode(each + "=" * (-len(each) % 4))) for each in (head, said)]


def changed(token, said=(), **head):
    """Return a token with changed header or claims and the old signature."""
    old_head, old_said = parts(token)
    new_head, new_said = {**old_head, **head}, {**old_said, **dict(said)}
    return f"{segment(new_head)}.{segment(new_said)}.{token.rpartition('.')[2]}"


def resigned(token, private, algorithm, said=(), **head):
    """Return the claims of a token, signed with the key of an attacker."""
    old_head, old_said = parts(token)
    old_head.pop("alg")
    return jwt.encode({**old_said, **dict(said)}, private, algorithm, headers={**old_head, **head})


def hmacked(token, secret, **head):
    """Return a token that is signed with HMAC and a guessed secret."""
    old_head, said = parts(token)
    return forge({**old_head, "alg": "HS256", **head}, said, secret)


#: Forgeries by name: each function makes one from a valid token.
FORGERIES = {
    **{
        f"alg {name}": lambda token, name=name: forge({**parts(token)[0], "alg": name},
                                                      parts(token)[1])
        for name in ("none", "None", "NONE", "nOnE", "", None)
    },
    "no alg": lambda token: forge({"kid": parts(token)[0]["kid"]}, parts(token)[1]),
    "none, and the signature of another": lambda token: changed(token, alg="none"),
    "no signature": lambda token: token.rpartition(".")[0] + ".",
    "two parts": lambda token: token.rpartition(".")[0],
    "half a signature": lambda token: token[:-20],
    "other claims": lambda token: changed(token, {"sub": "root"}),
    "another head": lambda token: changed(token, typ="at+jwt"),
    "another key": lambda token: resigned(token, OTHER, "ES256"),
    "another key of another kind": lambda token: resigned(token, key("RSA"), "RS256"),
    "another key, which comes along": lambda token: resigned(token, OTHER, "ES256", jwk=jwk(OTHER)),
    "another key, called as ours": lambda token: resigned(
        token, OTHER, "ES256", jwk=jwk(OTHER, kid=parts(token)[0]["kid"])
    ),
    "another key, with a certificate": lambda token: resigned(
        token, OTHER, "ES256", x5c=x5c(certificate(OTHER))
    ),
    **{
        f"another key, to be fetched ({name})": lambda token, name=name: resigned(
            token, OTHER, "ES256", **{name: "http://127.0.0.1:1/keys.json"}
        )
        for name in ("jku", "x5u")
    },
    "the public key as a secret": lambda token: hmacked(token, public_pem(TRUSTED)),
    "the public key as a secret, as JSON": lambda token: hmacked(
        token, json.dumps(jwk(TRUSTED)).encode()
    ),
    **{
        f"{what} as a secret": lambda token, secret=secret: hmacked(token, secret)
        for what, secret in {
            "nothing": b"", "zeros": bytes(32), "the configured secret": b"nobody-knows-this",
            "another": SECRET,
        }.items()
    },
    **{
        f"kid {kid!r}": lambda token, kid=kid: hmacked(token, b"", kid=kid)
        for kid in (
            "/dev/null", "../../../../dev/null", "' UNION SELECT '' --", "", "0", "-1", "*", None,
            "http://127.0.0.1:1/", "a" * 3000, "\x00", "\n", 0, 1.5, [], {}, ["k"], {"k": 1}, True,
        )
    },
    "crit": lambda token: hmacked(token, SECRET, crit=["exp"]),
    "not encoded": lambda token: hmacked(token, SECRET, b64=False, crit=["b64"]),
    "encrypted": lambda token: f"{token}.{segment(b'x')}.{segment(b'y')}",
    "deep": lambda _: f"{segment(b'[' * 4000)}.{segment({})}.",
    "not JSON": lambda _: "eyJ.eyJ.eyJ",
    "nothing": lambda _: "",
    "long": lambda _: "a" * 12_000,
}  # fmt: skip


@pytest.mark.parametrize("name", FORGERIES)
@pytest_twisted.ensureDeferred
async def test_a_forged_token_is_refused(world, name):
    kind = SIGNED if world.kind == PASSWORDS else world.kind
    token = await _good(world, kind)
    forged = FORGERIES[name](token)
    assert forged != token
    challenge = await world.refuses(f"Bearer {forged}")
    if world.kind == PASSWORDS:
        assert challenge == 'Basic realm="here"'
    elif forged:
        assert challenge.endswith('scope="repository:secret/app:pull",error="invalid_token"')
    # A token is not accepted as a password.
    await world.refuses(basic_header("root", forged))
    assert await world.serves()


async def _good(world, kind):
    if kind == OWN:
        return await world.token("root", SCOPE)
    return mint(TRUSTED, "ES256", world.claims("root", SCOPE), kid="k")


def signed(**more):
    return mint(TRUSTED, "ES256", claims(reactor.seconds(), sub="root", **more), kid="k")


@pytest.mark.parametrize(
    "more",
    [
        {"iss": "another"}, {"iss": None}, {"aud": "another"}, {"aud": None},
        {"aud": ["another"]}, {"exp": None}, {"exp": 1}, {"nbf": 2**40},
    ],
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_a_token_for_another_audience_issuer_or_time_is_refused(world, more):
    """The key is trusted, but the claims are for another service or another time."""
    challenge = await world.refuses(f"Bearer {signed(**more)}")
    assert ('error="invalid_token"' in challenge) == (world.kind != PASSWORDS)


@pytest_twisted.ensureDeferred
async def test_credentials_of_another_scheme_are_refused(world):
    async def status(authorization):
        return (
            await world.api.request_target("GET", TARGET, {"Authorization": authorization})
        ).status

    own = await world.token("root", SCOPE) if world.kind == OWN else "eyJ"
    good = {
        PASSWORDS: {basic_header("root", USERS["root"])},
        SIGNED: {"Bearer " + mint(TRUSTED, "ES256", world.claims("root", SCOPE), kid="k")},
        # Clients without support for tokens may send a name and a password.
        OWN: {f"Bearer {own}", basic_header("root", USERS["root"])},
    }
    for shows in set().union(*good.values()):
        assert await status(shows) == (200 if shows in good[world.kind] else 401)
    raw = b64encode(f"root:{USERS['root']}".encode()).decode()
    for shows in (raw, f"Bearer {raw}", f"Basic {own}", f"Digest {raw}", f"Negotiate {raw}",
                  USERS["root"], f"Basic root:{USERS['root']}", f"Basic {raw}, Basic {raw}",
                  f"Bearer {own}, Bearer {own}", "null", "undefined", "Basic null"):  # fmt: skip
        assert await status(shows) == 401, shows


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
async def test_no_other_header_authenticates(world):
    for name, value in HEADERS.items():
        for method in ("GET", "HEAD", "DELETE", "PUT", "POST"):
            answer = await world.api.request_target(method, TARGET, {name: value}, b"")
            assert answer.status in {401, 405}, (name, method)
            assert (answer.status == 405) == (method == "POST")
    for query in ("access_token=x", f"token={USERS['root']}", "_method=GET", "user=root"):
        assert (await world.api.request_target("GET", f"{TARGET}?{query}")).status == 401


@pytest_twisted.ensureDeferred
async def test_two_authorization_headers_give_no_more_access_than_one(world):
    """A second, invalid Authorization header grants nothing that the valid one does not."""
    good = (await _shown(world, "ada"))["Authorization"]
    own = "/v2/team/app/tags/list"
    seen = set()
    for lines in ([good, "Bearer x"], ["Bearer x", good], [good, good], [good, ""]):
        text = "".join(f"Authorization: {line}\r\n" for line in lines)
        for target, answers in ((own, {200, 401}), (TARGET, {401, 403})):
            head = f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{text}\r\n"
            answer = await world.api.raw(head.encode())
            assert answer.status in answers
            seen.add(answer.status)
    assert 200 in seen


async def _shown(world, user):
    if world.kind == PASSWORDS:
        return {"Authorization": basic_header(user, USERS[user])}
    return {"Authorization": f"Bearer {await world.token(user, 'repository:team/app:pull')}"}


@pytest.mark.parametrize("entrance", ["api", "token", "form"])
@pytest_twisted.ensureDeferred
async def test_an_unknown_name_costs_what_a_wrong_password_does(world, monkeypatch, entrance):
    """Count bcrypt checks: their time is the only difference that a client could measure."""
    if world.kind == SIGNED or (world.kind == PASSWORDS and entrance != "api"):
        return
    counted = BcryptCosts(monkeypatch)
    costs = set()
    for name in ("root", "nobody", "", "root\x00", "robot:root", "ci:root", "\xff", "a" * 500):
        for password in ("wrong", "", "x" * 200, "\x00"):
            if not (name or password):
                continue  # the same as no login
            answer = await _enter(world, entrance, name, password)
            assert answer.status == 401, (name, password)
            costs.add(tuple(counted.take()))
    assert costs == {(4,)}


async def _enter(world, entrance, name, password):
    if entrance == "form":
        form = f"grant_type=password&username={_quoted(name)}&password={_quoted(password)}"
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return await world.api.request_target("POST", "/auth/token", kind, form.encode())
    target = "/auth/token" if entrance == "token" else TARGET
    return await world.api.request_target(
        "GET", target, {"Authorization": basic_header(name, password)}
    )


def _quoted(text):
    return "".join(f"%{byte:02x}" for byte in text.encode())
