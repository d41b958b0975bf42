"""``serve``: a registry for the tests of other programs."""

from __future__ import annotations

import hashlib

import pytest
import pytest_twisted
import treq
from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.ssl import Certificate
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS, ResponseNeverReceived

from twisted_registry.http.interfaces import Limits
from twisted_registry.repository.registry import Registry
from twisted_registry.storage.filesystem.driver import FilesystemDriver
from twisted_registry.storage.memory import MemoryDriver
from twisted_registry.testing.server import serve

CONTENT = b"content"
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


async def status(method, url, **more):
    response = await treq.request(method, url, persistent=False, **more)
    await response.content()
    return response.code


@pytest.mark.parametrize("use_twisted_site", [False, True])
@pytest_twisted.ensureDeferred
async def test_serve_serves_until_the_block_ends(use_twisted_site):
    async with serve(reactor, use_twisted_site=use_twisted_site) as served:
        assert served.url == f"http://{served.host}" == f"http://127.0.0.1:{served.port}"
        assert isinstance(served.registry, Registry)
        assert await status("GET", served.url + "/v2/") == 200
        target = f"{served.url}/v2/a/blobs/uploads/?digest={DIGEST}"
        assert await status("POST", target, data=CONTENT) == 201
        assert await status("GET", f"{served.url}/v2/a/blobs/{DIGEST}") == 200
    with pytest.raises(Refused):
        await status("GET", served.url + "/v2/")


@pytest.mark.parametrize("use_twisted_site", [False, True])
@pytest_twisted.ensureDeferred
async def test_serve_with_tls(use_twisted_site):
    async with serve(reactor, tls=True, use_twisted_site=use_twisted_site) as served:
        assert served.url == f"https://127.0.0.1:{served.port}"
        trusted = Certificate.loadPEM(served.authority.read_bytes())
        agent = Agent(reactor, BrowserLikePolicyForHTTPS(trusted))
        response = await HTTPClient(agent).get(served.url + "/v2/")
        assert (response.code, await response.content()) == (200, b"{}")
        large = bytes(range(256)) * 12_345
        digest = f"sha256:{hashlib.sha256(large).hexdigest()}"
        target = f"{served.url}/v2/a/blobs/uploads/?digest={digest}"
        assert (await HTTPClient(agent).post(target, data=large)).code == 201
        response = await HTTPClient(agent).get(f"{served.url}/v2/a/blobs/{digest}")
        assert await response.content() == large
        with pytest.raises(ResponseNeverReceived):
            await status("GET", served.url + "/v2/")
    assert not served.authority.exists()


@pytest_twisted.ensureDeferred
async def test_serve_with_users():
    async with serve(reactor, users={"ada": "secret"}, tls=True) as served:
        trusted = Certificate.loadPEM(served.authority.read_bytes())
        client = HTTPClient(Agent(reactor, BrowserLikePolicyForHTTPS(trusted)))
        for auth, code in ((None, 401), (("ada", "wrong"), 401), (("ada", "secret"), 200)):
            response = await client.get(f"{served.url}/v2/", auth=auth)
            await response.content()
            assert response.code == code
        assert response.headers.getRawHeaders("WWW-Authenticate") is None


@pytest_twisted.ensureDeferred
async def test_several_servers_run_at_once():
    async with serve(reactor) as one, serve(reactor) as two:
        target = f"{one.url}/v2/a/blobs/uploads/?digest={DIGEST}"
        assert await status("POST", target, data=CONTENT) == 201
        assert await status("HEAD", f"{one.url}/v2/a/blobs/{DIGEST}") == 200
        assert await status("HEAD", f"{two.url}/v2/a/blobs/{DIGEST}") == 404


@pytest_twisted.ensureDeferred
async def test_serve_uses_and_closes_the_given_driver(tmp_path):
    for _ in range(2):
        driver = FilesystemDriver(str(tmp_path / "store"), reactor)
        async with serve(reactor, driver=driver, prefix="/here/") as served:
            base = f"{served.url}/here/v2/a/blobs"
            if not (tmp_path / "store/docker").exists():
                target = f"{base}/uploads/?digest={DIGEST}"
                assert await status("POST", target, data=CONTENT) == 201
            assert await status("GET", f"{base}/{DIGEST}") == 200


@pytest_twisted.ensureDeferred
async def test_an_error_in_the_block_stops_the_server():
    driver = MemoryDriver(reactor)
    serving = serve(reactor, driver=driver, limits=Limits(url_bytes=100))
    served = await serving.__aenter__()
    assert await status("GET", f"{served.url}/{'x' * 200}") == 414
    error = ZeroDivisionError()
    assert not await serving.__aexit__(type(error), error, None)
    with pytest.raises(Refused):
        await status("GET", served.url)
