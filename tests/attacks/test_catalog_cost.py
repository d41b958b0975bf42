"""What a pusher can make lists of repositories cost: deep names, and folders that stay."""

from __future__ import annotations

import pytest
import pytest_twisted

from tests.attacks.attacked_registry import CONFIG, OWN_TOKENS
from tests.support.http_client import with_query
from tests.support.manifests import digest_of, image

MOST = 32
DEEP = "/".join("d" * (MOST + 1))
DEEPEST_PERMITTED = "/".join("p" * MOST)
REPOSITORIES = "docker/registry/v2/repositories"

pytestmark = [
    pytest.mark.timed,
    pytest.mark.parametrize(
        "registry",
        [(OWN_TOKENS, 1), (OWN_TOKENS, 2)],
        ids=["one worker", "two workers"],
        indirect=True,
    ),
]


def folders(registry, name):
    """Return the folders below the first component of a name."""
    return list((registry.folder / "store" / REPOSITORIES / name.partition("/")[0]).rglob("*"))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "blobs/uploads/"),
        ("POST", f"blobs/uploads/?digest={digest_of(CONFIG)}"),
        ("POST", f"blobs/uploads/?mount={digest_of(CONFIG)}&from=secret/app"),
        ("PATCH", "blobs/uploads/6a1c4d0e-0000-4000-8000-000000000000"),
        ("PUT", "manifests/latest"),
        ("PUT", f"manifests/{digest_of(image())}"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_new_repository_of_too_many_components_is_refused(registry, method, path):
    answer = await registry("root", method, f"/v2/{DEEP}/{path}", (), CONFIG)
    assert (answer.status, answer.code) == (400, "NAME_INVALID")
    assert str(MOST) in answer.json()["errors"][0]["detail"]["reason"]
    assert not folders(registry, DEEP)


@pytest_twisted.ensureDeferred
async def test_existing_repository_of_many_components_is_used_and_deleted(registry):
    deep = "/".join("o" * 128)
    for content in (b"{}", b"layer"):
        target = f"/v2/o/blobs/uploads/?digest={digest_of(content)}"
        assert (await registry("root", "POST", target, (), content)).status == 201
    # As an older version, or Distribution, has stored it.
    above = registry.folder / "store" / REPOSITORIES
    (above / deep).mkdir(parents=True)
    (above / "o/_layers").rename(above / deep / "_layers")
    content = image(b"{}", b"layer")
    target = f"/v2/{deep}/manifests/v1"
    assert (await registry("root", "PUT", target, (), content)).status == 201
    assert (await registry("root", "GET", target)).body == content
    assert (await registry("root", "GET", f"/v2/{deep}/tags/list")).json()["tags"] == ["v1"]
    assert deep in (await registry("root", "GET", "/v2/_catalog")).json()["repositories"]
    assert (await registry("root", "DELETE", f"/v2/_repository/{deep}")).status == 202
    assert not (above / "o/o").exists()


@pytest_twisted.ensureDeferred
async def test_folders_of_cancelled_and_failed_uploads_are_removed(registry):
    target = f"/v2/{DEEPEST_PERMITTED}/blobs/uploads/"
    first = await registry("root", "POST", target, (), b"")
    second = await registry("root", "POST", target, (), b"")
    assert (first.status, second.status) == (202, 202)
    location = first.get("Location")
    assert (await registry("root", "DELETE", location)).status == 204
    # The other upload needs them.
    wrong = {"digest": digest_of(b"other")}
    location = second.get("Location")
    refused = await registry("root", "PUT", with_query(location, **wrong), (), b"bytes")
    assert (refused.status, refused.code) == (400, "DIGEST_INVALID")
    assert not folders(registry, DEEPEST_PERMITTED)
    target += f"?digest={wrong['digest']}"
    refused = await registry("root", "POST", target, (), b"bytes")
    assert (refused.status, refused.code) == (400, "DIGEST_INVALID")
    assert not folders(registry, DEEPEST_PERMITTED)
