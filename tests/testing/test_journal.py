"""The journal of requests."""

from __future__ import annotations

import urllib.request
from urllib.error import HTTPError

import pytest

from twisted_registry.testing import Registry, build_image
from twisted_registry.testing.matching import RequestPattern

IMAGE = build_image(files={"a": "1"})


@pytest.fixture
def registry():
    with Registry() as registry:
        yield registry


def ask(registry, method="GET", path="/v2/", body=None, headers=()):
    request = urllib.request.Request(registry.url + path, body, dict(headers), method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.read()
    except HTTPError as error:
        error.close()
        return error.code


def push(registry, path):
    for blob in IMAGE.blobs:
        ask(registry, "POST", f"/v2/app/blobs/uploads/?digest={blob.digest}", blob.read())
    media_type = {"Content-Type": IMAGE.media_type}
    ask(registry, "PUT", f"/v2/app/manifests/{path}", IMAGE.manifest.read(), media_type)


def test_requests_are_counted(registry):
    push(registry, "1")
    ask(registry, "GET", "/v2/app/manifests/1")
    ask(registry, "GET", "/v2/app/manifests/2")
    journal = registry.journal
    assert journal.count() == len(journal) == 5
    assert journal.count("PUT", "manifests") == 1
    assert journal.count("POST", "blobs/uploads") == 2
    assert journal.count("*", "manifests") == 3
    assert journal.count("GET", "manifests", status=200) == 1
    assert journal.count("GET", "app/manifests/2", status=404) == 1
    journal.clear()
    assert journal.count() == 0


def test_what_was_pushed_and_pulled(registry):
    assert not registry.pushed("app:1")
    push(registry, "1")
    assert registry.pushed("app:1")
    assert not registry.pushed("app:2")
    assert not registry.pushed("other:1")
    assert not registry.pulled("app:1")
    ask(registry, "GET", "/v2/app/manifests/2")
    ask(registry, "HEAD", "/v2/app/manifests/1")
    assert not registry.pulled("app:1")
    assert not registry.pulled("app:2")
    ask(registry, "GET", "/v2/app/manifests/1")
    assert registry.pulled("app:1")


def test_a_pull_as_docker_does_it(registry):
    push(registry, "1")
    ask(registry, "HEAD", "/v2/app/manifests/1")
    assert not registry.pulled("app:1")
    ask(registry, "GET", f"/v2/app/manifests/{IMAGE.digest}")
    assert registry.pulled("app:1")
    assert registry.pulled(f"app@{IMAGE.digest}")
    assert not registry.pulled("app:2")


def test_a_push_by_digest_with_tags(registry):
    push(registry, f"{IMAGE.digest}?tag=1&tag=2")
    assert registry.pushed("app:2")
    assert registry.pushed(f"app@{IMAGE.digest}")
    assert not registry.pushed("app")


def test_a_refused_push_is_none(registry):
    registry.faults.fail("PUT", "manifests", status=500)
    push(registry, "1")
    assert not registry.pushed("app:1")


def test_a_push_without_http_is_not_in_the_journal(registry):
    registry.push_image("app:1", IMAGE)
    assert not registry.pushed("app:1")
    assert len(registry.journal) == 0


def test_what_a_request_tells(registry):
    ask(registry, "GET", "/v2/_catalog?n=1&last=%C3%A4", headers={"X-Test": "yes"})
    (request,) = registry.journal
    assert (request.method, request.path, request.query) == (
        "GET",
        "/v2/_catalog",
        "n=1&last=%C3%A4",
    )
    assert request.headers["x-test"] == "yes"
    assert request.status == 200
    assert request.sent_bytes == len(b'{"repositories":[]}')
    assert repr(request) == "GET /v2/_catalog?n=1&last=%C3%A4 200"


def test_a_failed_assertion_lists_the_requests(registry):
    ask(registry, "GET", "/v2/a/manifests/1")
    registry.journal.assert_count(1, "GET", "manifests", status=404)
    with pytest.raises(AssertionError, match="1 instead of 2 requests GET manifests") as failed:
        registry.journal.assert_count(2, "GET", "manifests")
    assert "GET /v2/a/manifests/1 404" in str(failed.value)
    assert "GET /v2/a/manifests/1 404" in repr(registry.journal)


def test_the_journal_stays_when_the_registry_has_stopped():
    with Registry() as registry:
        ask(registry)
    assert [each.status for each in registry.journal.find("GET", "/v2/")] == [200]


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("", "/v2/"),
        ("manifests", "/v2/app/manifests/1"),
        ("manifests/1", "/v2/app/manifests/1"),
        ("app/manifests", "/v2/team/app/manifests/1"),
        ("manifests/v*", "/v2/app/manifests/v1"),
        ("*/manifests", "/v2/app/manifests/1"),
        ("blobs/uploads", "/v2/app/blobs/uploads/"),
        ("/v2/", "/v2/"),
        ("/v2", "/v2/"),
        ("/v2/*/manifests/1", "/v2/app/manifests/1"),
    ],
)
def test_paths_that_match(pattern, path):
    assert RequestPattern.make("*", pattern).matches("GET", path)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("manifest", "/v2/app/manifests/1"),
        ("manifests/1", "/v2/app/manifests/10"),
        ("app", "/v2/myapp/tags/list"),
        ("manifests/v*", "/v2/app/manifests/1"),
        ("/v2/", "/v2/app/manifests/1"),
        ("/v2/*/manifests/1", "/v2/team/app/manifests/1"),
        ("manifests.1", "/v2/app/manifestsx1"),
    ],
)
def test_paths_that_do_not_match(pattern, path):
    assert not RequestPattern.make("*", pattern).matches("GET", path)
