"""Tags of a manifest PUT: several tags, and preconditions (end-7)."""

from __future__ import annotations

import pytest
import pytest_twisted

from tests.api.manifest_checks import check_created, check_served
from tests.api.setups import SITES
from tests.support.manifests import OCI_IMAGE, digest_of, image
from twisted_registry.api.context import APISettings


@pytest_twisted.ensureDeferred
async def test_tag_parameters_set_further_tags(api):
    await api.push_blob(b"{}")
    content = image()
    tags = [f"t{number}" for number in range(12)]
    query = "&".join(f"tag={tag}" for tag in (*tags, "t0"))
    response = await api.push_manifest(content, f"{digest_of(content)}?{query}")
    check_created(response, api, digest_of(content))
    assert response.headers.getRawHeaders("OCI-Tag") == tags
    response = await api.push_manifest(content, "latest?tag=also&tag=latest")
    check_created(response, api, digest_of(content))
    assert response.headers.getRawHeaders("OCI-Tag") == ["also", "latest"]
    for tag in (*tags, "latest", "also"):
        await check_served(api, content, tag, OCI_IMAGE)
    response = await api("GET", "a/tags/list")
    assert response.json()["tags"] == sorted([*tags, "latest", "also"])


@pytest.mark.setups(*SITES)
@pytest_twisted.ensureDeferred
async def test_too_many_tag_parameters_are_refused(start):
    async with start(settings=APISettings(tags_per_push=10)) as api:
        await api.push_blob(b"{}")
        digest = digest_of(image())
        for number, status in ((10, 201), (11, 414)):
            query = "&".join(f"tag=n{number}-{tag}" for tag in range(number))
            assert (await api.push_manifest(image(), f"{digest}?{query}")).status == status
        assert len((await api("GET", "a/tags/list")).json()["tags"]) == 10
        response = await api.push_manifest(image(), f"{digest}?tag=good&tag=-bad")
        assert (response.status, response.code) == (400, "TAG_INVALID")
        assert (await api("GET", "a/manifests/good")).status == 404


@pytest_twisted.ensureDeferred
async def test_a_push_moves_a_tag(api):
    await api.push_blob(b"{}")
    one, two = image(annotations={"n": "1"}), image(annotations={"n": "2"})
    for content in (one, two, one):
        check_created(await api.push_manifest(content), api, digest_of(content))
        await check_served(api, content, "latest", OCI_IMAGE)
    await check_served(api, two, digest_of(two), OCI_IMAGE)


@pytest_twisted.ensureDeferred
async def test_if_match_and_if_none_match_of_a_push(api):
    await api.push_blob(b"{}")
    one, two = image(annotations={"n": "1"}), image(annotations={"n": "2"})
    tag = f'"{digest_of(one)}"'
    for headers, content, status in (
        ({"If-Match": "*"}, one, 412),
        ({"If-Match": tag}, one, 412),
        ({"If-None-Match": "*"}, one, 201),
        ({"If-None-Match": "*"}, two, 412),
        ({"If-None-Match": tag}, two, 412),
        ({"If-Match": '"sha256:x"'}, two, 412),
        ({"If-Match": tag}, two, 201),
        ({"If-Match": tag}, one, 412),
        ({"If-Match": f'"x", W/"{digest_of(two)}"'}, one, 201),
        ({"If-Match": "*", "If-None-Match": f'"{digest_of(two)}"'}, two, 201),
    ):
        before = (await api("GET", "a/manifests/latest")).body
        response = await api.push_manifest(content, **headers)
        assert response.status == status, headers
        if status == 412:
            assert response.code == "PRECONDITION_FAILED"
            assert (await api("GET", "a/manifests/latest")).body == before
        else:
            await check_served(api, content, "latest", OCI_IMAGE)
