"""A registry as a Resource inside another application, and the public names."""

from __future__ import annotations

import hashlib
from contextlib import asynccontextmanager
from importlib.resources import files

import pytest
import pytest_twisted
import treq
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.web.resource import Resource
from twisted.web.server import Site
from zope.interface import implementer

import twisted_registry
from twisted_registry import (
    ConfigurationError,
    IAccessController,
    IRegistryListener,
    RegistryService,
    StartError,
    make_resource,
)
from twisted_registry.auth.access import OpenGrant
from twisted_registry.http.site import HTTPSite
from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.storage.memory import MemoryDriver

CONTENT = bytes(range(256)) * 5000
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
SITES = {"twisted": lambda root: Site(root, reactor=reactor), "own": lambda r: HTTPSite(r, reactor)}


@asynccontextmanager
async def listening(root, *registries, site="twisted"):
    """Serve a tree; yields its URL."""
    factory = SITES[site](root)
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
    try:
        yield f"http://127.0.0.1:{port.getHost().port}"
    finally:
        await port.stopListening()
        for registry in registries:
            await registry.close()


class FrontPage(Resource):
    def render_GET(self, request):
        return b"front page"


async def ask(method, url, **more):
    response = await treq.request(method, url, persistent=False, allow_redirects=False, **more)
    response.body = await response.content()
    return response


async def push(base):
    """Push a blob in two requests; return the URL where the registry says that it is."""
    begun = await ask("POST", f"{base}/v2/a/blobs/uploads/")
    (location,) = begun.headers.getRawHeaders("Location")
    done = await ask("PUT", f"{location}&digest={DIGEST}", data=CONTENT)
    assert (begun.code, done.code) == (202, 201)
    (location,) = done.headers.getRawHeaders("Location")
    return location


@pytest.mark.parametrize("site", SITES)
@pytest_twisted.ensureDeferred
async def test_a_registry_is_a_whole_site(site):
    registry = make_resource(reactor)
    async with listening(registry, registry, site=site) as url:
        assert (await ask("GET", url)).code == 200
        assert await push(url) == f"{url}/v2/a/blobs/{DIGEST}"
        assert (await ask("GET", f"{url}/v2/a/blobs/{DIGEST}")).body == CONTENT
        assert (await ask("GET", f"{url}/other")).code == 404


@pytest.mark.parametrize("site", SITES)
@pytest_twisted.ensureDeferred
async def test_several_registries_are_parts_of_a_site(site):
    one, two, three = (make_resource(reactor) for _ in range(3))
    root = Resource()
    root.putChild(b"", FrontPage())
    root.putChild(b"v2", one.api)
    root.putChild(b"images", two)
    folder = Resource()
    folder.putChild(b"below", three)
    root.putChild(b"far", folder)
    async with listening(root, one, two, three, site=site) as url:
        assert (await ask("GET", url)).body == b"front page"
        for path in ("", "/far/below"):
            assert await push(url + path) == f"{url}{path}/v2/a/blobs/{DIGEST}"
        codes = [
            (await ask("HEAD", f"{url}{path}/v2/a/blobs/{DIGEST}")).code
            for path in ("", "/images", "/far/below")
        ]
        assert codes == [200, 404, 200]


@pytest.mark.parametrize("configuration", [None, {"version": 0.1, "storage": "inmemory"}])
@pytest_twisted.ensureDeferred
async def test_images_stay_in_a_folder(tmp_path, configuration):
    for turn in range(2):
        registry = make_resource(reactor, configuration, storage=tmp_path / "images")
        async with listening(registry, registry) as url:
            if turn == 0:
                await push(url)
            assert (await ask("GET", f"{url}/v2/a/blobs/{DIGEST}")).body == CONTENT
    assert (tmp_path / "images/docker").is_dir()


@implementer(IAccessController)
class Readers:
    def authorize(self, caller, accesses):
        if any(access.action != "pull" for access in accesses):
            raise RegistryError(ErrorCode.DENIED)
        return OpenGrant()


@implementer(IRegistryListener)
class Events(list):
    def handle_event(self, event):
        self.append((event.action, event.kind, event.repository))


@pytest_twisted.ensureDeferred
async def test_a_program_passes_its_own_parts():
    driver, events = MemoryDriver(reactor), Events()
    registry = make_resource(reactor, storage=driver, listener=events)
    guarded = make_resource(reactor, storage=MemoryDriver(reactor), access=Readers())
    assert registry.service.driver is driver
    root = Resource()
    root.putChild(b"v2", registry.api)
    root.putChild(b"guarded", guarded)
    async with listening(root, registry, guarded) as url:
        await push(url)
        assert ("push", "blob", "a") in events
        assert (await ask("POST", f"{url}/guarded/v2/a/blobs/uploads/")).code == 403
        assert (await ask("GET", f"{url}/guarded/v2/a/tags/list")).code == 404


@pytest_twisted.ensureDeferred
async def test_tokens_below_a_path(tmp_path):
    users = tmp_path / "users"
    # Only anonymous clients ask here.
    users.write_text("ada:$2b$04$XXXXXXXXXXXXXXXXXXXXXOk4bq1OKg4mJt2fwNG2Nn.TGMmpVWiDG\n")
    registry = make_resource(
        reactor,
        {
            "version": 0.1,
            "storage": "inmemory",
            "http": {"prefix": "/images/"},
            "auth": {"htpasswd": {"realm": "x", "path": users}},
            "access": {"authenticated": ["push"], "anonymous": ["pull"], "tokens": {}},
        },
    )
    root = Resource()
    root.putChild(b"images", registry)
    async with listening(root, registry) as url:
        refused = await ask("GET", f"{url}/images/v2/")
        assert refused.code == 401
        (challenge,) = refused.headers.getRawHeaders("WWW-Authenticate")
        assert f'realm="{url}/images/auth/token"' in challenge
        answer = await ask("GET", f"{url}/images/auth/token?scope=repository:a:pull")
        assert answer.code == 200


@pytest_twisted.ensureDeferred
async def test_nothing_stays_in_the_reactor_after_close():
    before = set(map(id, reactor.getDelayedCalls())), len(reactor.getReaders())
    registry = make_resource(reactor)
    assert len(reactor.getDelayedCalls()) > len(before[0])
    await registry.close()
    await registry.close()
    assert {id(call) for call in reactor.getDelayedCalls()} <= before[0]
    assert len(reactor.getReaders()) == before[1]


def test_a_wrong_configuration_is_an_error():
    with pytest.raises(ConfigurationError, match="storage"):
        make_resource(reactor, {"version": 0.1, "storage": {"floppy": {}}})
    with pytest.raises(ConfigurationError, match="version"):
        RegistryService("storage: inmemory", reactor=reactor)
    with pytest.raises(StartError, match="rootdirectory"):
        make_resource(
            reactor,
            {"version": 0.1, "storage": {"filesystem": {"rootdirectory": "/dev/null/here"}}},
        )


@pytest_twisted.ensureDeferred
async def test_a_service_takes_a_mapping():
    service = RegistryService(
        {"version": 0.1, "storage": "inmemory", "http": {"addr": "127.0.0.1:0"}}, reactor=reactor
    )
    service.privilegedStartService()
    service.startService()
    try:
        port = service.getServiceNamed("http").address.port
        assert (await ask("GET", f"http://127.0.0.1:{port}/v2/")).body == b"{}"
    finally:
        await service.stopService()


@pytest.mark.parametrize("name", twisted_registry.__all__)
def test_every_public_name_exists(name):
    public = getattr(twisted_registry, name)
    assert public.__doc__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nothing"):
        _ = twisted_registry.nothing


def test_the_package_is_typed():
    assert (files("twisted_registry") / "py.typed").is_file()
