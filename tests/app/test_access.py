"""``auth``: errors of the start, and logins of clients."""

from __future__ import annotations

import hashlib
import io
import re
import sys

import pytest
import pytest_twisted
from jwt.api_jws import PyJWS
from twisted.internet import reactor
from twisted.logger import formatEvent, globalLogPublisher

from tests.support.passwords import BcryptCosts, basic_header, password_lines
from tests.support.processes import SERVE, RegistryProcess, write_configuration
from tests.support.services import HTTP, MEMORY, header, run_service
from tests.support.tokens import (
    ISSUER,
    REALM,
    SERVICE,
    certificate,
    claims,
    jwk,
    jwks,
    key,
    mint,
    pem,
    x5c,
)
from twisted_registry import auth
from twisted_registry.app.service import RegistryService
from twisted_registry.config.loading import load
from twisted_registry.frame.errors import StartError, install_command

ME = {"Authorization": basic_header("me", "secret")}
LAYER = b"layer"
DIGEST = f"sha256:{hashlib.sha256(LAYER).hexdigest()}"
TOO_SHORT = "keys[0]: the key is too short or does not fit its alg"
NEED_JWT = ("bearer", "keys")
TOKEN_CHALLENGE = f'Bearer realm="{REALM}",service="{SERVICE}"'
CHALLENGE = 'Basic realm="here"'


def guarded(path):
    """A configuration with a password file."""
    return f"{MEMORY}{HTTP}auth:\n  htpasswd:\n    realm: here\n    path: {path}\n"


def with_tokens(**more):
    """A configuration with token authentication."""
    lines = {"realm": REALM, "service": SERVICE, "issuer": ISSUER, **more}
    return f"{MEMORY}{HTTP}auth:\n  token:\n" + "".join(
        f"    {name}: {value}\n" for name, value in lines.items()
    )


def now_claims():
    return claims(reactor.seconds())


def make_service(folder, text):
    return RegistryService(load(write_configuration(folder, text), {}), reactor, {}, io.StringIO())


def start_error(folder, text):
    with pytest.raises(StartError) as caught:
        make_service(folder, text)
    return str(caught.value)


@pytest_twisted.ensureDeferred
async def test_a_push_checks_the_password_once(tmp_path, monkeypatch):
    users = tmp_path / "users"
    users.write_bytes(password_lines(me="secret"))
    # Otherwise logins are not cached while the file is young.
    monkeypatch.setattr("twisted_registry.auth.password_file._MIN_AGE_NS", 0)
    counted = BcryptCosts(monkeypatch)
    async with run_service(tmp_path, guarded(users)) as ask:
        response = await ask("GET", "/v2/")
        assert (response.code, header(response, "WWW-Authenticate")) == (401, CHALLENGE)
        assert (await ask("GET", "/v2/", headers=ME)).code == 200
        for number in range(10):
            response = await ask("POST", "/v2/a/blobs/uploads/", headers=ME)
            assert response.code == 202
            location = header(response, "Location") + f"&digest={DIGEST}"
            path = location.removeprefix(ask.base)
            assert (await ask("PUT", path, headers=ME, data=LAYER)).code == 201, number
        assert len(counted.take()) == 1


@pytest_twisted.ensureDeferred
async def test_a_push_checks_the_token_once(tmp_path, monkeypatch):
    keys, checked = tmp_path / "keys", []
    keys.write_bytes(jwks(jwk(key("P-256"), kid="k")))
    real = PyJWS.decode
    monkeypatch.setattr(PyJWS, "decode", lambda *a, **more: checked.append(1) or real(*a, **more))
    headers = {"Authorization": f"Bearer {mint(key('P-256'), 'ES256', now_claims(), kid='k')}"}
    async with run_service(tmp_path, with_tokens(jwks=keys)) as ask:
        response = await ask("POST", "/v2/a/b/blobs/uploads/")
        scope = 'scope="repository:a/b:pull,push"'
        assert header(response, "WWW-Authenticate") == f"{TOKEN_CHALLENGE},{scope}"
        for _ in range(10):
            path = f"/v2/a/b/blobs/uploads/?digest={DIGEST}"
            assert (await ask("POST", path, headers=headers, data=LAYER)).code == 201
        assert len(checked) == 1
        response = await ask("DELETE", f"/v2/a/b/blobs/{DIGEST}", headers=headers)
        assert response.code == 405  # deletes are disabled, also without a token
        response = await ask("GET", "/v2/_catalog", headers=headers)
        scope = 'scope="registry:catalog:*",error="insufficient_scope"'
        assert header(response, "WWW-Authenticate") == f"{TOKEN_CHALLENGE},{scope}"


@pytest_twisted.ensureDeferred
async def test_rootcertbundle_and_autoredirect_are_used(tmp_path):
    bundle, private = tmp_path / "bundle", key("P-256")
    own = certificate(private, now=reactor.seconds())
    bundle.write_bytes(pem(own))
    more = {"rootcertbundle": bundle, "autoredirect": "true", "autoredirectpath": "/t"}
    headers = {"Authorization": f"Bearer {mint(private, 'ES256', now_claims(), x5c=x5c(own))}"}
    async with run_service(tmp_path, with_tokens(**more)) as ask:
        response = await ask("GET", "/v2/")
        host = ask.base.removeprefix("http://")
        said = f'Bearer realm="https://{host}/t",service="{SERVICE}"'
        assert header(response, "WWW-Authenticate") == said
        assert (await ask("GET", "/v2/", headers=headers)).code == 200


@pytest.mark.parametrize(
    ("more", "content", "said"),
    [
        ("rootcertbundle", b"x", "expected certificates in PEM"),
        ("jwks", b"x", "expected JSON with a list of keys"),
        ("jwks", jwks({"kty": "oct", "k": "c2VjcmV0", "kid": "a"}), TOO_SHORT),
        ("jwks", None, "No such file or directory"),
        ("rootcertbundle", None, "No such file or directory"),
    ],
)  # fmt: skip
def test_unusable_keys_end_the_start(tmp_path, more, content, said):
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content)
    found = start_error(tmp_path, with_tokens(**{more: path}))
    assert found == f"auth.token.{more}: {path}: {said}"


@pytest_twisted.ensureDeferred
async def test_requests_with_wrong_credentials_are_challenged_and_not_logged(tmp_path):
    users = tmp_path / "users"
    users.write_bytes(password_lines(me="secret"))
    log = io.StringIO()
    async with run_service(tmp_path, guarded(users), log) as ask:
        path = f"/v2/a/blobs/uploads/?digest={DIGEST}"
        for headers in (
            {},
            {"Authorization": basic_header("me", "wrong")},
            {"Authorization": "Bearer x"},
        ):
            response = await ask("POST", path, headers=headers, data=LAYER)
            assert (response.code, header(response, "WWW-Authenticate")) == (401, CHALLENGE)
        assert (await ask("HEAD", f"/v2/a/blobs/{DIGEST}", headers=ME)).code == 404
    assert " me [" in log.getvalue()
    assert "secret" not in log.getvalue()


@pytest_twisted.ensureDeferred
async def test_a_missing_password_file_is_created_and_its_password_logged(tmp_path):
    events = []
    globalLogPublisher.addObserver(events.append)
    try:
        async with run_service(tmp_path, guarded(tmp_path / "new" / "users")) as ask:
            told = [formatEvent(event) for event in events if "password" in event]
            (password,) = [re.search(r"user=docker password=(\S+)", line)[1] for line in told]
            headers = {"Authorization": basic_header("docker", password)}
            assert (await ask("GET", "/v2/", headers=headers)).code == 200
    finally:
        globalLogPublisher.removeObserver(events.append)


@pytest_twisted.ensureDeferred
async def test_a_broken_password_file_refuses_all_logins(tmp_path):
    users = tmp_path / "users"
    users.write_bytes(password_lines(me="secret"))
    async with run_service(tmp_path, guarded(users)) as ask:
        users.write_bytes(b"no colon\n")
        response = await ask("GET", "/v2/", headers=ME)
        assert (response.code, b"colon" in response.body) == (400, False)
        users.write_bytes(password_lines(me="secret"))
        assert (await ask("GET", "/v2/", headers=ME)).code == 200


def test_an_unusable_password_file_ends_the_start(tmp_path):
    users = tmp_path / "users"
    users.write_bytes(b"my-password\n")
    said = start_error(tmp_path, guarded(users))
    assert said == f"auth.htpasswd.path: {users}: line 1: expected NAME:HASH"
    said = start_error(tmp_path, guarded(f"{users}/below"))
    assert said == f"auth.htpasswd.path: {users}/below: Not a directory"
    assert start_error(tmp_path, guarded(tmp_path)).endswith(": Is a directory")


def test_a_missing_extra_ends_the_start(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "meta_path", [Without("jwt"), *sys.meta_path])
    for name in NEED_JWT:
        monkeypatch.delitem(sys.modules, f"{auth.__name__}.{name}", raising=False)
        monkeypatch.delattr(auth, name, raising=False)
    for name in [each for each in sys.modules if f"{each}.".startswith("jwt.")]:
        monkeypatch.delitem(sys.modules, name)
    said = start_error(tmp_path, with_tokens(jwks=tmp_path / "keys"))
    assert said == (f"auth.token: needs the package jwt; to install it: {install_command('auth')}")


class Without:
    """An import finder for which one module is missing."""

    def __init__(self, name):
        self.name = name

    def find_spec(self, name, path=None, target=None):
        if name == self.name:
            raise ModuleNotFoundError(name=name)


def test_all_processes_notice_a_changed_password_file(tmp_path):
    users = tmp_path / "users"
    users.write_bytes(password_lines(me="secret"))
    more = f"  workers: 2\nauth: {{htpasswd: {{realm: here, path: {users}}}}}\n"
    with RegistryProcess(*SERVE, write_configuration(tmp_path, more=more), cwd=tmp_path) as server:
        assert {server.ask(headers=ME)[0].status for _ in range(10)} == {200}
        users.write_bytes(password_lines(you="secret"))
        assert {server.ask(headers=ME)[0].status for _ in range(10)} == {401}
        status, out, lines = server.stop()
    assert status == 0
    assert basic_header("me", "secret").split()[1] not in out + "".join(lines)
