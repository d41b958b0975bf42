"""Headers of proxies that a client has forged: other hosts in URLs, other addresses in logs."""

from __future__ import annotations

import pytest
import pytest_twisted

from tests.attacks.attacked_registry import OWN_TOKENS, PASSWORDS, serve_registry

FORGED = {
    "X-Forwarded-For": "198.51.100.66",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Proto": "https",
    "X-Real-IP": "198.51.100.66",
    "Forwarded": "for=198.51.100.66;host=evil.example;proto=https",
}
#: Makes 127.0.0.1, from which the test connects, a client like any other.
NOBODY = "  trustedproxies: [192.0.2.1]\n"


@pytest.mark.parametrize("name", [*FORGED, "all"])
@pytest_twisted.ensureDeferred
async def test_a_client_cannot_choose_the_host_of_a_location(tmp_path, name):
    forged = FORGED if name == "all" else {name: FORGED[name]}
    async with serve_registry(PASSWORDS, tmp_path, http=NOBODY) as registry:
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


@pytest_twisted.ensureDeferred
async def test_a_client_cannot_choose_its_address_in_the_logs(tmp_path):
    async with serve_registry(PASSWORDS, tmp_path, http=NOBODY) as registry:
        wrong = {**FORGED, "Authorization": "Basic cm9vdDpudWxs"}
        assert (await registry("", "GET", "/v2/", wrong)).status == 401
        line = registry.access_log.getvalue().splitlines()[-1]
        assert line.startswith("127.0.0.1 - - [")
        assert "198.51.100.66" not in line
        (event,) = [event for event in registry.events if "login refused" in event]
        assert "'http.request.remoteaddr': '127.0.0.1'" in event
        assert not [event for event in registry.events if "198.51.100.66" in event]


@pytest_twisted.ensureDeferred
async def test_behind_a_trusted_proxy_the_logs_have_client_and_proxy(tmp_path):
    async with serve_registry(PASSWORDS, tmp_path) as registry:
        # The client has forged the first address, and the proxy has appended the true one.
        sent = {
            "Authorization": "Basic cm9vdDpudWxs",
            "X-Forwarded-For": "203.0.113.9, 198.51.100.7",
        }
        assert (await registry("", "GET", "/v2/", sent)).status == 401
        line = registry.access_log.getvalue().splitlines()[-1]
        assert line.startswith("127.0.0.1 - - [")
        assert line.endswith(' "198.51.100.7"')
        (event,) = [event for event in registry.events if "login refused" in event]
        assert "'http.request.remoteaddr': '198.51.100.7'" in event
        assert "'http.request.peer': '127.0.0.1'" in event
        assert "203.0.113.9" not in "".join(registry.events)
