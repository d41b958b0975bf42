"""The rules of the operator for manifests."""

from __future__ import annotations

import pytest

from tests.repository.manifest_kit import refusal, world_with
from tests.repository.worlds import CONFIG, World, descriptor, image, index
from twisted_registry.oci.errors import ErrorCode
from twisted_registry.oci.linear_regex import LinearRegex
from twisted_registry.oci.manifest import DOCKER_IMAGE, DOCKER_PLUGIN_CONFIG, OCI_IMAGE, OCI_INDEX
from twisted_registry.repository.policy import Policy


def with_url(url):
    return image(layers=[descriptor(b"elsewhere", urls=[url])])


@pytest.mark.parametrize(
    ("allow", "deny", "url", "fine"),
    [
        ((), (), "https://example.org/x", True),
        ((), (), "HTTP://example.org/x", True),
        ((), (), "ftp://example.org/x", False),
        ((), (), "https://example.org/x#part", False),
        ((), (), "https://example.org/x y", False),
        ((), (), "https://", False),
        ((), (), "", False),
        ((), (), "//example.org", False),
        (("^https://good",), (), "https://good/x", True),
        (("^https://good", "other"), (), "http://other/x", True),
        (("^https://good",), (), "https://bad/good", False),
        ((), ("bad",), "https://example.org/x", True),
        ((), ("bad",), "https://bad/x", False),
        (("https://",), ("bad",), "https://x/bad", False),
    ],
)
def test_urls_must_be_allowed_and_not_denied(allow, deny, url, fine):
    patterns = {
        "url_allow": tuple(map(LinearRegex, allow)),
        "url_deny": tuple(map(LinearRegex, deny)),
    }
    world = world_with(**patterns)
    if fine:
        world.put(with_url(url), OCI_IMAGE)
    else:
        error = refusal(world.put, with_url(url), OCI_IMAGE)
        assert (error.code, error.detail) == (ErrorCode.MANIFEST_INVALID, {"url": url})
    world_with(check_references=False, **patterns).put(with_url(url), OCI_IMAGE)


def test_a_url_of_lone_surrogates_is_compared():
    content = with_url("https://example.org/?").replace(b"?", b"\\ud800")
    error = refusal(world_with(url_allow=(LinearRegex("^http:"),)).put, content, OCI_IMAGE)
    assert error.code is ErrorCode.MANIFEST_INVALID


def test_a_long_url_is_not_repeated_in_full():
    error = refusal(world_with().put, with_url("ftp://" + "x" * 100_000), OCI_IMAGE)
    assert len(error.detail["url"]) == 2000


def test_url_of_a_config_is_checked():
    world = world_with(url_deny=(LinearRegex("bad"),))
    content = image(config=descriptor(b"{}", CONFIG, urls=["https://bad/x"]))
    assert refusal(world.put, content, OCI_IMAGE).code is ErrorCode.MANIFEST_INVALID


def children():
    platforms = [
        {"architecture": "amd64", "os": "linux"},
        {"architecture": "arm64", "os": "linux"},
        None,
        {},
        {"os": "linux"},
        {"architecture": None, "os": None},
    ]
    return [
        descriptor(bytes([number]), OCI_IMAGE, platform=platform)
        for number, platform in enumerate(platforms)
    ]


@pytest.mark.parametrize(
    ("platforms", "listed", "missing"),
    [
        ("all", (), [0, 1, 2, 3, 4, 5]),
        ("none", (), []),
        ("list", (), []),
        ("list", [("arm64", "linux")], [1]),
        ("list", [("linux", "amd64")], []),
        ("list", [("amd64", "linux"), ("arm64", "linux"), ("riscv", "linux")], [0, 1]),
    ],
)
def test_platforms_decide_which_children_must_exist(platforms, listed, missing):
    world = world_with(platforms=platforms, platform_list=frozenset(listed))
    content = index(*children())
    if missing:
        error = refusal(world.put, content, OCI_INDEX)
        assert error.code is ErrorCode.MANIFEST_BLOB_UNKNOWN
        assert error.detail == {"digests": [children()[number]["digest"] for number in missing]}
    else:
        world.put(content, OCI_INDEX)


@pytest.mark.parametrize("platform", [{"os": []}, {"architecture": {}}, {"os": {"a": 1}}])
def test_invalid_platform_is_refused(platform):
    world = world_with(platforms="list", platform_list=frozenset([("amd64", "linux")]))
    content = index(descriptor(b"x", OCI_IMAGE, platform=platform))
    assert refusal(world.put, content, OCI_INDEX).code is ErrorCode.MANIFEST_INVALID


@pytest.mark.parametrize("classes", [set(), {"image"}, {"plugin"}, {"image", "plugin"}])
@pytest.mark.parametrize("found", ["image", "plugin"])
def test_only_configured_classes_are_accepted(classes, found):
    world = world_with(classes=frozenset(classes))
    media_type = DOCKER_PLUGIN_CONFIG if found == "plugin" else CONFIG
    content = image(mediaType=DOCKER_IMAGE, config=descriptor(b"{}", media_type))
    if classes and found not in classes:
        error = refusal(world.put, content, DOCKER_IMAGE, "v1")
        assert (error.code, error.http_status) == (ErrorCode.DENIED, 403)
        assert world.tags() == []
    else:
        world.put(content, DOCKER_IMAGE, "v1")
    world.put(index(), OCI_INDEX)


def test_without_validation_references_may_be_missing():
    world = World(policy=Policy(check_references=False))
    world.put(image(), OCI_IMAGE, "v1")
    assert refusal(world.put, b"{}", OCI_IMAGE).code is ErrorCode.MANIFEST_INVALID
