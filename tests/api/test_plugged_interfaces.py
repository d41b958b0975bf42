"""Plugged-in access controllers, presence gates and event listeners are called."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.api.endpoints import (
    ALL_REQUESTS,
    DENIED,
    LAYER_DIGEST,
    UNAUTHORIZED,
    UPLOAD,
    Grant,
    RefusingController,
    path_of,
)
from tests.api.setups import SETUPS, SITES
from tests.api.watched_driver import Watched, refuse
from tests.support.http_client import connect, head, parse
from tests.support.manifests import OCI_IMAGE, OCI_INDEX, descriptor, digest_of, image, index
from twisted_registry.auth.access import OpenAccess
from twisted_registry.auth.interfaces import CATALOG, Access, IAccessController
from twisted_registry.repository.interfaces import IPresenceGate, IRegistryListener
from twisted_registry.repository.presence import NullGate
from twisted_registry.storage.memory import MemoryDriver

pytestmark = pytest.mark.setups(*SITES)

HTTPSITE = tuple(name for name in SETUPS if name == "httpsite-memory")


@pytest.mark.parametrize(("endpoint", "method"), ALL_REQUESTS)
@pytest_twisted.ensureDeferred
async def test_every_endpoint_requires_access(start, clock, endpoint, method):
    for error, status in ((UNAUTHORIZED, 401), (DENIED, 403)):
        access = RefusingController(error)
        async with start(driver=Watched(MemoryDriver(clock), refuse), access=access) as api:
            body = b"x" * 10 if method in {"PUT", "POST", "PATCH"} else None
            headers = {"Authorization": "Basic c2VjcmV0"}
            response = await api(method, path_of(endpoint), headers, body)
            assert response.status == status
            if method != "HEAD":
                assert response.code == error.code.name
            if status == 401:
                assert response.get("WWW-Authenticate") == 'Basic realm="here"'
            assert response.get("Docker-Distribution-Api-Version") == "registry/2.0"
            assert api.driver.calls == []
            ((caller, accesses),) = access.asked
            assert caller.authorization == "Basic c2VjcmV0"
            assert caller.address == "127.0.0.1"
            assert caller.host == api.host
            assert not caller.secure
            assert "c2VjcmV0" not in repr(caller)
            if endpoint.has_name:
                assert {access.name for access in accesses} == {"a"}
                expected = {"DELETE": {"delete"}, "GET": {"pull"}, "HEAD": {"pull"}}
                uploads = endpoint.handler.startswith("blob_upload")
                assert {access.action for access in accesses} == (
                    {"pull", "push"} if uploads else expected.get(method, {"pull", "push"})
                )
            else:
                assert accesses == ((CATALOG,) if endpoint.handler == "catalog" else ())


@pytest.mark.setups(*HTTPSITE)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "a/manifests/latest"),
        ("POST", f"a/blobs/uploads/?digest={LAYER_DIGEST}"),
        ("PATCH", f"a/blobs/uploads/{UPLOAD}"),
        ("PUT", f"a/blobs/uploads/{UPLOAD}?digest={LAYER_DIGEST}"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_body_is_not_read_without_access(start, method, path):
    """The response is sent before the body, and without 100 Continue."""
    for headers in (
        {"Content-Length": "1000000000", "Expect": "100-continue"},
        {"Transfer-Encoding": "chunked", "Expect": "100-continue"},
        {"Content-Length": "1000000000"},
    ):
        async with start(access=RefusingController(UNAUTHORIZED)) as api:
            connection = await connect(api.served.port)
            connection.send(head(method, f"/v2/{path}", headers, host=api.host))
            await connection.until(lambda received: b"errors" in received)
            assert parse(connection.received, method).status == 401
            assert b"100 Continue" not in connection.received
            connection.abort()
            await connection.closed


@pytest.mark.setups(*HTTPSITE)
@pytest_twisted.ensureDeferred
async def test_a_body_is_requested_after_authorization(start):
    async with start() as api:
        connection = await connect(api.served.port)
        target = f"/v2/a/blobs/uploads/?digest={LAYER_DIGEST}"
        headers = {"Content-Length": "5", "Expect": "100-continue"}
        connection.send(head("POST", target, headers, host=api.host))
        await connection.until(lambda received: b"100 Continue" in received)
        connection.send(b"layer")
        await connection.closed
        assert parse(connection.received, "POST").status == 201


@pytest_twisted.ensureDeferred
async def test_the_store_is_not_used_before_authorization(start, clock):
    """The request waits for a slow controller."""
    decision = Deferred()

    @implementer(IAccessController)
    class SlowController:
        def authorize(self, caller, accesses):
            asked.callback(None)
            return decision

    asked = Deferred()
    driver = Watched(MemoryDriver(clock), lambda *_: None)
    async with start(driver=driver, access=SlowController()) as api:
        connection = await connect(api.served.port)
        connection.send(head("GET", "/v2/_catalog", host=api.host))
        await asked
        assert (driver.calls, connection.received) == ([], b"")
        decision.callback(Grant(lambda _: True))
        await connection.closed
        assert parse(connection.received, "GET").status == 200


@pytest_twisted.ensureDeferred
async def test_an_access_controller_may_be_a_coroutine(start):
    @implementer(IAccessController)
    class CoroutineController:
        async def authorize(self, caller, accesses):
            return Grant(lambda access: access.action == "pull")

    async with start(access=CoroutineController()) as api:
        response = await api("GET", "a/tags/list")
        assert (response.status, response.code) == (404, "NAME_UNKNOWN")


@pytest_twisted.ensureDeferred
async def test_an_error_in_the_access_controller_is_500(start, logged_errors):
    @implementer(IAccessController)
    class BrokenController:
        def authorize(self, caller, accesses):
            raise ZeroDivisionError

    async with start(access=BrokenController()) as api:
        response = await api("GET", "a/tags/list")
        assert (response.status, response.code) == (500, "UNKNOWN")
        assert "ZeroDivisionError" not in response.body.decode()
        assert "ZeroDivisionError" in logged_errors.take()[0]


class FakeGate(NullGate):
    def __init__(self):
        self.hidden = set()
        self.asked = []

    def may_report_present(self, repository, digest):
        self.asked.append((repository, str(digest)))
        return succeed(str(digest) not in self.hidden)


@pytest_twisted.ensureDeferred
async def test_the_presence_gate_hides_content(start, logged_errors):
    gate = FakeGate()
    async with start(gate=gate) as api:
        subject = await api.push_image(b"layer")
        referrer = image(b"{}", subject=descriptor(image(b"{}", b"layer"), OCI_IMAGE))
        await api.push_manifest(referrer, "referrer")
        parent = index(descriptor(image(b"{}", b"layer"), OCI_IMAGE))
        await api.push_manifest(parent, "index", media_type=OCI_INDEX)
        mount = f"b/blobs/uploads/?mount={LAYER_DIGEST}"
        gate.hidden = {LAYER_DIGEST}
        # A pull gets hidden content; HEAD does not, because a client that sends it may skip a push.
        for method, status in (("GET", 200), ("HEAD", 404)):
            assert (await api(method, f"a/blobs/{LAYER_DIGEST}")).status == status
        assert (await api("POST", f"{mount}&from=a", body=b"")).status == 202
        assert (await api("POST", mount, body=b"")).status == 202
        response = await api.push_manifest(image(b"{}", b"layer"), "again")
        assert response.code == "MANIFEST_BLOB_UNKNOWN"
        assert (None, LAYER_DIGEST) in gate.asked
        assert ("a", LAYER_DIGEST) in gate.asked
        gate.hidden = {subject}
        # Another process may have set the tag to it. Whether it is there is not known before the
        # collector has decided.
        for reference, head_status in (("latest", 200), (subject, 503)):
            for method, status in (("GET", 200), ("HEAD", head_status)):
                assert (await api(method, f"a/manifests/{reference}")).status == status
        assert logged_errors.take()
        response = await api.push_manifest(parent, "again", media_type=OCI_INDEX)
        assert response.code == "MANIFEST_BLOB_UNKNOWN"
        gate.hidden = {digest_of(referrer)}
        response = await api("GET", f"a/referrers/{subject}")
        assert len(response.json()["manifests"]) == 1
        gate.hidden = set()
        assert (await api("GET", f"a/blobs/{LAYER_DIGEST}")).status == 200
        assert (await api("GET", "a/manifests/latest")).status == 200
        assert len((await api("GET", f"a/referrers/{subject}")).json()["manifests"]) == 1
        # Deletes do not ask.
        gate.hidden = {subject, LAYER_DIGEST}
        for path in (f"a/manifests/{subject}", f"a/blobs/{LAYER_DIGEST}"):
            assert (await api("DELETE", path)).status == 202
            assert (await api("DELETE", path)).status == 404


@pytest.mark.setups("httpsite-files", "twisted-files")
@pytest_twisted.ensureDeferred
async def test_every_warm_pull_asks_access_and_gate(start, logged_errors):
    """Access and gate are asked for every repeated request, and obeyed at once.

    The gate decides about HEAD only: a pull gets hidden content.
    """
    gate = FakeGate()
    access = RefusingController(DENIED, lambda _: True)
    async with start(gate=gate, access=access) as api:
        digest = await api.push_image(b"layer")
        await deferLater(reactor, 0.05)  # a file that was written just now is not cached
        pulls = {
            "a/manifests/latest": digest,
            f"a/manifests/{digest}": digest,
            f"a/blobs/{LAYER_DIGEST}": LAYER_DIGEST,
        }
        for path, wanted in pulls.items():
            for _ in range(4):
                access.asked.clear()
                gate.asked.clear()
                assert (await api("GET", path)).status == 200
                ((_, accesses),) = access.asked
                assert accesses == (Access("repository", "a", "pull"),)
                assert gate.asked == [("a", wanted)]
            gate.hidden = {wanted}
            by_digest = 404 if "/blobs/" in path else 503
            head_status = 200 if path.endswith("/latest") else by_digest
            assert (await api("HEAD", path)).status == head_status
            assert bool(logged_errors.take()) is (head_status == 503)
            assert (await api("GET", path)).status == 200
            gate.hidden = set()
            assert (await api("HEAD", path)).status == 200
            access.allowed = lambda _: False
            assert (await api("GET", path)).status == 403
            access.allowed = lambda _: True
            assert (await api("GET", path)).status == 200


@implementer(IRegistryListener)
class RecordingListener:
    def __init__(self):
        self.events = []

    def handle_event(self, event):
        self.events.append(event)

    def take(self):
        events, self.events = self.events, []
        return [
            (event.action, event.kind, event.repository, event.digest and str(event.digest),
             event.size, event.tag, event.source)
            for event in events
        ]  # fmt: skip


@pytest_twisted.ensureDeferred
async def test_the_listener_gets_every_event(start):
    listener = RecordingListener()
    async with start(listener=listener) as api:
        await api.push_blob(b"{}")
        config = digest_of(b"{}")
        assert listener.take() == [("push", "blob", "a", config, 2, None, None)]
        await api("POST", f"b/blobs/uploads/?mount={config}&from=a", body=b"")
        assert listener.take() == [("mount", "blob", "b", config, 2, None, "a")]
        digest, size = digest_of(image()), len(image())
        await api.push_manifest(image(), "one?tag=two")
        assert listener.take() == [
            ("push", "manifest", "a", digest, size, tag, None) for tag in ("one", "two")
        ]
        await api.push_manifest(image(), digest)
        assert listener.take() == [("push", "manifest", "a", digest, size, None, None)]
        await api("GET", "a/manifests/one", {"User-Agent": "me/1", "X-Forwarded-For": "192.0.2.1"})
        (event,) = listener.events
        assert event.media_type == OCI_IMAGE
        origin = event.origin
        assert (origin.method, origin.user_agent, origin.address) == ("GET", "me/1", "192.0.2.1")
        assert (origin.host, origin.user) == (api.host, "")
        assert origin.request_id
        assert listener.take() == [("pull", "manifest", "a", digest, size, "one", None)]
        await api("GET", f"a/blobs/{config}")
        assert listener.take() == [("pull", "blob", "a", config, 2, None, None)]
        await api("HEAD", f"a/blobs/{config}")
        await api("GET", f"a/blobs/{digest_of(b'x')}")
        await api("GET", "a/tags/list")
        assert listener.take() == []
        await api("DELETE", "a/manifests/one")
        assert listener.take() == [("delete", "tag", "a", None, None, "one", None)]
        await api("DELETE", f"a/manifests/{digest}")
        assert listener.take() == [
            ("delete", "tag", "a", None, None, "two", None),
            ("delete", "manifest", "a", digest, None, None, None),
        ]
        await api("DELETE", f"a/blobs/{config}")
        assert listener.take() == [("delete", "blob", "a", config, None, None, None)]


def test_the_defaults_provide_their_interfaces():
    verifyObject(IAccessController, OpenAccess())
    verifyObject(IPresenceGate, NullGate())
