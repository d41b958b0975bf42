"""``Registry``: a registry for blocking code."""

from __future__ import annotations

import json
import ssl
import threading
import urllib.request
from base64 import b64encode
from urllib.error import HTTPError, URLError

import pytest

from twisted_registry.testing import ReactorStopped, Registry, WouldDeadlock


def ask(registry, path="/v2/", method="GET", auth=None, body=None, headers=()):
    """Send a request; return status and body."""
    request = urllib.request.Request(registry.url + path, body, dict(headers), method=method)
    if auth is not None:
        request.add_header("Authorization", "Basic " + b64encode(":".join(auth).encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=20, context=registry.ssl_context) as response:
            return response.status, response.read()
    except HTTPError as error:
        with error:
            return error.code, error.read()


def test_it_serves_inside_the_block():
    with Registry() as registry:
        url = registry.url
        assert url == f"http://{registry.host}" == f"http://127.0.0.1:{registry.port}"
        assert ask(registry) == (200, b"{}")
    with pytest.raises(URLError):
        urllib.request.urlopen(f"{url}/v2/", timeout=20)
    with pytest.raises(RuntimeError, match="with Registry"):
        _ = registry.url


def test_a_stopped_registry_can_start_again():
    registry = Registry()
    for _ in range(2):
        assert ask(registry.start()) == (200, b"{}")
        registry.stop()
    registry.stop()
    with pytest.raises(ReactorStopped, match="start"):
        registry.run(int)


def test_tls():
    with Registry(tls=True) as registry:
        assert registry.url.startswith("https://")
        assert ask(registry) == (200, b"{}")
        assert registry.ca_file.exists()
        with pytest.raises(URLError, match="CERTIFICATE_VERIFY_FAILED"):
            urllib.request.urlopen(registry.url, context=ssl.create_default_context())
        ca_file = registry.ca_file
    assert not ca_file.exists()


@pytest.mark.parametrize(
    ("auth", "expected"),
    [
        (("ada", "secret"), ("ada", "secret")),
        ({"ada": "secret", "bob": "other"}, ("ada", "secret")),
        (True, ("user", "password")),
    ],
)
def test_users(auth, expected, tmp_path):
    with Registry(auth=auth) as registry:
        assert registry.auth == expected
        assert ask(registry)[0] == 401
        assert ask(registry, auth=(expected[0], "wrong"))[0] == 401
        assert ask(registry, auth=expected)[0] == 200
        path = registry.docker_config(tmp_path / "client")
        (entry,) = json.loads(path.read_text())["auths"].items()
        assert entry == (registry.host, {"auth": b64encode(":".join(expected).encode()).decode()})


def test_a_function_runs_on_the_thread_of_the_reactor():
    async def name(more):
        return threading.current_thread().name + more

    with Registry() as registry:
        assert registry.run(name, "!") == "registry!"
        with pytest.raises(ZeroDivisionError):
            registry.run(lambda: 1 // 0)


def test_a_blocking_call_on_the_thread_of_the_reactor_is_refused():
    with Registry() as registry:
        with pytest.raises(WouldDeadlock, match="AsyncRegistry"):
            registry.run(lambda: registry.run(int))
        assert ask(registry) == (200, b"{}")


def test_requests_pass_the_hooks_in_order():
    seen = []

    async def note(request, proceed):
        seen.append(request.uri)
        await proceed(request)
        seen.append(request.code)

    async def refuse_pushes(request, proceed):
        if request.method == b"PUT":
            request.setResponseCode(503)
            request.finish()
        else:
            await proceed(request)

    with Registry() as registry:
        registry.hooks += [note, refuse_pushes]
        assert ask(registry) == (200, b"{}")
        assert ask(registry, "/v2/a/manifests/b", "PUT", body=b"{}")[0] == 503
        assert registry.run(lambda: seen) == [b"/v2/", 200, b"/v2/a/manifests/b", 503]
