"""Client programs and libraries against a registry for tests that fails on demand.

The tests show that faults, journal and profiles do to real clients what they say: retries, resumed
transfers, new tokens, refused content.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from functools import partial
from pathlib import Path

import pytest
from attrs import evolve

from twisted_registry.testing import Blob, File, Registry, build_image, build_index, profiles

pytestmark = pytest.mark.integration

MIB = 1024 * 1024
CONTENT = bytes(range(256)) * (4 * MIB // 256)
IMAGE = build_image(files={"data": CONTENT, "bin/run": File("#!/bin/sh\n", 0o755)})
SMALL = build_image(files={"a": "1"}, layers=[{"b": "2"}])
PLAIN = "--tls-verify=false"


def library(name):
    """Import a client library; without it, the test fails in CI and is skipped elsewhere."""
    if os.environ.get("CI") == "true":
        return importlib.import_module(name)
    return pytest.importorskip(name)


@pytest.fixture
def registry():
    with Registry() as registry:
        yield registry


@pytest.fixture
def secure(tmp_path):
    """A registry over TLS, whose clients fetch tokens."""
    with Registry(tls=True, token_auth=True) as registry:
        yield registry


def expire_tokens_after(registry, method, part):
    """Expire all tokens once, after the first request for a part of the path."""

    async def expire(request, proceed):
        await proceed(request)
        if request.method == method and part in request.path and expire in registry.hooks:
            registry.hooks.remove(expire)
            registry.faults.expire_tokens()

    registry.hooks.append(expire)


# skopeo


def test_skopeo_retries_when_there_are_too_many_requests(registry, sandbox, tmp_path):
    registry.push_image("app:1", SMALL)
    fault = registry.faults.fail("GET", "blobs", status=429, headers={"Retry-After": "1"}, times=1)
    source = f"docker://{registry.host}/app:1"
    sandbox.run("skopeo", "copy", "--src-tls-verify=false", source, f"oci:{tmp_path / 'out'}:1")
    assert fault.hits == 1
    assert registry.journal.count("GET", "blobs", status=429) == 1
    assert registry.journal.count("GET", "blobs", status=200) == len(SMALL.blobs)


@pytest.mark.parametrize("how", ["reset", "truncate"])
def test_skopeo_resumes_a_broken_download(registry, sandbox, tmp_path, how):
    registry.push_image("app:1", IMAGE)
    layer = IMAGE.layers[0].digest
    break_off = getattr(registry.faults, how)
    break_off("GET", f"blobs/{layer}", after=2 * MIB, times=1)
    source = f"docker://{registry.host}/app:1"
    target = tmp_path / "out"
    sandbox.run(
        "skopeo", "copy", "--src-tls-verify=false", "--preserve-digests", source, f"oci:{target}:1"
    )
    assert (target / "blobs/sha256" / layer.partition(":")[2]).read_bytes() == (
        IMAGE.layers[0].read()
    )
    first, second = registry.journal.find("GET", f"blobs/{layer}")
    assert (first.status, second.status) == (200, 206)
    assert second.headers["range"] == f"bytes={2 * MIB}-"


def test_skopeo_refuses_a_corrupted_blob(registry, sandbox, tmp_path):
    registry.push_image("app:1", SMALL)
    registry.faults.corrupt("GET", f"blobs/{SMALL.layers[0].digest}", at=100)
    copy = sandbox.attempt(
        "skopeo", "copy", "--src-tls-verify=false", f"docker://{registry.host}/app:1",
        f"oci:{tmp_path / 'out'}:1",
    )  # fmt: skip
    assert copy.returncode != 0
    assert "igest" in copy.stderr, copy.stderr


def test_skopeo_copies_layouts_and_images(registry, sandbox, tmp_path):
    registry.push_image("app:1", build_index([SMALL, build_image(platform="linux/arm64")]))
    registry.save_layout(tmp_path / "app.tar", "app:1")
    sandbox.run(
        "skopeo", "copy", "--all", "--dest-tls-verify=false", "--preserve-digests",
        f"oci-archive:{tmp_path / 'app.tar'}:app:1", f"docker://{registry.host}/copy:1",
    )  # fmt: skip
    assert registry.pushed("copy:1")
    assert registry.manifest("copy:1") == registry.manifest("app:1")
    sandbox.run(
        "skopeo", "copy", "--all", "--src-tls-verify=false", "--preserve-digests",
        f"docker://{registry.host}/copy:1", f"oci:{tmp_path / 'back'}:again",
    )  # fmt: skip
    assert registry.load_layout(tmp_path / "back", "back") == ["back:again"]
    assert registry.manifest("back:again").digest == registry.manifest("app:1").digest


def test_podman_and_skopeo_load_a_saved_archive(registry, sandbox, tmp_path):
    registry.push_image("app:1", SMALL)
    registry.save_layout(tmp_path / "app.tar", "app:1")
    assert "app:1" in sandbox.run("podman", "load", "-i", tmp_path / "app.tar")
    shown = sandbox.run("skopeo", "inspect", f"docker-archive:{tmp_path / 'app.tar'}:app:1")
    assert '"Architecture": "amd64"' in shown


def test_skopeo_cannot_delete_from_ghcr(sandbox):
    with Registry(profile=profiles.ghcr()) as registry:
        registry.push_image("app:1", SMALL)
        deleted = sandbox.attempt("skopeo", "delete", PLAIN, f"docker://{registry.host}/app:1")
        assert deleted.returncode != 0
        assert "UNSUPPORTED" in deleted.stderr.upper(), deleted.stderr
        assert registry.tags("app") == ["1"]


# oras


def test_oras_retries_failed_requests(registry, sandbox):
    (sandbox.home / "a.txt").write_text("content")
    registry.faults.fail("POST", "uploads", status=503, times=1)
    registry.faults.fail("PUT", "manifests", status=429, headers={"Retry-After": "1"}, times=1)
    sandbox.run("oras", "push", "--plain-http", f"{registry.host}/app:1", "a.txt:text/plain")
    assert registry.pushed("app:1")
    assert registry.journal.count("POST", "uploads", status=503) == 1
    assert registry.journal.count("PUT", "manifests", status=429) == 1


def test_oras_fetches_a_new_token(secure, sandbox):
    (sandbox.home / "a.txt").write_text("content")
    config = secure.docker_config(sandbox.home / "docker")
    expire_tokens_after(secure, b"PUT", b"/uploads/")
    sandbox.run(
        "oras", "push", "--concurrency=1", f"--ca-file={secure.ca_file}",
        f"--registry-config={config}",
        f"{secure.host}/app:1", "a.txt:text/plain",
    )  # fmt: skip
    assert secure.pushed("app:1")
    first = secure.journal.find("PUT", "uploads")[0]
    later = secure.journal.requests[secure.journal.requests.index(first) :]
    assert 401 in [each.status for each in later]
    assert "/auth/token" in [each.path for each in later]


def test_oras_uses_the_tag_schema_without_the_referrers_api(sandbox):
    with Registry(profile=profiles.docker_hub()) as registry:
        registry.push_image("app:1", SMALL)
        (sandbox.home / "sbom.json").write_text("{}")
        sandbox.run(
            "oras", "attach", "--plain-http", "--artifact-type=application/vnd.example.sbom",
            f"{registry.host}/app:1", "sbom.json:application/json",
        )  # fmt: skip
        assert SMALL.digest.replace(":", "-") in registry.tags("app")


# oras for Python


def test_python_oras_pushes_after_a_reset(registry, tmp_path, monkeypatch):
    provider = library("oras.provider")
    (tmp_path / "a.txt").write_text("content")
    monkeypatch.chdir(tmp_path)
    # It waits for seconds before it tries again.
    monkeypatch.setattr("time.sleep", lambda _: None)
    fault = registry.faults.reset("PUT", "manifests", times=1)
    client = provider.Registry(insecure=True)
    response = client.push(f"{registry.host}/app:1", files=["a.txt:text/plain"], quiet=True)
    assert response.status_code == 201
    assert fault.hits == 1
    assert [each.status for each in registry.journal.find("PUT", "manifests")] == [None, 201]
    (layer,) = registry.pull_image("app:1").layers
    assert layer.read() == b"content"


def test_python_oras_pulls_after_a_broken_download(registry, tmp_path, monkeypatch):
    provider = library("oras.provider")
    monkeypatch.setattr("time.sleep", lambda _: None)
    content = Blob.from_bytes(b"content" * 1000, "text/plain")
    layer = evolve(content, annotations={"org.opencontainers.image.title": "a.txt"})
    artifact = build_image(artifact_type="application/vnd.example.text", layers=[layer])
    registry.push_image("app:1", artifact)
    registry.faults.reset("GET", "manifests", times=1)
    client = provider.Registry(insecure=True)
    (pulled,) = client.pull(f"{registry.host}/app:1", outdir=str(tmp_path))
    assert Path(pulled).read_bytes() == content.read()
    assert registry.journal.count("GET", "manifests") == 2


def test_python_oras_pushes_with_a_token_for_both_actions(tmp_path, monkeypatch):
    """Without a given token it fetches one for its first request, a HEAD, which needs to pull.

    It sends that one again when a push is answered 401 and the challenge asks for both actions.
    """
    provider, requests = library("oras.provider"), library("requests")
    (tmp_path / "a.txt").write_text("content")
    monkeypatch.chdir(tmp_path)
    with Registry(token_auth=True) as registry:
        client = provider.Registry(insecure=True)
        url = f"{registry.url}/v2/app/blobs/uploads/"
        challenge = requests.post(url, timeout=20).headers["WWW-Authenticate"]
        assert 'scope="repository:app:pull,push"' in challenge
        query = {"service": "twisted-registry", "scope": "repository:app:pull,push"}
        token_url = f"{registry.url}/auth/token"
        answer = requests.get(token_url, query, auth=registry.auth, timeout=20)
        client.auth.set_token_auth(answer.json()["token"])
        client.push(f"{registry.host}/app:1", files=["a.txt:text/plain"], quiet=True)
        assert registry.pushed("app:1")


def test_python_oras_pushes_with_a_password(tmp_path, monkeypatch):
    provider = library("oras.provider")
    (tmp_path / "a.txt").write_text("content")
    monkeypatch.chdir(tmp_path)
    with Registry(token_auth=True) as registry:
        client = provider.Registry(insecure=True, auth_backend="basic")
        client.auth.set_basic_auth(*registry.auth)
        client.push(f"{registry.host}/app:1", files=["a.txt:text/plain"], quiet=True)
        assert registry.pushed("app:1")


# python-dxf


@pytest.fixture
def dxf(secure):
    """A repository of the secure registry; it authenticates again when it is told to."""
    library("dxf")
    from dxf import DXF

    name, password = secure.auth

    def authenticate(client, response):
        client.authenticate(name, password, response=response)

    with DXF(secure.host, "app", authenticate, tlsverify=str(secure.ca_file)) as client:
        yield client


@pytest.fixture
def content(tmp_path):
    """The path of a file to push."""
    (tmp_path / "content").write_bytes(b"content")
    return str(tmp_path / "content")


def test_dxf_fetches_a_new_token(secure, dxf, content):
    digest = dxf.push_blob(content)
    secure.faults.expire_tokens()
    assert b"".join(dxf.pull_blob(digest)) == b"content"
    assert secure.journal.count("GET", "blobs", status=401) == 1
    assert secure.journal.count("GET", "blobs", status=200) == 1


def test_dxf_detects_a_corrupted_blob(secure, dxf, content):
    digest = dxf.push_blob(content)
    with secure.faults.corrupt():
        exceptions = library("dxf.exceptions")
        with pytest.raises(exceptions.DXFDigestMismatchError):
            b"".join(dxf.pull_blob(digest))
    assert b"".join(dxf.pull_blob(digest)) == b"content"


def test_dxf_reports_too_many_requests(secure, dxf, content):
    requests = library("requests")
    secure.faults.rate_limit(0, "PUT", "uploads")
    with pytest.raises(requests.exceptions.HTTPError, match="429"):
        dxf.push_blob(content)


# The docker SDK for Python, with a daemon


@pytest.fixture
def docker_sdk(docker, shared_sandbox):
    client = library("docker").DockerClient(f"unix://{shared_sandbox.home / 'docker.sock'}")
    with contextlib.closing(client):
        yield client


def test_docker_retries_an_upload_and_a_download(registry, docker_sdk, tmp_path):
    registry.push_image("app:1", SMALL)
    registry.save_layout(tmp_path / "app.tar", "app:1")
    (image,) = docker_sdk.images.load((tmp_path / "app.tar").read_bytes())
    image.tag(f"{registry.host}/copy", "1")
    upload = registry.faults.fail("POST", "uploads", status=503, times=1)
    said = docker_sdk.images.push(f"{registry.host}/copy", "1")
    assert registry.pushed("copy:1"), said
    assert upload.hits == 1

    remove = partial(docker_sdk.images.remove, force=True)
    remove(image.id)
    download = registry.faults.truncate("GET", "blobs", after=10, times=1)
    pulled = docker_sdk.images.pull(f"{registry.host}/copy", "1")
    assert registry.pulled("copy:1")
    assert download.hits == 1
    assert pulled.attrs["Architecture"] == "amd64"
    remove(pulled.id)
