"""The root of a site: probes, and 503 while a health check fails."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import pytest_twisted
from attrs import define
from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred
from zope.interface import implementer

from tests.support.http_client import LocalPort, RegistryClient
from twisted_registry.api.response import Response
from twisted_registry.api.root import JSONResource, PageResource, make_root, put_path
from twisted_registry.health.interfaces import HealthState, IHealth
from twisted_registry.http.site import HTTPSite

STARTING, HEALTHY, FAILING = HealthState


@implementer(IHealth)
@define
class Health:
    now: HealthState = HealthState.HEALTHY

    def state(self):
        return self.now


async def make_page():
    return Response.json({})


@asynccontextmanager
async def serve(root):
    site = HTTPSite(root, reactor)
    port = reactor.listenTCP(0, site, interface="127.0.0.1")
    try:
        yield RegistryClient(LocalPort(port.getHost().port), prefix="/")
    finally:
        await maybeDeferred(port.stopListening)
        site.abort()


@pytest.mark.parametrize(
    ("state", "probes", "others"),
    [
        (STARTING, {"livez": b"ok", "readyz": b"failed", "startupz": b"failed"}, 200),
        (HEALTHY, {"livez": b"ok", "readyz": b"ok", "startupz": b"ok"}, 200),
        (FAILING, {"livez": b"ok", "readyz": b"failed", "startupz": b"ok"}, 503),
    ],
)
@pytest_twisted.ensureDeferred
async def test_responses_in_each_state(state, probes, others):
    root = make_root(
        PageResource(make_page), "", {"auth/token": PageResource(make_page)}, Health(state)
    )
    async with serve(root) as ask:
        for path, body in probes.items():
            for target in (path, f"{path}/"):
                answer = await ask("GET", target)
                assert (answer.status, answer.body) == (200 if body == b"ok" else 503, body)
            assert answer.get("Content-Type") == "text/plain"
            assert answer.get("Cache-Control") == "no-store"
            answer = await ask("HEAD", path)
            assert (answer.status, answer.body) == (200 if body == b"ok" else 503, b"")
        for path in ("", "v2/", "auth/token"):
            assert (await ask("GET", path)).status == others
        for path in ("nowhere", "livez/x"):
            assert (await ask("GET", path)).status == (503 if state == FAILING else 404)


@pytest_twisted.ensureDeferred
async def test_the_response_while_a_check_fails():
    async with serve(make_root(PageResource(make_page), "", None, Health(FAILING))) as ask:
        for method, path in (("GET", ""), ("PUT", "v2/a/manifests/1"), ("OPTIONS", "v2/")):
            answer = await ask(method, path, body=b"x" if method == "PUT" else None)
            assert (answer.status, answer.code) == (503, "UNAVAILABLE")
            (error,) = answer.json()["errors"]
            assert error["detail"] == "health check failed: please see /debug/health"


@pytest_twisted.ensureDeferred
async def test_a_change_applies_to_the_next_request():
    health = Health()
    async with serve(make_root(PageResource(make_page), "", None, health)) as ask:
        for state, status in ((HEALTHY, 200), (FAILING, 503), (HEALTHY, 200)):
            health.now = state
            assert (await ask("GET", "v2/")).status == status


@pytest_twisted.ensureDeferred
async def test_a_root_below_another_path_is_covered():
    health = Health(FAILING)
    top = JSONResource()
    put_path(top, "images", make_root(PageResource(make_page), "", None, health))
    async with serve(top) as ask:
        assert (await ask("GET", "images")).status == 503
        assert (await ask("GET", "images/v2/")).status == 503
        assert (await ask("GET", "images/livez")).status == 200
        health.now = HEALTHY
        assert (await ask("GET", "images")).status == 200


@pytest.mark.parametrize("prefix", ["/images/", "/livez/"])
@pytest_twisted.ensureDeferred
async def test_the_probes_are_at_the_root_whatever_the_prefix(prefix):
    health = Health()
    async with serve(make_root(PageResource(make_page), prefix, None, health)) as ask:
        target = f"{prefix.strip('/')}/v2/"
        assert (await ask("GET", target)).status == 200
        health.now = FAILING
        assert (await ask("GET", target)).status == 503
        assert (await ask("GET", "livez")).status == 200
        assert (await ask("GET", "images/livez")).status == 503


@pytest_twisted.ensureDeferred
async def test_without_checks_a_registry_is_ready():
    async with serve(make_root(PageResource(make_page), "")) as ask:
        for path in ("livez", "readyz", "startupz"):
            assert (await ask("GET", path)).status == 200
        assert (await ask("POST", "livez", body=b"")).status == 405
