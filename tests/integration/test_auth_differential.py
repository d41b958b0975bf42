"""With the same users and keys, this registry and Distribution 2.8.3 send the same responses.

Compares status, challenge, code and detail of the error, for many requests and credentials.
"""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime

import pytest

from tests.integration.images import image
from tests.integration.servers import DISTRIBUTION, OURS
from tests.support.manifests import digest_of
from tests.support.passwords import basic_header, password_lines
from tests.support.tokens import (
    ISSUER,
    REALM,
    SERVICE,
    certificate,
    claims,
    forge,
    jwk,
    key,
    mint,
    pem,
    public_pem,
    x5c,
)
from twisted_registry.auth.keys import key_ids
from twisted_registry.oci.manifest import OCI_IMAGE

pytestmark = pytest.mark.integration

DIGEST = digest_of(b"not there")
MADE = image("differential")
#: Method, path, body.
REQUESTS = [
    ("GET", "/v2/", None),
    ("HEAD", "/v2/", None),
    ("GET", "/v2/_catalog", None),
    ("GET", "/v2/_catalog?n=5", None),
    ("GET", "/v2/a/b/tags/list", None),
    ("GET", "/v2/a/b/manifests/latest", None),
    ("HEAD", "/v2/a/b/manifests/latest", None),
    ("GET", f"/v2/a/b/manifests/{DIGEST}", None),
    ("PUT", "/v2/a/b/manifests/latest", b"{}"),
    ("DELETE", f"/v2/a/b/manifests/{DIGEST}", None),
    ("GET", f"/v2/a/b/blobs/{DIGEST}", None),
    ("HEAD", f"/v2/a/b/blobs/{DIGEST}", None),
    ("DELETE", f"/v2/a/b/blobs/{DIGEST}", None),
    ("POST", "/v2/a/b/blobs/uploads/", b""),
    ("POST", f"/v2/a/b/blobs/uploads/?mount={DIGEST}&from=c/d", b""),
    ("PATCH", "/v2/a/b/blobs/uploads/6a1c4d0e-0000-4000-8000-000000000000", b"x"),
    ("PUT", f"/v2/a/b/blobs/uploads/6a1c4d0e-0000-4000-8000-000000000000?digest={DIGEST}", b"x"),
]
#: Requests whose errors differ on purpose after a login; they are not about access.
DIFFERENT_ERRORS = {
    # An invalid manifest: 2.8.3 knows no type for it; this registry parses it.
    ("PUT", "/v2/a/b/manifests/latest"),
    # 2.8.3 sends an error if the store is empty.
    ("GET", "/v2/_catalog"),
    ("GET", "/v2/_catalog?n=5"),
}


def challenge(text):
    """Parse a challenge; the order of scopes and of their actions does not matter."""
    if text is None:
        return None
    scheme, _, rest = text.partition(" ")
    parameters = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', rest))
    assert rest == ",".join(f'{name}="{value}"' for name, value in parameters.items())
    if "scope" in parameters:
        parts = [each.rpartition(":") for each in parameters["scope"].split(" ")]
        parameters["scope"] = sorted((of, sorted(actions.split(","))) for of, _, actions in parts)
    return scheme, list(parameters), parameters


def result_of(served, method, path, body, authorization):
    """Return the parts of a response to compare."""
    headers = {} if authorization is None else {"Authorization": authorization}
    if body is not None:
        headers["Content-Type"] = OCI_IMAGE
    response = served.remote.request(method, path, body, headers)
    parameters = challenge(response.headers.get("www-authenticate"))
    if method == "HEAD" or response.status != 401:
        return response.status, parameters, None
    document = json.loads(response.body)
    (error,) = document["errors"]
    detail = error.get("detail")
    assert response.headers["content-type"].startswith("application/json")
    return response.status, parameters, (error["code"], error["message"], detail)


def compare(launcher, tmp_path, more, credentials):
    """Compare both registries with the same configuration and separate stores."""
    ours, theirs = (
        launcher.start(kind, tmp_path / kind, more=more) for kind in (OURS, DISTRIBUTION)
    )
    differing = []
    for name, authorization in credentials.items():
        for method, path, body in REQUESTS:
            pair = [result_of(each, method, path, body, authorization) for each in (ours, theirs)]
            is_logged_in = 401 not in {status for status, *_ in pair}
            if pair[0] != pair[1] and not (is_logged_in and (method, path) in DIFFERENT_ERRORS):
                differing.append((name, method, path, *pair))
    assert differing == []


def test_htpasswd_responses_match_distribution(launcher, tmp_path):
    users = tmp_path / "users"
    users.write_bytes(
        b"# people\n\n"
        + password_lines(me="secret", you="a:b")
        + b"weak:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n"
    )
    more = f'auth:\n  htpasswd:\n    realm: the "realm" with quotes\n    path: {users}\n'
    compare(launcher, tmp_path, more, {
        "nothing": None,
        "empty": "",
        "good": basic_header("me", "secret"),
        "a colon in it": basic_header("you", "a:b"),
        "another case": basic_header("me", "secret").replace("Basic", "bAsIC"),
        "wrong": basic_header("me", "Secret"),
        "of another": basic_header("you", "secret"),
        "unknown": basic_header("nobody", "secret"),
        "not bcrypt": basic_header("weak", "password"),
        "no password": basic_header("me", ""),
        "no name": basic_header("", "secret"),
        "no colon": "Basic bWU=",
        "no base64": "Basic !",
        "nothing behind": "Basic",
        "two spaces": basic_header("me", "secret").replace(" ", "  "),
        "a token": "Bearer abc",
        "a comment": basic_header("# people", ""),
    })  # fmt: skip


def test_a_changed_htpasswd_file_is_read_again(launcher, tmp_path):
    users = tmp_path / "users"
    users.write_bytes(password_lines(me="secret"))
    more = f"auth:\n  htpasswd:\n    realm: here\n    path: {users}\n"
    both = [launcher.start(kind, tmp_path / kind, more=more) for kind in (OURS, DISTRIBUTION)]

    def statuses(name, password):
        headers = {"Authorization": basic_header(name, password)}
        return [each.remote.request("GET", "/v2/", None, headers).status for each in both]

    assert statuses("me", "secret") == [200, 200]
    for content, status, yours in (
        (password_lines(you="secret"), 401, 200),
        # Distribution responds with 400 once, then uses the previous users.
        (b"no colon\n", 400, None),
        (password_lines(me="secret", you="other"), 200, 401),
        (None, 400, 400),
    ):
        time.sleep(0.01)  # 2.8.3 compares times only
        if content is None:
            users.unlink()
        else:
            users.write_bytes(content)
        assert statuses("me", "secret") == [status, status]
        if yours is not None:
            assert statuses("you", "secret") == [yours, yours]


def test_a_missing_htpasswd_file_is_created(launcher, tmp_path):
    for kind in (OURS, DISTRIBUTION):
        users = tmp_path / f"users-{kind}" / "users"
        more = f"auth:\n  htpasswd:\n    realm: here\n    path: {users}\n"
        served = launcher.start(kind, tmp_path / kind, more=more)
        password = re.search(r"password=([\w-]+)", served.log.read_text())[1]
        assert len(password) == 43
        headers = {"Authorization": basic_header("docker", password)}
        assert served.remote.request("GET", "/v2/", None, headers).status == 200
        assert users.stat().st_mode & 0o777 == 0o600
        assert users.parent.stat().st_mode & 0o777 == 0o700


def test_token_responses_match_distribution(launcher, tmp_path):
    now = datetime.now(UTC).timestamp()
    root, leaf, rsa, other = key("P-256", "root"), key("P-256", "leaf"), key("RSA"), key("P-384")
    own = certificate(root, now=now)
    below = certificate(leaf, (root, own), authority=False, now=now)
    stranger = certificate(other, now=now)
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(pem(own, certificate(rsa, now=now)))
    kid = key_ids(root.public_key())[-1]
    confused = {"alg": "HS256", "kid": kid}
    everything = [
        {"type": "repository", "name": "a/b", "actions": ["*"]},
        {"type": "repository", "name": "c/d", "actions": ["pull"]},
        {"type": "registry", "name": "catalog", "actions": ["*"]},
    ]

    def make_claims(**more):
        return claims(now, **{"access": everything, **more})

    def own_token(**more):
        return "Bearer " + mint(root, "ES256", make_claims(**more), kid=kid)

    def other_token(*arguments, **header):
        return "Bearer " + mint(*arguments, make_claims(), **header)

    more = (
        f"auth:\n  token:\n    realm: {REALM}\n    service: {SERVICE}\n    issuer: {ISSUER}\n"
        f"    rootcertbundle: {bundle}\n"
    )
    compare(launcher, tmp_path, more, {
        "nothing": None,
        "empty": "",
        "good": own_token(),
        "another case": own_token().replace("Bearer", "bEARER"),
        "pull": own_token(access=[{**everything[0], "actions": ["pull"]}]),
        "pull and push": own_token(access=[{**everything[0], "actions": ["pull", "push"]}]),
        "push alone": own_token(access=[{**everything[0], "actions": ["push"]}]),
        "in two parts": own_token(access=[{**everything[0], "actions": [action]}
                                          for action in ("pull", "push", "delete")]),
        "nothing in it": own_token(access=[]),
        "no access": own_token(access=None),
        "another repository": own_token(access=everything[1:]),
        "another type": own_token(access=[{**everything[0], "type": "registry"}]),
        "no name": own_token(sub=""),
        "RSA": other_token(rsa, "RS256", kid=key_ids(rsa.public_key())[-1]),
        "a chain": other_token(leaf, "ES256", x5c=x5c(below)),
        "the root": other_token(root, "ES256", x5c=x5c(own)),
        "a chain of others": other_token(other, "ES384", x5c=x5c(stranger)),
        "a chain to another": other_token(other, "ES384", x5c=x5c(below)),
        "a key of its own": other_token(other, "ES384", jwk={**jwk(other), "kid": "x"}),
        "another key": other_token(other, "ES384", kid=kid),
        "no key": other_token(root, "ES256"),
        "an unknown key": other_token(root, "ES256", kid="../../etc/passwd"),
        "over": own_token(exp=int(now) - 120),
        "over for less than a minute": own_token(exp=int(now) - 20),
        "not yet": own_token(nbf=int(now) + 120),
        "in less than a minute": own_token(nbf=int(now) + 30),
        "no end": own_token(exp=None),
        "another issuer": own_token(iss="x"),
        "another service": own_token(aud="x"),
        "no service": own_token(aud=None),
        "none": "Bearer " + forge({"alg": "none", "kid": kid}, make_claims()),
        "a public key as secret": "Bearer " + forge(confused, make_claims(), public_pem(root)),
        "a certificate as secret": "Bearer " + forge(confused, make_claims(), pem(own)),
        "a broken signature": own_token()[:-4] + "AAAA",
        "no signature": own_token().rpartition(".")[0] + ".",
        "no token": "Bearer x",
        "two dots": "Bearer ..",
        "nothing behind": "Bearer",
        "a password": basic_header("me", "secret"),
    })  # fmt: skip


def test_the_autoredirect_realm_names_the_requested_host(launcher, tmp_path):
    own = certificate(key("P-256", "root"), now=datetime.now(UTC).timestamp())
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(pem(own))
    more = (
        f"auth:\n  token:\n    realm: {REALM}\n    service: {SERVICE}\n    issuer: {ISSUER}\n"
        f"    rootcertbundle: {bundle}\n    autoredirect: true\n"
    )
    for kind in (OURS, DISTRIBUTION):
        served = launcher.start(kind, tmp_path / kind, more=more)
        response = served.remote.request("GET", "/v2/", None, {"Host": "registry.example:5000"})
        assert response.headers["www-authenticate"] == (
            f'Bearer realm="https://registry.example:5000/auth/token",service="{SERVICE}"'
        )


def test_silly_auth_responses_match_distribution(launcher, tmp_path):
    more = "auth:\n  silly:\n    realm: here\n    service: there\n"
    compare(launcher, tmp_path, more, {"nothing": None, "empty": "", "something": "x"})
