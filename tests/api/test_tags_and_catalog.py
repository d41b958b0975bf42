"""Lists: of tags (end-8) and of repositories."""

from __future__ import annotations

import pytest
import pytest_twisted

from tests.api.setups import SITES
from tests.support.manifests import digest_of, image
from twisted_registry.api.context import APISettings

TAGS = ["0", "A", "Z", "_", "a", "a-b", "a.b", "a0", "aa", "b", "latest", "v1", "v1.0", "v10"]
NAMES = ["a", "a-b", "a.b", "a/b", "a/b/c", "a0", "a_b", "b/c", "z"]


async def tagged(api, tags=TAGS, name="r"):
    await api.push_blob(b"{}", name)
    query = "&".join(f"tag={tag}" for tag in tags)
    response = await api.push_manifest(image(), f"{digest_of(image())}?{query}", name)
    assert response.status == 201


async def follow(api, path, key):
    """Return all items of a paged list, and the sizes of its pages."""
    found, sizes = [], []
    url = f"/v2/{path}"
    while url is not None:
        response = await api.request_target("GET", url)
        assert response.status == 200
        assert response.get("Content-Type") == "application/json"
        page = response.json()[key]
        found += page
        sizes.append(len(page))
        link = response.get("Link")
        assert link is None or link.endswith('>; rel="next"')
        url = None if link is None else link[1:].partition(">")[0]
    return found, sizes


@pytest_twisted.ensureDeferred
async def test_tags_are_listed_in_order(api):
    await tagged(api)
    response = await api("GET", "r/tags/list")
    assert response.status == 200
    assert response.get("Content-Type") == "application/json"
    assert response.get("Link") is None
    assert response.json() == {"name": "r", "tags": TAGS}
    head = await api("HEAD", "r/tags/list")
    assert (head.status, head.get("Content-Type")) == (200, "application/json")
    assert (await api("GET", "r/tags/list?last=aa")).json()["tags"] == TAGS[9:]


@pytest_twisted.ensureDeferred
async def test_tags_of_an_unknown_repository_are_404(api):
    for method in ("GET", "HEAD"):
        response = await api(method, "nobody/tags/list")
        assert response.status == 404
        assert method == "HEAD" or response.code == "NAME_UNKNOWN"
    await api.push_blob(b"{}", "blobs/only")
    response = await api("GET", "blobs/only/tags/list")
    assert response.json() == {"name": "blobs/only", "tags": []}
    assert (await api("GET", "blobs/tags/list")).status == 404


@pytest.mark.parametrize("number", [1, 2, 5, 13, 14, 15, 1000])
@pytest_twisted.ensureDeferred
async def test_pages_have_every_tag_once(api, number):
    await tagged(api)
    found, sizes = await follow(api, f"r/tags/list?n={number}", "tags")
    assert found == TAGS
    assert all(size == number for size in sizes[:-1])
    assert sizes[-1] > 0


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("n=0", []),
        ("n=0&last=a", []),
        ("n=2&last=a", ["a-b", "a.b"]),
        ("n=2&last=a-", ["a-b", "a.b"]),
        ("n=2&last=unknown", ["v1", "v1.0"]),
        ("n=2&last=zzz", []),
        ("last=v10", []),
        ("last=", TAGS),
        ("n=2&last=", TAGS[:2]),
        ("last=..%2F..", TAGS),
        ("last=%00", TAGS),
        ("last=%C3%A4", []),
        ("n=3&n=1", TAGS[:3]),
    ],
)
@pytest_twisted.ensureDeferred
async def test_tags_by_n_and_last(api, query, expected):
    await tagged(api)
    response = await api("GET", f"r/tags/list?{query}")
    assert response.json()["tags"] == expected
    if "n=0" in query or expected in ([], TAGS):
        assert response.get("Link") is None


@pytest.mark.setups(*SITES)
@pytest.mark.parametrize("path", ["r/tags/list", "_catalog"])
@pytest_twisted.ensureDeferred
async def test_an_invalid_n_is_refused(api, path):
    await tagged(api)
    for number in ("-1", "x", "", "1.5", "0x1", "+1", "%C2%B2", "1e3", "9" * 30, "%201"):
        response = await api("GET", f"{path}?n={number}")
        assert (response.status, response.code) == (400, "PAGINATION_NUMBER_INVALID"), number


@pytest.mark.setups(*SITES)
@pytest_twisted.ensureDeferred
async def test_n_is_reduced_to_the_limit_of_tags(start):
    async with start(settings=APISettings(tags_limit=3)) as api:
        await tagged(api)
        found, sizes = await follow(api, "r/tags/list?n=1000", "tags")
        assert found == TAGS
        assert set(sizes[:-1]) == {3}
        assert (await api("GET", "r/tags/list")).json()["tags"] == TAGS


@pytest.mark.setups(*SITES)
@pytest_twisted.ensureDeferred
async def test_a_long_list_of_tags_is_streamed(api):
    """A whole list that is longer than one page of the store."""
    await tagged(api)
    tags = api.served.registry.repository("r").tags
    digest = await tags.resolve("a")
    names = [f"t{number:05}" for number in range(5100)]
    for name in names:
        await tags.set(name, digest)
    response = await api("GET", "r/tags/list")
    assert response.is_complete
    assert response.json()["tags"] == sorted([*TAGS, *names])
    response = await api("HEAD", "r/tags/list")
    assert (response.status, response.body) == (200, b"")


@pytest_twisted.ensureDeferred
async def test_the_catalog_lists_repositories_in_order(api):
    assert (await api("GET", "_catalog")).json() == {"repositories": []}
    for name in reversed(NAMES):
        await api.push_blob(b"x", name)
    for path in ("_catalog", "_catalog/"):
        response = await api("GET", path)
        assert response.status == 200
        assert response.get("Content-Type") == "application/json"
        assert response.get("Link") is None
        assert response.json() == {"repositories": NAMES}
    head = await api("HEAD", "_catalog")
    assert (head.status, head.get("Content-Length")) == (200, response.get("Content-Length"))


@pytest.mark.parametrize("number", [1, 2, 3, 8, 9, 10])
@pytest_twisted.ensureDeferred
async def test_pages_have_every_repository_once(api, number):
    for name in NAMES:
        await api.push_blob(b"x", name)
    found, sizes = await follow(api, f"_catalog?n={number}", "repositories")
    assert found == NAMES
    assert all(size == number for size in sizes[:-1])


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("n=0", []),
        ("n=2&last=a", NAMES[1:3]),
        ("n=2&last=a.", NAMES[2:4]),
        ("n=2&last=a/", NAMES[3:5]),
        ("n=2&last=a%2Fb", NAMES[4:6]),
        ("n=9&last=zz", []),
        ("last=b", NAMES[7:]),
        ("last=..", NAMES),
        ("last=%00..%2F", NAMES),
        ("last=%F0%9F%90%B3", []),
    ],
)
@pytest_twisted.ensureDeferred
async def test_repositories_by_n_and_last(api, query, expected):
    for name in NAMES:
        await api.push_blob(b"x", name)
    response = await api("GET", f"_catalog?{query}")
    assert response.json()["repositories"] == expected


@pytest.mark.setups(*SITES)
@pytest_twisted.ensureDeferred
async def test_n_above_the_catalog_limit_is_refused(start):
    async with start(settings=APISettings(catalog_limit=4)) as api:
        for name in NAMES:
            await api.push_blob(b"x", name)
        response = await api("GET", "_catalog?n=5")
        assert (response.status, response.code) == (400, "PAGINATION_NUMBER_INVALID")
        found, sizes = await follow(api, "_catalog", "repositories")
        assert (found, sizes) == (NAMES, [4, 4, 1])


@pytest.mark.setups(*SITES)
@pytest_twisted.ensureDeferred
async def test_the_catalog_has_100_names_by_default(api):
    names = [f"n{number:03}" for number in range(130)]
    for name in names:
        await api.push_blob(b"x", name)
    found, sizes = await follow(api, "_catalog", "repositories")
    assert (found, sizes) == (names, [100, 30])
