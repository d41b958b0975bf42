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

from tests.attacks.defended import LAYER, OWN, PASSWORDS, SIGNED, USERS, defended
from tests.support.manifests import digest_of
from tests.support.tokens import REALM

STORE = "https://objects.example/images"
MIDDLEWARE = f"""\
middleware:
  storage:
  - {{{{name: redirect, options: {{{{baseurl: '{STORE}'}}}}}}}}
"""


@pytest.mark.parametrize("kind", [PASSWORDS, SIGNED, OWN])
@pytest_twisted.ensureDeferred
async def test_a_redirect_has_no_credentials_of_the_caller(tmp_path, kind):
    async with defended(kind, tmp_path, more=MIDDLEWARE) as world:
        target = f"/v2/secret/app/blobs/{digest_of(LAYER)}"
        for user, status in (("", 401), ("ada", 403)):
            answer = await world(user, "GET", target)
            assert (answer.status, answer.get("Location")) == (status, None)
        for method in ("GET", "HEAD"):
            answer = await world("root", method, target)
            assert (answer.status, answer.body) == (307, b"")
            place = urlsplit(answer.get("Location"))
            assert answer.get("Location").startswith(f"{STORE}/docker/registry/v2/blobs/")
            assert (place.username, place.password, place.query) == (None, None, "")
            assert answer.get("Set-Cookie") is None
            raw = answer.raw.decode()
            for secret in (USERS["root"], *world.shown):
                assert secret.rpartition(" ")[2] not in raw


#: What a caller may say is the host.
HOSTS = [
    *("evil.example/path", "evil.example?x=", "evil.example#", "user@evil.example", "a:b@c", "a b"),
    *('a"b', 'a",service="evil', "a\\b", "a,b", "a;b", "a'b", "<a>", "a\tb", "%0d%0aX:y", "a%2f"),
    *("[::1", "::1", "[evil.example]", "a:port", "a:999999", "http://evil.example", "//evil", "/"),
    *("a" * 300, "\u00e4", "javascript:alert(1)", ":", "."),
]
_SOUND = re.compile(r"https?://(?:[A-Za-z0-9._~-]+|\[[0-9a-f:]+\])(?::\d{1,5})?/auth/token")


@pytest.mark.parametrize("kind", [SIGNED, OWN])
@pytest_twisted.ensureDeferred
async def test_a_forged_host_is_not_in_a_challenge(tmp_path, kind):
    async with defended(kind, tmp_path, token=", autoredirect: true") as world:
        for host in HOSTS:
            said = host.encode().decode("latin-1")
            for name in ("Host", "X-Forwarded-Host", "Forwarded"):
                value = f'host="{said}"' if name == "Forwarded" else said
                answer = await world.api.request_target("GET", "/v2/", {name: value})
                assert answer.status in ({400, 401} if name == "Host" else {401}), (name, host)
                assert answer.raw.count(b"HTTP/1.1 ") == 1
                if answer.status == 401:
                    (realm,) = re.findall('realm="([^"]*)"', answer.get("WWW-Authenticate"))
                    assert _SOUND.fullmatch(realm) or realm in {REALM, "/auth/token"}, host
                    assert "evil" not in realm
                    assert answer.get("WWW-Authenticate").count("service=") == 1
        for value in ("javascript", "ftp", "https://evil.example/", 'https"', ""):
            answer = await world.api.request_target("GET", "/v2/", {"X-Forwarded-Proto": value})
            assert "evil" not in answer.get("WWW-Authenticate")
            assert 'realm="http' in answer.get("WWW-Authenticate")


@pytest_twisted.ensureDeferred
async def test_a_configured_host_is_in_the_challenge(tmp_path):
    async with defended(OWN, tmp_path, http="  host: https://registry.example\n") as world:
        for name in ("Host", "X-Forwarded-Host"):
            answer = await world.api.request_target("GET", "/v2/", {name: "evil.example"})
            assert 'realm="https://registry.example/auth/token"' in answer.get("WWW-Authenticate")
            assert "evil" not in answer.raw.decode()
