"""The table of endpoints, and the search for the endpoint of a path."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_registry.api import routes
from twisted_registry.api.resource import HANDLERS
from twisted_registry.auth.interfaces import CATALOG, Access


def find(path):
    return routes.match_path(tuple(path.split("/")))


@pytest.mark.parametrize(
    ("path", "handler", "name", "variable"),
    [
        ("", "base", "", ""),
        ("_catalog", "catalog", "", ""),
        ("_catalog/", "catalog", "", ""),
        ("_oci/ext/discover", "extensions", "", ""),
        ("a/_oci/ext/discover", "extensions", "a", ""),
        ("a/tags/list", "tags", "a", ""),
        ("a/tags/list/", "tags", "a", ""),
        ("a/b/c/tags/list", "tags", "a/b/c", ""),
        ("a/manifests/latest", "manifest", "a", "latest"),
        ("a/manifests/sha256:ab", "manifest", "a", "sha256:ab"),
        ("a/manifests/manifests/x", "manifest", "a/manifests", "x"),
        ("a/blobs/uploads", "blob_upload", "a", ""),
        ("a/blobs/uploads/", "blob_upload", "a", ""),
        ("a/blobs/uploads/id", "blob_upload_chunk", "a", "id"),
        ("a/blobs/uploads/uploads", "blob_upload_chunk", "a", "uploads"),
        ("a/blobs/x", "blob", "a", "x"),
        ("a/blobs/blobs/x", "blob", "a/blobs", "x"),
        ("a/referrers/x", "referrers", "a", "x"),
        ("tags/list/tags/list", "tags", "tags/list", ""),
        ("_repository/a", "repository", "a", ""),
        ("_repository/a/manifests/x/", "repository", "a/manifests/x", ""),
        ("_repository/_catalog", "repository", "_catalog", ""),
        ("../tags/list", "tags", "..", ""),
        ("a//tags/list", "tags", "a/", ""),
    ],
)
def test_a_path_has_endpoint_name_and_variable(path, handler, name, variable):
    found = find(path)
    assert (found.endpoint.handler, found.name, found.variable) == (handler, name, variable)


@pytest.mark.parametrize(
    "path",
    [
        "a",
        "tags/list",
        "manifests/x",
        "blobs/uploads",
        "a/tags",
        "a/tags/list/x",
        "a/manifests",
        "a/manifests/",
        "a/blobs/",
        "a/b/c",
        "_catalog/x",
        "a/_catalog",
        "_oci",
        "_repository",
        "_repository/",
        "a/_repository/b",
    ],
)
def test_a_path_without_endpoint_has_no_route(path):
    assert find(path) is None


def test_an_empty_path_is_the_base_endpoint():
    assert routes.match_path(()).endpoint is routes.BASE


def test_every_method_of_every_endpoint_has_a_handler():
    endpoints = routes.ALL_ENDPOINTS
    wanted = {
        (endpoint.handler, "GET" if method == "HEAD" else method)
        for endpoint in endpoints
        for method in endpoint.methods
    }
    assert wanted == set(HANDLERS)


def test_every_endpoint_with_get_has_head():
    for endpoint in routes.ENDPOINTS:
        assert ("GET" in endpoint.methods) == ("HEAD" in endpoint.methods)


def required_access(path, method, source=None):
    return find(path).required_access(method, source)


def repository(name, *actions):
    return tuple(Access("repository", name, action) for action in actions)


def test_required_access_by_endpoint_and_method():
    assert required_access("", "GET") == ()
    assert required_access("_oci/ext/discover", "GET") == ()
    assert required_access("_catalog", "GET") == (CATALOG,)
    assert required_access("a/tags/list", "HEAD") == repository("a", "pull")
    assert required_access("a/manifests/x", "PUT") == repository("a", "pull", "push")
    assert required_access("a/manifests/x", "DELETE") == repository("a", "delete")
    assert required_access("_repository/a/b", "DELETE") == repository("a/b", "delete")
    assert required_access("a/blobs/uploads/", "POST", "b") == (
        *repository("a", "pull", "push"),
        *repository("b", "pull"),
    )


def test_every_endpoint_with_a_name_requires_access():
    for endpoint in routes.ENDPOINTS:
        for method in endpoint.methods:
            assert routes.RouteMatch(endpoint, "a").required_access(method)


@given(st.lists(st.text(alphabet="a/._-:%\0 ", max_size=5), max_size=6))
def test_any_segments_are_matched_or_rejected(segments):
    found = routes.match_path(tuple(segments))
    if found is not None and found.endpoint.has_name:
        assert found.name or segments[0] == ""


@pytest.mark.parametrize(
    ("name", "is_cached"),
    [([b"a"], True), ([b"a" * 300], False), ([b"a"] * 20, False)],
    ids=["usual", "long segment", "many segments"],
)
def test_only_paths_of_usual_length_are_cached(name, is_cached):
    path = (*name, b"tags", b"list")
    found = routes.find_route(path)
    assert found.endpoint.handler == "tags"
    assert (routes.find_route(path) is found) is is_cached


@pytest.mark.parametrize("segment", [b"a/b", b"\xff"])
def test_a_segment_with_a_slash_or_of_invalid_utf_8_has_no_route(segment):
    assert routes.find_route((segment, b"tags", b"list")) is None
