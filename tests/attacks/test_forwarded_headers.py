"""Headers of proxies that a client has forged: other hosts in URLs, other addresses in logs."""

from __future__ import annotations

import re

import pytest
import pytest_twisted

from tests.attacks.attacked_registry import OWN_TOKENS, PASSWORDS, serve_registry
from tests.http.connection_kit import until
from tests.support.passwords import basic_header

FORGED = {
    "X-Forwarded-For": "198.51.100.66",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Proto": "https",
    "X-Real-IP": "198.51.100.66",
    "Forwarded": "for=198.51.100.66;host=evil.example;proto=https",
}
#: Makes 127.0.0.1, from which the test connects, a client like any other.
NOBODY = "  trustedproxies: [192.0.2.1]\n"


@pytest.mark.parametrize("workers", [1, 2])
@pytest_twisted.ensureDeferred
async def test_a_client_cannot_choose_the_host_of_a_location(tmp_path, workers):
    async with serve_registry(PASSWORDS, tmp_path, workers, http=NOBODY) as registry:
        for forged in (FORGED, *({name: value} for name, value in FORGED.items())):
            await check_location(registry, forged)


async def check_location(registry, forged):
    answer = await registry("root", "POST", "/v2/a/blobs/uploads/", forged, b"")
    assert answer.status == 202
    location = answer.get("Location")
    assert location.startswith("http://127.0.0.1:"), location
    assert "evil" not in answer.raw.decode()


@pytest_twisted.ensureDeferred
async def test_a_client_cannot_choose_the_realm_of_a_challenge(tmp_path):
    async with serve_registry(OWN_TOKENS, tmp_path, http=NOBODY) as registry:
        answer = await registry("", "GET", "/v2/secret/app/tags/list", FORGED)
        assert answer.status == 401
        assert "evil" not in answer.raw.decode()


async def logged_request(registry, headers):
    """Send a wrong password; return the line of the access log, and the log, once it has both."""
    sent = {"Authorization": basic_header("root", "wrong"), "User-Agent": "forger/7", **headers}
    assert (await registry("", "GET", "/v2/", sent)).status == 401
    access = re.compile(r"127\.0\.0\.1 - - \[.*forger/7.*\n")
    refusal = re.compile(r"login refused.*http\.request\.remoteaddr.*")
    await until(lambda: access.search(registry.logged()) and refusal.search(registry.logged()))
    return access.search(registry.logged())[0].rstrip("\n"), registry.logged()


@pytest.mark.parametrize("workers", [1, 2])
@pytest_twisted.ensureDeferred
async def test_a_client_cannot_choose_its_address_in_the_logs(tmp_path, workers):
    async with serve_registry(PASSWORDS, tmp_path, workers, http=NOBODY) as registry:
        line, log = await logged_request(registry, FORGED)
        assert line.endswith(' "-" "forger/7"')
        assert re.search(r"login refused.*http\.request\.remoteaddr\W+127\.0\.0\.1\b", log)
        assert "198.51.100.66" not in log


@pytest.mark.parametrize("workers", [1, 2])
@pytest_twisted.ensureDeferred
async def test_behind_a_trusted_proxy_the_logs_have_client_and_proxy(tmp_path, workers):
    async with serve_registry(PASSWORDS, tmp_path, workers) as registry:
        # The client has forged the first address, and the proxy has appended the true one.
        forwarded = {"X-Forwarded-For": "203.0.113.9, 198.51.100.7"}
        line, log = await logged_request(registry, forwarded)
        assert line.endswith(' "-" "forger/7" "198.51.100.7"')
        assert re.search(r"login refused.*http\.request\.remoteaddr\W+198\.51\.100\.7\b", log)
        assert re.search(r"login refused.*http\.request\.peer\W+127\.0\.0\.1\b", log)
        assert "203.0.113.9" not in log
