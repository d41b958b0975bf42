"""Warnings and refused pushes when the store fills up."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred
from twisted.web.server import Site

from tests.support.http_client import RegistryClient
from tests.support.manifests import image
from twisted_registry.api.resource import RegistryResource
from twisted_registry.api.root import make_root
from twisted_registry.auth.access import OpenAccess
from twisted_registry.http.site import HTTPSite
from twisted_registry.repository.registry import Registry
from twisted_registry.storage.memory import MemoryDriver
from twisted_registry.testing.server import RunningServer


@pytest.fixture(params=["httpsite", "twisted"])
def served(request):
    """Serve the API by either site."""
    registry = Registry(MemoryDriver(reactor), reactor)
    resource = RegistryResource(registry, OpenAccess(), reactor)
    tree = make_root(resource, "")
    is_twisted = request.param == "twisted"
    site = Site(tree, reactor=reactor) if is_twisted else HTTPSite(tree, reactor)
    port = reactor.listenTCP(0, site, interface="127.0.0.1")
    number = port.getHost().port
    yield resource, RegistryClient(RunningServer("", f"127.0.0.1:{number}", number, registry))
    pytest_twisted.blockon(maybeDeferred(port.stopListening))


@pytest_twisted.ensureDeferred
async def test_a_warning_is_in_every_response(served):
    resource, api = served
    digest = await api.push_image(b"layer")
    resource.set_storage_state("nearly full", full=False)
    for method, path, status in (
        ("GET", "", 200),
        ("GET", "a/manifests/latest", 200),
        ("HEAD", f"a/manifests/{digest}", 200),
        ("GET", "a/tags/list", 200),
        ("GET", "a/manifests/none", 404),
        ("POST", "a/blobs/uploads/", 202),
    ):
        response = await api(method, path, body=b"" if method == "POST" else None)
        assert (response.status, response.get("Warning")) == (status, '299 - "nearly full"')
    resource.set_storage_state("", full=False)
    assert (await api("GET", "a/manifests/latest")).get("Warning") is None


@pytest_twisted.ensureDeferred
async def test_a_full_store_refuses_pushes_only(served):
    resource, api = served
    await api.push_image(b"layer")
    location = await api.start_upload()
    resource.set_storage_state("full", full=True)
    content = image(b"{}", b"layer")
    for refused in (
        await api("POST", "a/blobs/uploads/", body=b""),
        await api.request_target("PATCH", location, body=b"piece"),
        await api.request_target("PUT", location, body=b"piece"),
        await api.push_manifest(content, "other"),
    ):
        assert (refused.status, refused.code) == (507, "UNAVAILABLE")
    for method, path, status in (
        ("GET", "a/manifests/latest", 200),
        ("HEAD", "a/manifests/latest", 200),
        ("DELETE", "a/manifests/latest", 202),
    ):
        assert (await api(method, path)).status == status
    assert (await api.request_target("GET", location)).status == 204
    resource.set_storage_state("", full=False)
    assert (await api.request_target("PATCH", location, body=b"piece")).status == 202
    assert (await api.push_manifest(content, "other")).status == 201
