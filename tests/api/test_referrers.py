"""Referrers: end-12."""

from __future__ import annotations

import json

import pytest
import pytest_twisted
from twisted.internet.defer import fail

from tests.api.setups import SITES
from tests.api.watched_driver import Watched
from tests.support.manifests import (
    CONFIG,
    OCI_IMAGE,
    OCI_INDEX,
    descriptor,
    digest_of,
    image,
    index,
)
from twisted_registry.storage.interfaces import StorageError
from twisted_registry.storage.memory import MemoryDriver

PAGE = 4 * 1024 * 1024
WRITES = {"put", "create", "copy", "move", "delete", "delete_many", "prune", "writer"}
SUBJECT = image(b"{}", annotations={"is": "the subject"})
DIGEST = digest_of(SUBJECT)


def of(number, **more):
    return image(
        b"{}", subject=descriptor(SUBJECT, OCI_IMAGE), annotations={"n": str(number)}, **more
    )


async def listed(api, query="", subject=DIGEST, name="a"):
    """Return all referrers, and the number of pages."""
    found, pages = [], 0
    url = f"/v2/{name}/referrers/{subject}{query}"
    while url is not None:
        response = await api.request_target("GET", url)
        assert response.status == 200
        assert response.get("Content-Type") == OCI_INDEX
        assert len(response.body) <= PAGE
        document = response.json()
        assert (document["schemaVersion"], document["mediaType"]) == (2, OCI_INDEX)
        assert ("artifactType" in url) == (response.get("OCI-Filters-Applied") == "artifactType")
        found += document["manifests"]
        pages += 1
        link = response.get("Link")
        url = None
        if link is not None:
            assert link.endswith('>; rel="next"')
            url = link[1:].partition(">")[0]
    return found, pages


@pytest_twisted.ensureDeferred
async def test_a_subject_without_referrers_has_an_empty_list(api):
    assert await listed(api) == ([], 1)
    await api.push_image()
    assert await listed(api) == ([], 1)
    response = await api("HEAD", f"a/referrers/{DIGEST}")
    assert (response.status, response.get("Content-Type")) == (200, OCI_INDEX)


@pytest_twisted.ensureDeferred
async def test_a_malformed_digest_is_refused(api):
    for text in ("x", "latest", "sha256:ab", f"md5:{'0' * 32}", f"sha256:{'G' * 64}"):
        response = await api("GET", f"a/referrers/{text}")
        assert (response.status, response.code) == (400, "DIGEST_INVALID")


@pytest_twisted.ensureDeferred
async def test_descriptors_of_every_kind_of_manifest(api):
    await api.push_blob(b"{}")
    plain, typed = of(1), of(2, artifactType="application/vnd.example.sbom")
    as_index = index(subject=descriptor(SUBJECT, OCI_IMAGE))
    as_typed = index(
        subject=descriptor(SUBJECT, OCI_IMAGE), artifactType="x/y", annotations={"a": "b"}
    )
    for content in (plain, typed):
        assert (await api.push_manifest(content, digest_of(content))).status == 201
    for content in (as_index, as_typed):
        await api.push_manifest(content, digest_of(content), media_type=OCI_INDEX)
    expected = [
        descriptor(plain, OCI_IMAGE, artifactType=CONFIG, annotations={"n": "1"}),
        descriptor(
            typed,
            OCI_IMAGE,
            artifactType="application/vnd.example.sbom",
            annotations={"n": "2"},
        ),
        descriptor(as_index, OCI_INDEX),
        descriptor(as_typed, OCI_INDEX, artifactType="x/y", annotations={"a": "b"}),
    ]
    expected.sort(key=lambda item: item["digest"])
    assert await listed(api) == (expected, 1)
    # A push of the subject itself changes nothing.
    await api.push_manifest(SUBJECT, "subject")
    assert await listed(api) == (expected, 1)
    assert await listed(api, name="b") == ([], 1)
    for wanted in (CONFIG, "application/vnd.example.sbom", "x/y", "none/such"):
        found, _ = await listed(api, f"?artifactType={wanted.replace('+', '%2B')}")
        assert found == [item for item in expected if item.get("artifactType") == wanted]
    response = await api("GET", f"a/referrers/{DIGEST}?artifactType=")
    assert response.get("OCI-Filters-Applied") is None
    assert response.json()["manifests"] == expected


@pytest_twisted.ensureDeferred
async def test_a_deleted_referrer_is_not_listed(api):
    await api.push_blob(b"{}")
    for number in (1, 2):
        await api.push_manifest(of(number), f"t{number}")
    assert len((await listed(api))[0]) == 2
    assert (await api("DELETE", f"a/manifests/{digest_of(of(1))}")).status == 202
    assert [item["digest"] for item in (await listed(api))[0]] == [digest_of(of(2))]
    # Referrers remain when their subject is deleted.
    await api.push_manifest(SUBJECT, "subject")
    assert (await api("DELETE", f"a/manifests/{DIGEST}")).status == 202
    assert [item["digest"] for item in (await listed(api))[0]] == [digest_of(of(2))]
    await api.push_manifest(of(1), "again")
    assert len((await listed(api))[0]) == 2


@pytest_twisted.ensureDeferred
async def test_referrers_of_a_subject_of_another_algorithm(api):
    await api.push_blob(b"{}")
    subject = descriptor(SUBJECT, OCI_IMAGE, "sha512")
    content = image(b"{}", subject=subject)
    response = await api.push_manifest(content, digest_of(content, "sha512"))
    assert response.get("OCI-Subject") == subject["digest"]
    found, _ = await listed(api, subject=subject["digest"])
    assert [item["digest"] for item in found] == [digest_of(content, "sha512")]
    assert await listed(api) == ([], 1)


@pytest.mark.setups(*SITES)
@pytest_twisted.ensureDeferred
async def test_pages_have_every_referrer_once(api):
    """No page is larger than 4 MiB, and the pages have every referrer."""
    await api.push_blob(b"{}")
    expected = []
    for number in range(7):
        content = image(
            b"{}",
            subject=descriptor(SUBJECT, OCI_IMAGE),
            annotations={"n": str(number), "pad": "x" * 1_800_000},
            artifactType="even/type" if number % 2 == 0 else "odd+type/x",
        )
        assert (await api.push_manifest(content, digest_of(content))).status == 201
        expected.append((digest_of(content), number))
    expected.sort()
    found, pages = await listed(api)
    assert [item["digest"] for item in found] == [digest for digest, _ in expected]
    assert pages > 2
    found, pages = await listed(api, "?artifactType=odd%2Btype/x")
    assert [item["digest"] for item in found] == [
        digest for digest, number in expected if number % 2
    ]
    assert pages > 1


@pytest.mark.setups(*SITES)
@pytest_twisted.ensureDeferred
async def test_a_referrer_of_maximum_size_fits_a_page(api):
    """Annotations whose escaped form would exceed the limit of a manifest."""
    await api.push_blob(b"{}")
    document = json.loads(of(1))
    document["annotations"]["pad"] = "ä" * (PAGE // 4)
    content = json.dumps(document, ensure_ascii=False).encode()
    assert (await api.push_manifest(content, "wide")).status == 201
    await api.push_manifest(of(2, artifactType="\ud800"), "small")
    found, _ = await listed(api)
    assert {item["digest"] for item in found} == {
        digest_of(content),
        digest_of(of(2, artifactType="\ud800")),
    }


@pytest_twisted.ensureDeferred
async def test_last_is_any_text(api):
    await api.push_blob(b"{}")
    digests = sorted(digest_of(of(number)) for number in range(3))
    for number in range(3):
        await api.push_manifest(of(number), f"t{number}")
    for last, expected in (
        (digests[0], digests[1:]),
        (digests[2], []),
        ("sha256:", digests),
        ("", digests),
        ("..%2F", digests),
        ("zzz", []),
        ("sha256:%00", digests),
        ("sha256:%C2%80", []),
        ("sha256:0%20", [one for one in digests if one > "sha256:0 "]),
        (f"{digests[0]}x", digests[1:]),
        ("sha256:" + "0" * 4000, digests),
    ):
        found, _ = await listed(api, f"?last={last}")
        assert [item["digest"] for item in found] == expected


@pytest.mark.setups(*SITES)
@pytest.mark.parametrize("full", [False, True], ids=["read-only", "full"])
@pytest_twisted.ensureDeferred
async def test_list_of_a_store_that_cannot_be_written_is_complete(start, clock, full):
    """Nothing is stored that a list needs, as by another registry."""
    driver = Watched(MemoryDriver(clock), lambda *_: None)
    async with start(driver=driver) as api:
        await api.push_blob(b"{}")
        for number in range(2):
            assert (await api.push_manifest(of(number), f"t{number}")).status == 201
    root = "docker/registry/v2/repositories/a"
    await driver.driver.delete(f"{root}/_referrers")
    for number in range(2):
        hexadecimal = digest_of(of(number)).partition(":")[2]
        await driver.driver.delete(f"{root}/_manifests/revisions/sha256/{hexadecimal}/subject")
    refused = []

    def refuse(_number, name):
        if name in WRITES:
            refused.append(name)
            return fail(StorageError("x", "cannot be written", full=full))
        return None

    driver.before = refuse
    async with start(driver=driver) as api:
        for _ in range(2):
            found, _ = await listed(api)
            assert [item["digest"] for item in found] == sorted(digest_of(of(n)) for n in range(2))
    assert refused == ["put"]
