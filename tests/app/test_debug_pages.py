"""The pages of the debug address, over HTTP."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import fail, maybeDeferred, succeed

from tests.support.http_client import LocalPort, RegistryClient
from twisted_registry.api.root import JSONResource, PageResource
from twisted_registry.app.debug import HealthPage, MaintenancePage, PostGuard, make_page
from twisted_registry.auth.access import OpenGrant
from twisted_registry.auth.interfaces import MAINTENANCE
from twisted_registry.health.registry import MANUAL_CHECK, HealthRegistry
from twisted_registry.http.site import HTTPSite
from twisted_registry.oci.errors import ErrorCode, RegistryError


class Access:
    """Grants access to one password."""

    def __init__(self):
        self.asked = []

    def authorize(self, caller, accesses):
        self.asked += accesses
        if caller.authorization == "password":
            return succeed(OpenGrant("somebody"))
        headers = (("WWW-Authenticate", 'Basic realm="here"'),)
        return fail(RegistryError(ErrorCode.UNAUTHORIZED, headers=headers))


class Pages:
    """The content of the pages, and the tasks that were started."""

    def __init__(self):
        self.started = []
        self.breaks = None
        self.health = HealthRegistry()

    async def read(self):
        if self.breaks is not None:
            raise self.breaks
        return make_page(b"[]", "text/x")

    def start(self, name):
        if name != "gc":
            return False
        self.started.append(name)
        return True

    @asynccontextmanager
    async def serve(self, access=None, *, is_loopback_only=True):
        root = JSONResource()
        root.putChild(b"page", PageResource(self.read))
        guard = PostGuard(access, is_loopback_only)
        root.putChild(b"tasks", MaintenancePage(self.read, self.start, guard))
        root.putChild(b"health", HealthPage(self.health, guard))
        site = HTTPSite(root, reactor)
        port = reactor.listenTCP(0, site, interface="127.0.0.1")
        try:
            yield RegistryClient(LocalPort(port.getHost().port), prefix="/")
        finally:
            await maybeDeferred(port.stopListening)
            site.abort()


@pytest.fixture
def pages():
    return Pages()


@pytest_twisted.ensureDeferred
async def test_a_page_is_served_with_and_without_a_slash(pages):
    async with pages.serve() as ask:
        for path in ("page", "page/"):
            answer = await ask("GET", path)
            assert (answer.status, answer.body, answer.get("Content-Type")) == (
                200,
                b"[]",
                "text/x",
            )
            assert answer.get("Cache-Control") == "no-store"
        assert (await ask("HEAD", "page")).get("Content-Length") == "2"
        assert (await ask("GET", "page/more")).status == 404
        answer = await ask("PUT", "page", body=b"x")
        assert (answer.status, answer.get("Allow")) == (405, "GET, HEAD")


@pytest_twisted.ensureDeferred
async def test_an_error_of_the_content_is_the_response(pages):
    pages.breaks = RegistryError(ErrorCode.UNAVAILABLE)
    async with pages.serve() as ask:
        answer = await ask("GET", "page")
        assert (answer.status, answer.code) == (503, "UNAVAILABLE")
        pages.breaks = ValueError("unexpected")
        answer = await ask("GET", "page")
        assert (answer.status, answer.code) == (500, "UNKNOWN")
        assert b"unexpected" not in answer.body


@pytest_twisted.ensureDeferred
async def test_a_task_can_be_started_on_a_loopback_address(pages):
    async with pages.serve() as ask:
        assert (await ask("GET", "tasks")).body == b"[]"
        answer = await ask("POST", "tasks/gc", body=b"")
        assert (answer.status, answer.json()) == (202, {"started": "gc"})
        assert pages.started == ["gc"]
        for path in ("tasks/dust", "tasks/gc/x", "tasks/%ff"):
            assert (await ask("POST", path, body=b"")).status == 404
        answer = await ask("GET", "tasks/gc")
        assert (answer.status, answer.get("Allow")) == (405, "POST")
        assert (await ask("POST", "tasks", body=b"")).status == 405
    assert pages.started == ["gc"]


@pytest_twisted.ensureDeferred
async def test_a_page_in_a_browser_cannot_start_a_task(pages):
    access = Access()
    async with pages.serve(access) as ask:
        headers = {"Origin": "http://evil.example", "Authorization": "password"}
        answer = await ask("POST", "tasks/gc", headers, b"")
        assert (answer.status, answer.code) == (403, "DENIED")
    assert pages.started == access.asked == []


@pytest_twisted.ensureDeferred
async def test_without_auth_a_task_cannot_be_started_on_a_public_address(pages):
    async with pages.serve(is_loopback_only=False) as ask:
        answer = await ask("POST", "tasks/gc", body=b"")
        assert (answer.status, answer.code) == (403, "DENIED")
        assert (await ask("GET", "tasks")).status == 200
    assert pages.started == []


@pytest.mark.parametrize("is_loopback_only", [True, False])
@pytest_twisted.ensureDeferred
async def test_with_auth_starting_a_task_needs_the_right_to_maintenance(pages, is_loopback_only):
    access = Access()
    async with pages.serve(access, is_loopback_only=is_loopback_only) as ask:
        answer = await ask("POST", "tasks/gc", body=b"")
        assert (answer.status, answer.code) == (401, "UNAUTHORIZED")
        assert answer.get("WWW-Authenticate") == 'Basic realm="here"'
        assert pages.started == []
        answer = await ask("POST", "tasks/gc", {"Authorization": "password"}, b"")
        assert answer.status == 202
    assert access.asked == [MAINTENANCE, MAINTENANCE]


@pytest_twisted.ensureDeferred
async def test_an_operator_takes_the_registry_down_and_up(pages, log_lines):
    async with pages.serve() as ask:
        answer = await ask("GET", "health")
        assert (answer.status, answer.body) == (200, b"{}")
        for _ in range(2):
            assert (await ask("POST", "health/down", body=b"")).status == 200
        answer = await ask("GET", "health")
        assert (answer.status, answer.json()) == (503, {MANUAL_CHECK: "manual check"})
        assert (await ask("HEAD", "health")).status == 503
        for _ in range(2):
            assert (await ask("POST", "health/up", body=b"")).status == 200
        assert (await ask("GET", "health/")).status == 200
        for path in ("health/down/x", "health/sideways"):
            assert (await ask("POST", path, body=b"")).status == 404
        answer = await ask("GET", "health/down")
        assert (answer.status, answer.get("Allow")) == (405, "POST")
        assert (await ask("POST", "health", body=b"")).status == 405
    changes = [line for line in log_lines if line.startswith("health check")]
    assert changes == [
        f"health check fails, requests are answered 503: check={MANUAL_CHECK} reason=manual check",
        f"health check passes again: check={MANUAL_CHECK}",
    ]


@pytest.mark.parametrize(
    ("access", "is_loopback_only", "headers", "status"),
    [
        (False, False, {}, 403),
        (False, True, {"Origin": "http://evil.example"}, 403),
        (True, True, {}, 401),
        (True, False, {"Authorization": "password"}, 200),
    ],
)
@pytest_twisted.ensureDeferred
async def test_who_may_take_the_registry_down(pages, access, is_loopback_only, headers, status):
    controller = Access() if access else None
    async with pages.serve(controller, is_loopback_only=is_loopback_only) as ask:
        assert (await ask("POST", "health/down", headers, b"")).status == status
    assert bool(pages.health.failing()) is (status == 200)
