"""Credentials in redirects, and forged host headers.

``storage/s3/test_sender.py`` and ``tokens/test_oidc.py`` test that the clients of the registry
follow no redirect; ``integration/test_access.py`` tests that real clients do not send their
credentials to the target of a redirect.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest
import pytest_twisted

from tests.attacks.attacked_registry import (
    EXTERNAL_TOKENS,
    LAYER,
    OWN_TOKENS,
    PASSWORDS,
    USERS,
    serve_registry,
)
from tests.support.manifests import digest_of
from tests.support.tokens import REALM

STORE = "https://objects.example/images"
MIDDLEWARE = f"""\
middleware:
  storage:
  - {{{{name: redirect, options: {{{{baseurl: '{STORE}'}}}}}}}}
"""


@pytest.mark.parametrize("scheme", [PASSWORDS, EXTERNAL_TOKENS, OWN_TOKENS])
@pytest_twisted.ensureDeferred
async def test_a_redirect_has_no_credentials_of_the_caller(tmp_path, scheme):
    async with serve_registry(scheme, tmp_path, more=MIDDLEWARE) as registry:
        target = f"/v2/secret/app/blobs/{digest_of(LAYER)}"
        for user, status in (("", 401), ("ada", 403)):
            answer = await registry(user, "GET", target)
            assert (answer.status, answer.get("Location")) == (status, None)
        for method in ("GET", "HEAD"):
            answer = await registry("root", method, target)
            assert (answer.status, answer.body) == (307, b"")
            location = urlsplit(answer.get("Location"))
            assert answer.get("Location").startswith(f"{STORE}/docker/registry/v2/blobs/")
            assert (location.username, location.password, location.query) == (None, None, "")
            assert answer.get("Set-Cookie") is None
            raw = answer.raw.decode()
            for secret in (USERS["root"], *registry.sent_credentials):
                assert secret.rpartition(" ")[2] not in raw


#: Malformed and foreign hosts in the headers of a request.
HOSTS = [
    *("evil.example/path", "evil.example?x=", "evil.example#", "user@evil.example", "a:b@c", "a b"),
    *('a"b', 'a",service="evil', "a\\b", "a,b", "a;b", "a'b", "<a>", "a\tb", "%0d%0aX:y", "a%2f"),
    *("[::1", "::1", "[evil.example]", "a:port", "a:999999", "http://evil.example", "//evil", "/"),
    *("a" * 300, "\u00e4", "javascript:alert(1)", ":", "."),
]
_VALID_REALM = re.compile(r"https?://(?:[A-Za-z0-9._~-]+|\[[0-9a-f:]+\])(?::\d{1,5})?/auth/token")


@pytest.mark.parametrize("scheme", [EXTERNAL_TOKENS, OWN_TOKENS])
@pytest_twisted.ensureDeferred
async def test_a_forged_host_is_not_in_a_challenge(tmp_path, scheme):
    async with serve_registry(scheme, tmp_path, token=", autoredirect: true") as registry:
        for host in HOSTS:
            forged = host.encode().decode("latin-1")
            for name in ("Host", "X-Forwarded-Host", "Forwarded"):
                value = f'host="{forged}"' if name == "Forwarded" else forged
                answer = await registry.api.request_target("GET", "/v2/", {name: value})
                assert answer.status in ({400, 401} if name == "Host" else {401}), (name, host)
                assert answer.raw.count(b"HTTP/1.1 ") == 1
                if answer.status == 401:
                    (realm,) = re.findall('realm="([^"]*)"', answer.get("WWW-Authenticate"))
                    assert _VALID_REALM.fullmatch(realm) or realm in {REALM, "/auth/token"}, host
                    assert "evil" not in realm
                    assert answer.get("WWW-Authenticate").count("service=") == 1
        for value in ("javascript", "ftp", "https://evil.example/", 'https"', ""):
            answer = await registry.api.request_target("GET", "/v2/", {"X-Forwarded-Proto": value})
            assert "evil" not in answer.get("WWW-Authenticate")
            assert 'realm="http' in answer.get("WWW-Authenticate")


@pytest_twisted.ensureDeferred
async def test_a_configured_host_is_in_the_challenge(tmp_path):
    async with serve_registry(
        OWN_TOKENS, tmp_path, http="  host: https://registry.example\n"
    ) as registry:
        for name in ("Host", "X-Forwarded-Host"):
            answer = await registry.api.request_target("GET", "/v2/", {name: "evil.example"})
            assert 'realm="https://registry.example/auth/token"' in answer.get("WWW-Authenticate")
            assert "evil" not in answer.raw.decode()
