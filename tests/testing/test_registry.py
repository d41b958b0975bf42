"""``Registry``: a registry for blocking code."""

from __future__ import annotations

import json
import ssl
import threading
import urllib.request
from base64 import b64encode
from urllib.error import HTTPError, URLError

import pytest

from twisted_registry import ConfigurationError, StartError
from twisted_registry.storage.memory import MemoryDriver
from twisted_registry.testing import ReactorStopped, Registry, WouldDeadlock, build_image


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
        assert [*registry.ca_file.parent.iterdir()] == [registry.ca_file]
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


def test_a_registry_does_not_stop_itself():
    with Registry() as registry:
        with pytest.raises(WouldDeadlock):
            registry.run(registry.stop)
        assert ask(registry) == (200, b"{}")


def test_a_failed_start_leaves_nothing():
    with Registry() as other:
        registry = Registry(port=other.port)
        with pytest.raises(StartError, match=r"http\.addr.*Address already in use"):
            registry.start()
        assert len([each for each in threading.enumerate() if each.name == "registry"]) == 1
        with pytest.raises(RuntimeError, match="with Registry"):
            _ = registry.url
    assert ask(registry.start()) == (200, b"{}")
    registry.stop()


@pytest.mark.parametrize(
    ("config", "error", "match"),
    [
        ({"http": {"prefix": "no slash"}}, ConfigurationError, "http.prefix"),
        ("- a list", TypeError, "expected a mapping"),
        ({"http": {"headers": {"X-Test": ["here"]}}}, None, ""),
        ("http: {headers: {X-Test: [here]}}", None, ""),
    ],
)
def test_a_configuration(config, error, match):
    if error is not None:
        with pytest.raises(error, match=match):
            Registry(config=config).start()
        return
    with Registry(config=config) as registry, urllib.request.urlopen(registry.url) as response:
        assert response.status == 200
        with urllib.request.urlopen(f"{registry.url}/v2/") as version:
            assert version.headers["X-Test"] == "here"


def test_the_configuration_of_a_real_registry(tmp_path):
    """Two at once: neither addresses nor processes are those of the file."""
    path = tmp_path / "config.yml"
    path.write_text(
        "version: 0.1\nstorage: {filesystem: {rootdirectory: images}}\n"
        "http: {addr: '/run/registry.sock', net: unix, workers: 4, debug: {addr: ':5001'}}\n"
    )
    with (
        Registry(config=path, storage=tmp_path / "1") as one,
        Registry(config=path, storage=tmp_path / "2") as two,
    ):
        assert ask(one) == ask(two) == (200, b"{}")


def test_the_certificate_of_a_configuration(tmp_path):
    config = {"http": {"tls": {"auto": {"hosts": ["127.0.0.1"], "folder": tmp_path / "tls"}}}}
    with Registry(config=config) as registry:
        context = ssl.create_default_context(cafile=tmp_path / "tls/ca.crt")
        with urllib.request.urlopen(f"{registry.url}/v2/", context=context) as response:
            assert (registry.url[:5], response.status) == ("https", 200)


def begin_upload(registry, auth=None):
    return ask(registry, "/v2/a/blobs/uploads/", "POST", auth, b"")[0]


def test_a_folder_keeps_the_images(tmp_path):
    image = build_image(files={"a": "1"})
    with Registry(storage=tmp_path) as registry:
        registry.push_image("app:1", image)
    with Registry(storage=tmp_path, readonly=True) as registry:
        assert registry.tags("app") == ["1"]
        assert begin_upload(registry) == 405


def test_a_driver_and_a_section_of_storage(tmp_path):
    drivers = []

    def make(reactor):
        drivers.append(MemoryDriver(reactor))
        return drivers[-1]

    with Registry(storage=make) as registry:
        assert begin_upload(registry) == 202
    assert len(drivers) == 1
    section = {"filesystem": {"rootdirectory": str(tmp_path / "images")}}
    with Registry(storage=section) as registry:
        assert begin_upload(registry) == 202
    assert (tmp_path / "images/docker").is_dir()


@pytest.mark.parametrize(("delete", "status"), [(True, 404), (False, 405)])
def test_deletes(delete, status):
    with Registry(delete=delete) as registry:
        assert ask(registry, f"/v2/a/blobs/sha256:{'0' * 64}", "DELETE")[0] == status


@pytest.mark.parametrize("readonly", [False, True])
def test_tokens(readonly):
    with Registry(token_auth=True, readonly=readonly) as registry:
        assert ask(registry)[0] == 401
        path = "/auth/token?service=twisted-registry&scope=repository:a:pull,push"
        status, body = ask(registry, path, auth=registry.auth)
        assert status == 200
        token = {"Authorization": f"Bearer {json.loads(body)['token']}"}
        assert ask(registry, headers=token) == (200, b"{}")
        assert ask(registry, path, auth=("user", "wrong"))[0] == 401


def test_variables_override_the_configuration():
    environ = {"REGISTRY_STORAGE_DELETE_ENABLED": "false", "REGISTRY_HTTP_ADDR": "0.0.0.0:5000"}
    with Registry(environ=environ) as registry:
        assert registry.host.startswith("127.0.0.1:")
        assert ask(registry, f"/v2/a/blobs/sha256:{'0' * 64}", "DELETE")[0] == 405


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
