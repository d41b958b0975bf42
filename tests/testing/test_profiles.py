"""Registries that refuse and lack what public ones do."""

from __future__ import annotations

import hashlib
import http.client
import inspect
import json
from contextlib import closing

import pytest

from twisted_registry.testing import Registry, build_image, profiles

IMAGE = build_image(files={"a": "1" * 1000})
REFERRER = build_image(subject=IMAGE, artifact_type="application/vnd.example.thing")
LAYER = IMAGE.layers[0]
MIB = 1024 * 1024
ALL = [
    profiles.docker_hub(),
    profiles.ghcr(),
    profiles.ecr(["app"]),
    profiles.quay(),
    profiles.distribution_2(),
    profiles.without_digests(),
]


def ask(registry, method, path, body=None, headers=None):
    path = path.removeprefix(registry.url)
    with closing(http.client.HTTPConnection(registry.host, timeout=20)) as connection:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        response.body = response.read()
        return response


def push_manifest(registry, image, name="app", tag="1"):
    return ask(
        registry,
        "PUT",
        f"/v2/{name}/manifests/{tag}",
        image.manifest.read(),
        {"Content-Type": image.media_type},
    )


def upload(registry, chunks, name="app"):
    """Upload a blob in chunks, the last one with the PUT; return all statuses."""
    content = b"".join(chunks)
    response = ask(registry, "POST", f"/v2/{name}/blobs/uploads/")
    statuses, start = [response.status], 0
    for chunk in chunks[:-1]:
        span = {"Content-Range": f"{start}-{start + len(chunk) - 1}"}
        response = ask(registry, "PATCH", response.getheader("Location"), chunk, span)
        statuses.append(response.status)
        start += len(chunk)
        if response.status >= 400:
            return statuses
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    location = f"{response.getheader('Location')}&digest={digest}"
    statuses.append(ask(registry, "PUT", location, chunks[-1]).status)
    return statuses


def code(response):
    return json.loads(response.body)["errors"][0]["code"]


@pytest.fixture
def serve():
    """Return a function that starts a registry with a profile, with an image in it."""
    registries = []

    def start(profile):
        registry = Registry(profile=profile).start()
        registries.append(registry)
        registry.push_image("app:1", IMAGE)
        return registry

    yield start
    for registry in registries:
        registry.stop()


@pytest.mark.parametrize("profile", ALL, ids=lambda profile: profile.name)
def test_an_image_is_pushed_and_pulled(serve, profile):
    registry = serve(profile)
    for blob in build_image(files={"b": "2"}).blobs:
        statuses = upload(registry, [blob.read()])
        assert statuses == [202, 201]
    assert push_manifest(registry, IMAGE, tag="2").status == 201
    assert ask(registry, "GET", "/v2/app/manifests/2").body == IMAGE.manifest.read()
    assert ask(registry, "GET", f"/v2/app/blobs/{LAYER.digest}").body == LAYER.read()
    assert json.loads(ask(registry, "GET", "/v2/app/tags/list").body)["tags"] == ["1", "2"]


@pytest.mark.parametrize("profile", ALL, ids=lambda profile: profile.name)
def test_each_behaviour_cites_its_source(profile):
    functions = [value for _, value in inspect.getmembers(profiles, inspect.isfunction)]
    documentation = "".join(inspect.getdoc(each) or "" for each in functions)
    for behaviour in profile.behaviours:
        assert behaviour.source.startswith("https://")
        assert behaviour.source in documentation
        assert behaviour.description


@pytest.mark.parametrize(
    "profile",
    [profiles.docker_hub(), profiles.ghcr(), profiles.distribution_2()],
    ids=lambda profile: profile.name,
)
def test_deletes_and_referrers_are_refused(serve, profile):
    registry = serve(profile)
    response = ask(registry, "DELETE", f"/v2/app/manifests/{IMAGE.digest}")
    assert (response.status, code(response)) == (405, "UNSUPPORTED")
    assert ask(registry, "GET", f"/v2/app/referrers/{IMAGE.digest}").status == 404
    for blob in REFERRER.blobs:
        upload(registry, [blob.read()])
    response = push_manifest(registry, REFERRER, tag="referrer")
    assert (response.status, response.getheader("OCI-Subject")) == (201, None)


def test_docker_hub_limits_pulls(serve):
    registry = serve(profiles.docker_hub(pulls=2))
    for remaining in (1, 0):
        response = ask(registry, "GET", "/v2/app/manifests/1")
        assert response.status == 200
        assert response.getheader("ratelimit-limit") == "2;w=21600"
        assert response.getheader("ratelimit-remaining") == f"{remaining};w=21600"
    response = ask(registry, "GET", "/v2/app/manifests/1")
    assert (response.status, code(response)) == (429, "TOOMANYREQUESTS")
    assert response.getheader("ratelimit-remaining") == "0;w=21600"
    response = ask(registry, "HEAD", "/v2/app/manifests/1")
    assert (response.status, response.getheader("ratelimit-remaining")) == (200, "0;w=21600")
    assert push_manifest(registry, IMAGE).status == 201


def test_docker_hub_refuses_the_catalog(serve):
    response = ask(serve(profiles.docker_hub()), "GET", "/v2/_catalog")
    assert response.status == 401
    assert 'error="insufficient_scope"' in response.getheader("WWW-Authenticate")


def test_ghcr_limits_chunks(serve):
    registry = serve(profiles.ghcr())
    assert upload(registry, [bytes(4 * MIB), b"1"]) == [202, 202, 201]
    assert upload(registry, [bytes(4 * MIB + 1), b"1"]) == [202, 416]
    # A whole layer in one PUT is not a chunk.
    assert upload(registry, [bytes(5 * MIB)]) == [202, 201]


def test_ecr_wants_large_chunks(serve):
    registry = serve(profiles.ecr())
    assert upload(registry, [bytes(5 * MIB), b"1"]) == [202, 201, 201]
    assert upload(registry, [bytes(5 * MIB - 1), b"1"]) == [202, 201, 400]
    assert upload(registry, [bytes(5 * MIB), b"1", b"2"]) == [202, 201, 201, 400]
    assert upload(registry, [bytes(1000)]) == [202, 201]


def test_ecr_does_not_make_repositories(serve):
    registry = serve(profiles.ecr(["app"]))
    response = ask(registry, "POST", "/v2/other/blobs/uploads/")
    assert (response.status, code(response)) == (404, "NAME_UNKNOWN")
    assert ask(registry, "POST", "/v2/app/blobs/uploads/").status == 202
    assert push_manifest(registry, IMAGE, name="team/other").status == 404


def test_ecr_starts_an_upload_for_a_mount(serve):
    registry = serve(profiles.ecr())
    mount = f"/v2/other/blobs/uploads/?mount={LAYER.digest}&from=app"
    assert ask(registry, "POST", mount).status == 202


@pytest.mark.parametrize("profile", [profiles.ecr(), profiles.without_digests()])
def test_manifests_without_digests(serve, profile):
    registry = serve(profile)
    for method in ("GET", "HEAD"):
        response = ask(registry, method, "/v2/app/manifests/1")
        assert (response.status, response.getheader("Docker-Content-Digest")) == (200, None)
    assert push_manifest(registry, IMAGE).getheader("Docker-Content-Digest") == IMAGE.digest


def test_quay_needs_the_source_of_a_mount(serve):
    registry = serve(profiles.quay())
    mount = f"/v2/other/blobs/uploads/?mount={LAYER.digest}"
    assert ask(registry, "POST", mount).status == 400
    assert ask(registry, "POST", f"{mount}&from=app").status == 201


def test_quay_keeps_blobs(serve):
    registry = serve(profiles.quay())
    response = ask(registry, "DELETE", f"/v2/app/blobs/{LAYER.digest}")
    assert (response.status, code(response)) == (405, "UNSUPPORTED")
    assert ask(registry, "DELETE", f"/v2/app/manifests/{IMAGE.digest}").status == 202
    response = ask(registry, "POST", "/v2/app/blobs/uploads/")
    assert ask(registry, "DELETE", response.getheader("Location")).status == 204


def test_distribution_starts_an_upload_for_a_post_with_a_digest(serve):
    registry = serve(profiles.distribution_2())
    body = b"a blob"
    digest = build_image(layers=[body]).layers[0].digest
    path = f"/v2/app/blobs/uploads/?digest={digest}"
    assert ask(registry, "POST", path, body).status == 202
    assert ask(registry, "HEAD", f"/v2/app/blobs/{digest}").status == 404


def test_distribution_needs_the_source_of_a_mount(serve):
    registry = serve(profiles.distribution_2())
    mount = f"/v2/other/blobs/uploads/?mount={LAYER.digest}"
    assert ask(registry, "POST", mount).status == 202
    assert ask(registry, "POST", f"{mount}&from=app").status == 201


def test_a_profile_keeps_its_state_in_each_registry(serve):
    profile = profiles.docker_hub(pulls=1)
    for _ in range(2):
        assert ask(serve(profile), "GET", "/v2/app/manifests/1").status == 200


def test_faults_are_added_to_a_profile(serve):
    registry = serve(profiles.ghcr())
    with registry.faults.fail("GET", "manifests", status=503):
        assert ask(registry, "GET", "/v2/app/manifests/1").status == 503
    registry.faults.clear()
    assert ask(registry, "GET", "/v2/app/manifests/1").status == 200
    assert ask(registry, "DELETE", "/v2/app/manifests/1").status == 405
