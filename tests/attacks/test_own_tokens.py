"""The registry's own tokens: their keys, their rights, and how many of them there are."""

from __future__ import annotations

import json
import stat
from base64 import urlsafe_b64decode

import pytest
import pytest_twisted
from twisted.internet import reactor

from tests.attacks.attacked_registry import OWN_TOKENS, TARGET, USERS, serve_registry
from tests.support.passwords import basic_header, password_lines
from tests.support.tokens import access_claim, forge

SCOPE = "repository:secret/app:pull,push,delete"
ALL_RIGHTS = [{"repositories": ["**"], "actions": ["*", "delete", "pull", "push"]}]
OPEN = "/v2/team/app/tags/list"


@pytest_twisted.async_yield_fixture(params=[1, 2], ids=["one process", "two workers"])
async def registry(request, tmp_path):
    more = "  tokens: {{refreshlimit: 3}}\n"
    async with serve_registry(OWN_TOKENS, tmp_path, request.param, more=more) as made:
        yield made
        await made.assert_still_serves()


def private_folder(registry):
    return registry.folder / "store" / "twisted-registry"


def records(registry):
    """The files of stored tokens."""
    found = private_folder(registry).glob("tokens/**/*")
    return [path for path in found if path.is_file() and path.name != "keys"]


async def status(registry, authorization, target=TARGET, method="GET"):
    answer = await registry.api.request_target(method, target, {"Authorization": authorization})
    return answer.status


def sign(registry, key_id, **claims):
    """A token that is signed with the right key."""
    (key,) = json.loads((private_folder(registry) / "tokens" / "keys").read_text())["keys"]
    head = {"alg": "HS256", "typ": "JWT", "kid": key_id}
    now = int(reactor.seconds())
    payload = {
        "iss": "twisted-registry", "aud": "twisted-registry", "iat": now, "nbf": now,
        "exp": now + 300, "access": access_claim(SCOPE), **claims,
    }  # fmt: skip
    return f"Bearer {forge(head, payload, bytes.fromhex(key['key']))}"


@pytest_twisted.ensureDeferred
async def test_rights_in_a_token_do_not_override_the_rules(registry):
    """Even with the right key, a token cannot give itself rights."""
    token = await registry.token("ada", SCOPE)
    key_id = json_part(token, 0)["kid"]
    ada = json_part(token, 1)["account"]
    assert await status(registry, sign(registry, key_id, sub="ada", account=ada)) == 403, (
        "it is valid"
    )
    for claims in (
        {"sub": "ada", "account": ada, "rights": ALL_RIGHTS, "groups": ["admin"]},
        {"sub": "robot:x", "rights": ALL_RIGHTS},
        {"sub": "robot:x", "record": "0" * 16, "rights": ALL_RIGHTS},
        {"sub": "ci:x", "rules": ["0" * 16], "rights": ALL_RIGHTS},
        {"sub": "nobody", "rights": ALL_RIGHTS},
        {"sub": "root"},
        {"sub": "root", "account": ada},
        {"sub": "", "rights": ALL_RIGHTS},
    ):
        assert await status(registry, sign(registry, key_id, **claims)) in {401, 403}, claims


def json_part(token, number):
    part = token.split(".")[number]
    return json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))


@pytest.mark.parametrize("change", ["removed", "password"])
@pytest_twisted.ensureDeferred
async def test_a_token_ends_with_its_user(registry, change):
    token = f"Bearer {await registry.token('ada', 'repository:team/app:pull')}"
    assert {await status(registry, token, OPEN) for _ in range(3)} == {200}
    others = {"root": USERS["root"]} | ({"ada": "other"} if change == "password" else {})
    (registry.folder / "users").write_bytes(password_lines(**others))
    assert {await status(registry, token, OPEN) for _ in range(3)} == {401}


@pytest_twisted.ensureDeferred
async def test_secrets_are_for_the_owner_only(registry):
    await registry.api.request_target(
        "GET",
        "/auth/token?offline_token=true",
        {"Authorization": basic_header("ada", USERS["ada"])},
    )
    folder = private_folder(registry)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    found = list(folder.rglob("*"))
    assert folder / "tokens" / "keys" in found
    assert records(registry)
    for path in found:
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
    # Content stays as readable as before.
    store = registry.folder / "store" / "docker"
    assert stat.S_IMODE(store.stat().st_mode) & 0o050 == 0o050


@pytest_twisted.ensureDeferred
async def test_refresh_tokens_of_a_user_are_bounded(registry):
    ada = {"Authorization": basic_header("ada", USERS["ada"])}
    made = []
    for _ in range(10):
        answer = await registry.api.request_target("GET", "/auth/token?offline_token=true", ada)
        made.append(answer.json()["refresh_token"])
        assert len(records(registry)) <= 3
    form = f"grant_type=refresh_token&refresh_token={made[-1]}".encode()
    sent = {"Content-Type": "application/x-www-form-urlencoded"}
    assert (await registry.api.request_target("POST", "/auth/token", sent, form)).status == 200
    form = f"grant_type=refresh_token&refresh_token={made[0]}".encode()
    assert (await registry.api.request_target("POST", "/auth/token", sent, form)).status == 401
    bob = {"Authorization": basic_header("bob", USERS["bob"])}
    await registry.api.request_target("GET", "/auth/token?offline_token=true", bob)
    assert len(records(registry)) == 4


@pytest_twisted.ensureDeferred
async def test_head_creates_no_refresh_token(registry):
    ada = {"Authorization": basic_header("ada", USERS["ada"])}
    for _ in range(3):
        target = "/auth/token?offline_token=true&service=x"
        assert (await registry.api.request_target("HEAD", target, ada)).status == 200
    assert records(registry) == []


@pytest_twisted.ensureDeferred
async def test_the_challenge_names_https_unless_the_host_is_loopback(registry):
    for host, sent, realm in (
        ("registry.example", {}, "https://registry.example/auth/token"),
        ("10.0.0.5:5000", {}, "https://10.0.0.5:5000/auth/token"),
        ("registry.example", {"X-Forwarded-Proto": "http"}, "http://registry.example/auth/token"),
        ("localhost:5000", {}, "http://localhost:5000/auth/token"),
    ):
        lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
        head = f"GET /v2/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{lines}\r\n"
        answer = await registry.api.raw(head.encode())
        assert answer.status == 401
        assert f'realm="{realm}"' in answer.get("WWW-Authenticate"), host
