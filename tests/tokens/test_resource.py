"""The token service, as clients use it."""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import asynccontextmanager
from urllib.parse import quote

import jwt
import pytest
import pytest_twisted
from twisted.internet.defer import fail, succeed
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer

from tests.support.passwords import basic_header, password_lines
from tests.support.services import HTTP, MEMORY, header, run_service
from twisted_registry.frame.errors import StartError
from twisted_registry.storage.filesystem.driver import FilesystemDriver
from twisted_registry.storage.interfaces import StorageError
from twisted_registry.storage.memory import MemoryDriver

LAYER = b"layer"
DIGEST = f"sha256:{hashlib.sha256(LAYER).hexdigest()}"
ADA, EVE = basic_header("ada", "secret"), basic_header("eve", "secret")
RULES = """\
access:
  rules:
  - {{repositories: [open/*], anonymous: true, allow: [pull]}}
  - {{repositories: [open/*, team/**], users: [ada], allow: [push]}}
  tokens:
"""
OPEN = "repository:open/a:pull"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


DISK = "version: 0.1\nstorage:\n  filesystem: {{rootdirectory: {root}}}\n"


@asynccontextmanager
async def registry(folder, more="", http=HTTP, store=MEMORY):
    """A registry with the users ada and eve; ``more`` configures the tokens."""
    users = folder / "users"
    users.write_bytes(password_lines(ada="secret", eve="secret"))
    auth = f"auth:\n  htpasswd: {{{{realm: here, path: {users}}}}}\n"
    async with run_service(folder, store + http + auth + RULES + more) as ask:
        ask.users = users
        yield ask


async def get_token(ask, *scopes, headers=None, **more):
    """The response to a token request."""
    query = "&".join(
        [f"scope={quote(scope)}" for scope in scopes] + [f"{key}={more[key]}" for key in more]
    )
    response = await ask("GET", f"/auth/token?service=x&{query}", headers=headers or {})
    response.document = json.loads(response.body)
    return response


async def post_form(ask, **form):
    body = "&".join(f"{name}={quote(value)}" for name, value in form.items()).encode()
    response = await ask("POST", "/auth/token", headers=FORM, data=body)
    response.document = json.loads(response.body)
    return response


def bearer_header(response):
    return {"Authorization": f"Bearer {response.document['token']}"}


def granted_scopes(response):
    """The subject and the scopes of a token, without verifying it."""
    claims = jwt.decode(response.document["token"], options={"verify_signature": False})
    scopes = [
        f"{each['type']}:{each['name']}:{','.join(each['actions'])}" for each in claims["access"]
    ]
    assert response.document["scope"] == " ".join(scopes)
    return claims["sub"], scopes


@pytest_twisted.ensureDeferred
async def test_push_with_tokens_as_docker_does_it(tmp_path):
    async with registry(tmp_path) as ask:
        response = await ask("GET", "/v2/")
        assert response.code == 401
        realm = f'Bearer realm="{ask.base}/auth/token",service="twisted-registry"'
        assert header(response, "WWW-Authenticate") == realm
        login = await get_token(
            ask, account="ada", client_id="docker", headers={"Authorization": ADA}
        )
        assert login.code == 200
        assert (await ask("GET", "/v2/", headers=bearer_header(login))).code == 200

        path = f"/v2/team/app/blobs/uploads/?digest={DIGEST}"
        response = await ask("POST", path, data=LAYER)
        assert response.code == 401
        requested = header(response, "WWW-Authenticate")
        assert requested == f'{realm},scope="repository:team/app:pull,push"'
        (scope,) = re.findall('scope="([^"]+)"', requested)
        # A token with too narrow a scope is challenged.
        response = await ask("POST", path, data=LAYER, headers=bearer_header(login))
        assert response.code == 401
        assert header(response, "WWW-Authenticate") == f'{requested},error="insufficient_scope"'
        wider = await get_token(ask, scope, headers={"Authorization": ADA})
        assert granted_scopes(wider) == ("ada", [scope])
        assert (await ask("POST", path, data=LAYER, headers=bearer_header(wider))).code == 201
        assert header(wider, "Cache-Control") == "no-store"
        assert header(wider, "Content-Type") == "application/json"
        assert 60 <= wider.document["expires_in"] == 300
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", wider.document["issued_at"])
        # A user name and password are accepted directly, too.
        response = await ask("GET", "/v2/team/app/tags/list", headers={"Authorization": ADA})
        assert response.code == 200


@pytest.mark.parametrize(
    ("authorization", "requested", "expected"),
    [
        (ADA, ["repository:team/a:pull,push,delete"], ["repository:team/a:pull,push"]),
        (ADA, ["repository:secret:pull", "repository:open/a:pull"], ["repository:open/a:pull"]),
        (ADA, ["repository:secret:pull repository:team/a:push"], ["repository:team/a:push"]),
        (ADA, ["registry:catalog:*"], ["registry:catalog:*"]),
        (EVE, [f"repository:{name}:pull,push" for name in ("team/a", "open/a")], [OPEN]),
        (None, [f"repository:{name}:pull,push" for name in ("team/a", "open/a")], [OPEN]),
        (None, [], []),
        (ADA, ["repository:team/a:*", "registry:other:*", "repository:**:pull", "x", ""], []),
        (ADA, ['repository:team/a:pull,push"\r\nX: y'], ["repository:team/a:pull"]),
        (ADA, ["repository:team/../secret:pull", "repository:team/a%2Fb:pull"], []),
    ],
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_granted_scope_is_the_allowed_part(tmp_path, authorization, requested, expected):
    async with registry(tmp_path) as ask:
        response = await get_token(
            ask, *requested, headers={"Authorization": authorization} if authorization else {}
        )
        assert response.code == 200
        assert granted_scopes(response)[1] == expected


@pytest_twisted.ensureDeferred
async def test_anonymous_token(tmp_path):
    async with registry(tmp_path) as ask:
        issued = await get_token(ask, "repository:open/a:pull", "repository:team/a:pull")
        assert granted_scopes(issued) == ("", ["repository:open/a:pull"])
        assert (await ask("GET", "/v2/open/a/tags/list", headers=bearer_header(issued))).code == 404
        response = await ask("GET", "/v2/team/a/tags/list", headers=bearer_header(issued))
        assert response.code == 401, "a login may help"
        assert "insufficient_scope" in header(response, "WWW-Authenticate")
        assert (await ask("GET", "/v2/open/a/tags/list")).code == 404, "no token is needed"


@pytest_twisted.ensureDeferred
async def test_rules_are_checked_at_each_request(tmp_path):
    """The token may come from another registry with other rules."""
    async with registry(tmp_path) as ask:
        issued = await get_token(ask, "repository:team/a:pull", headers={"Authorization": ADA})
        response = await ask("GET", "/v2/team/b/tags/list", headers=bearer_header(issued))
        assert response.code == 401
        response = await ask("GET", "/v2/secret/tags/list", headers=bearer_header(issued))
        assert response.code == 403


@pytest.mark.parametrize(
    "authorization",
    [
        basic_header("ada", "wrong"),
        basic_header("mallory", "secret"),
        "Basic !",
        "Bearer x",
        "x",
        basic_header("ada", ""),
    ],
)
@pytest_twisted.ensureDeferred
async def test_wrong_credentials_get_no_token(tmp_path, authorization):
    async with registry(tmp_path) as ask:
        response = await get_token(ask, headers={"Authorization": authorization})
        assert response.code == 401
        assert response.document["errors"][0]["code"] == "UNAUTHORIZED"
        assert header(response, "WWW-Authenticate") == 'Basic realm="twisted-registry"'
        assert "token" not in response.document


@pytest_twisted.ensureDeferred
async def test_oauth_password_grant(tmp_path):
    async with registry(tmp_path) as ask:
        response = await post_form(
            ask, grant_type="password", username="ada", password="secret", client_id="x",
            scope="repository:team/a:pull,push repository:secret:pull", access_type="offline",
        )  # fmt: skip
        assert response.code == 200
        assert response.document["token_type"] == "Bearer"
        assert granted_scopes(response) == ("ada", ["repository:team/a:pull,push"])
        assert response.document["refresh_token"]
        response = await post_form(ask, grant_type="password", username="ada", password="secret")
        assert "refresh_token" not in response.document
        response = await post_form(ask, grant_type="password", username="ada", password="wrong")
        assert (response.code, response.document["error"]) == (401, "invalid_grant")
        response = await post_form(ask, grant_type="refresh_token", refresh_token="wrong")
        assert (response.code, response.document["error"]) == (401, "invalid_grant")


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"", {}, 400),
        (b"grant_type=authorization_code", {}, 400),
        (b"grant_type=password", {}, 401),
        (b"grant_type=urn:ietf:params:oauth:grant-type:token-exchange&subject_token=x", {}, 401),
        (b"{}", {"Content-Type": "application/json"}, 415),
        (b"a=%FF", {}, 400),
        (b"\xff", {}, 400),
        (b"a=b&" * 200, {}, 400),
        (b"a" * 70_000, {}, 413),
    ],
)
@pytest_twisted.ensureDeferred
async def test_invalid_forms_are_rejected(tmp_path, body, headers, status):
    async with registry(tmp_path) as ask:
        response = await ask("POST", "/auth/token", headers={**FORM, **headers}, data=body)
        assert response.code == status
        document = json.loads(response.body)
        assert document["error"]
        assert document["errors"][0]["code"]
        response = await ask("POST", "/auth/token", headers={**FORM, **headers}, data=Chunks(body))
        assert response.code == status


@implementer(IBodyProducer)
class Chunks:
    """A body of unknown length."""

    length = UNKNOWN_LENGTH

    def __init__(self, body):
        self.body = body

    def startProducing(self, consumer):
        consumer.write(self.body)
        return succeed(None)

    def pauseProducing(self):
        pass

    resumeProducing = stopProducing = pauseProducing


@pytest_twisted.ensureDeferred
async def test_other_methods_and_paths(tmp_path):
    async with registry(tmp_path) as ask:
        response = await ask("PUT", "/auth/token")
        assert (response.code, header(response, "Allow")) == (405, "GET, HEAD, POST")
        assert (await ask("HEAD", "/auth/token")).code == 200
        for path in ("/auth", "/auth/", "/auth/other", "/v2/auth/token"):
            assert (await ask("GET", path)).code in {401, 404}, path
        assert (await ask("GET", "/")).code == 200


@pytest_twisted.ensureDeferred
async def test_realm_with_a_prefix_and_behind_a_proxy(tmp_path):
    http = f"{HTTP}  prefix: /images/\n"
    async with registry(tmp_path, http=http) as ask:
        sent = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "example.com"}
        response = await ask("GET", "/images/v2/", headers=sent)
        assert 'realm="https://example.com/images/auth/token"' in header(
            response, "WWW-Authenticate"
        )
        assert (await ask("GET", "/images/auth/token")).code == 200
        assert (await ask("GET", "/auth/token")).code == 404
    async with registry(tmp_path, http=f"{HTTP}  host: https://known.example\n") as ask:
        response = await ask("GET", "/v2/", headers=sent)
        assert 'realm="https://known.example/auth/token"' in header(response, "WWW-Authenticate")


@pytest_twisted.ensureDeferred
async def test_refresh_token_is_valid_until_the_account_changes(tmp_path):
    async with registry(tmp_path) as ask:
        login = await get_token(ask, offline_token="true", headers={"Authorization": ADA})
        refresh = login.document["refresh_token"]
        for _ in range(2):
            # Clients keep the first refresh token, so it stays valid.
            again = await post_form(
                ask,
                grant_type="refresh_token",
                refresh_token=refresh,
                scope="repository:team/a:pull",
            )
            assert granted_scopes(again) == ("ada", ["repository:team/a:pull"])
            assert again.document["refresh_token"] == refresh
        assert (await ask("GET", "/v2/team/a/tags/list", headers=bearer_header(again))).code == 404
        # It is accepted neither as a password nor as a bearer token.
        assert (
            await get_token(ask, headers={"Authorization": basic_header("ada", refresh)})
        ).code == 401
        assert (
            await ask("GET", "/v2/", headers={"Authorization": f"Bearer {refresh}"})
        ).code == 401
        ask.users.write_bytes(password_lines(ada="another", eve="secret"))
        response = await post_form(ask, grant_type="refresh_token", refresh_token=refresh)
        assert response.code == 401
        ask.users.write_bytes(password_lines(eve="secret"))
        response = await post_form(ask, grant_type="refresh_token", refresh_token=refresh)
        assert response.code == 401


@pytest_twisted.ensureDeferred
async def test_registries_with_the_same_store_accept_each_others_tokens(tmp_path):
    """The secret is in the store, as for machines that share a bucket."""
    (tmp_path / "other").mkdir()
    async with (
        registry(tmp_path, store=DISK) as one,
        registry(tmp_path, store=DISK) as two,
        registry(tmp_path / "other", store=DISK) as other,
    ):
        login = await get_token(one, offline_token="true", headers={"Authorization": ADA})
        refresh = {"grant_type": "refresh_token", "refresh_token": login.document["refresh_token"]}
        for ask, code in ((one, 200), (two, 200), (other, 401)):
            assert (await ask("GET", "/v2/", headers=bearer_header(login))).code == code
            assert (await post_form(ask, **refresh)).code == code


@pytest.mark.parametrize("kind", ["key", "keyfile"])
@pytest_twisted.ensureDeferred
async def test_registries_with_the_same_key_accept_each_others_tokens(tmp_path, kind):
    """They share neither a store nor anything else."""
    key_file = tmp_path / "keys"
    key_file.write_text(f"{'1' * 64}\n{'2' * 64}\n")
    key_file.chmod(0o600)
    more = f"    key: {'2' * 64}\n" if kind == "key" else f"    keyfile: {key_file}\n"
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    async with (
        registry(tmp_path / "a", more, store=DISK) as one,
        registry(tmp_path / "b", f"    keyfile: {key_file}\n", store=DISK) as two,
        registry(tmp_path / "c", store=DISK) as other,
    ):
        login = await get_token(one)
        for ask, code in ((one, 200), (two, 200), (other, 401)):
            assert (await ask("GET", "/v2/", headers=bearer_header(login))).code == code
    assert not list(tmp_path.glob("a/store/twisted-registry/tokens/keys"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file or directory"),
        ("", "no key"),
        ("secret-passphrase\n", "line 1: expected 64 hexadecimal digits"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_unusable_key_file_ends_the_start(tmp_path, content, reason):
    path = tmp_path / "keys"
    if content is not None:
        path.write_text(content)
    with pytest.raises(StartError) as caught:
        async with registry(tmp_path, f"    keyfile: {path}\n"):
            pass
    assert str(caught.value) == f"access.tokens.keyfile: {path}: {reason}"


@pytest_twisted.ensureDeferred
async def test_key_file_that_others_can_read_is_logged(tmp_path, log_lines):
    path = tmp_path / "keys"
    path.write_text("1" * 64)
    for mode, count in ((0o600, 0), (0o640, 0), (0o644, 1)):
        path.chmod(mode)
        async with registry(tmp_path, f"    keyfile: {path}\n"):
            pass
        warned = [line for line in log_lines if line.startswith("token keys can be read by all")]
        assert len(warned) == count
    assert "1" * 64 not in "".join(log_lines)


@pytest_twisted.ensureDeferred
async def test_token_is_refused_after_its_user_was_removed(tmp_path):
    async with registry(tmp_path) as ask:
        login = await get_token(ask, "repository:team/a:pull", headers={"Authorization": ADA})
        path = "/v2/team/a/tags/list"
        assert (await ask("GET", path, headers=bearer_header(login))).code == 404
        ask.users.write_bytes(password_lines(eve="secret"))
        response = await ask("GET", path, headers=bearer_header(login))
        assert response.code == 401
        assert 'error="invalid_token"' in header(response, "WWW-Authenticate")


@pytest_twisted.ensureDeferred
async def test_unreadable_users_are_not_an_internal_error(tmp_path):
    async with registry(tmp_path) as ask:
        ask.users.write_bytes(b"no colon\n")
        response = await get_token(ask, headers={"Authorization": ADA})
        assert (response.code, response.document["error"]) == (503, "temporarily_unavailable")
        assert (await get_token(ask)).code == 200, "anonymous callers need no users"


@pytest_twisted.ensureDeferred
async def test_stored_tokens_are_503_while_the_store_cannot_be_read(tmp_path, monkeypatch):
    def get(_, path, limit):
        return fail(StorageError(path, "no answer"))

    robot = basic_header("robot", f"twr_{'1' * 16}_{'2' * 64}")
    async with registry(tmp_path) as ask:
        await get_token(ask, headers={"Authorization": ADA})
        monkeypatch.setattr(MemoryDriver, "get", get)
        response = await get_token(ask, headers={"Authorization": robot})
        assert (response.code, response.document["error"]) == (503, "temporarily_unavailable")
        response = await ask("GET", "/v2/", headers={"Authorization": robot})
        assert response.code == 503
        assert json.loads(response.body)["errors"][0]["code"] == "UNAVAILABLE"


@pytest_twisted.ensureDeferred
async def test_login_on_a_full_disk_gets_a_token_without_a_refresh_token(tmp_path, monkeypatch):
    def put(_, path, content, *, durable=True):
        return fail(StorageError(path, "no space", full=True))

    async with registry(tmp_path, store=DISK) as ask:
        await get_token(ask, headers={"Authorization": ADA})
        monkeypatch.setattr(FilesystemDriver, "put", put)
        headers = {"Authorization": ADA}
        response = await get_token(ask, OPEN, headers=headers, offline_token="true")
        assert response.code == 200
        assert "refresh_token" not in response.document
        assert (await ask("GET", "/v2/", headers=bearer_header(response))).code == 200
        form = {"grant_type": "password", "username": "ada", "password": "secret"}
        response = await post_form(ask, **form, access_type="offline")
        assert response.code == 200
        monkeypatch.undo()
        response = await get_token(ask, OPEN, headers=headers, offline_token="true")
        assert response.document["refresh_token"]


@pytest_twisted.ensureDeferred
async def test_anonymous_callers_get_no_refresh_token(tmp_path):
    async with registry(tmp_path) as ask:
        assert "refresh_token" not in (await get_token(ask, offline_token="true")).document
    async with registry(tmp_path, "    refresh: 0s\n") as ask:
        login = await get_token(ask, offline_token="true", headers={"Authorization": ADA})
        assert "refresh_token" not in login.document


@pytest_twisted.ensureDeferred
async def test_tokens_without_users(tmp_path):
    async with run_service(tmp_path, MEMORY + HTTP + RULES) as ask:
        assert (await get_token(ask, "repository:open/a:pull")).code == 200
        assert (await get_token(ask, headers={"Authorization": ADA})).code == 401
