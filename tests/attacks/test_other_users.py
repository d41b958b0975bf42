"""Access to the content of other users: blobs, mounts, uploads, referrers, lists."""

from __future__ import annotations

import pytest
import pytest_twisted

from tests.attacks.attacked_registry import CONFIG, HIDDEN, LAYER, SECRET_IMAGE, SIGNATURE
from tests.support.http_client import with_query
from tests.support.manifests import descriptor, digest_of, image

BLOB, MANIFEST = digest_of(LAYER), digest_of(SECRET_IMAGE)
#: Status of a refusal, without a login and with one.
REFUSALS = {"": 401, "ada": 403}
ABSENT = digest_of(b"nowhere")

#: Method and target behind ``/v2/secret/app/``.
REQUESTS = [
    ("GET", f"blobs/{BLOB}"),
    ("HEAD", f"blobs/{BLOB}"),
    ("DELETE", f"blobs/{BLOB}"),
    ("GET", "manifests/latest"),
    ("HEAD", "manifests/latest"),
    ("GET", f"manifests/{MANIFEST}"),
    ("PUT", "manifests/latest"),
    ("DELETE", f"manifests/{MANIFEST}"),
    ("DELETE", "manifests/latest"),
    ("GET", "tags/list"),
    ("GET", f"referrers/{MANIFEST}"),
    ("GET", f"referrers/{MANIFEST}?artifactType=application/hidden"),
    ("POST", "blobs/uploads/"),
    ("POST", f"blobs/uploads/?digest={ABSENT}"),
    ("POST", f"blobs/uploads/?mount={digest_of(b'{}')}&from=team/app"),
    ("GET", "blobs/uploads/6a1c4d0e-0000-4000-8000-000000000000"),
    ("PATCH", "blobs/uploads/6a1c4d0e-0000-4000-8000-000000000000"),
    ("PUT", f"blobs/uploads/6a1c4d0e-0000-4000-8000-000000000000?digest={ABSENT}"),
    ("GET", "_oci/ext/discover"),
]


def reveals_nothing(answer):
    return not any(each in answer.raw for each in HIDDEN)


@pytest.mark.parametrize("user", REFUSALS)
@pytest.mark.parametrize(("method", "target"), REQUESTS)
@pytest_twisted.ensureDeferred
async def test_a_forbidden_repository_looks_like_an_unknown_one(registry, user, method, target):
    body = None if method in {"GET", "HEAD"} else b"nowhere"
    seen = []
    for name in ("secret/app", "secret/not"):
        answer = await registry(user, method, f"/v2/{name}/{target}", (), body)
        assert answer.status == REFUSALS[user]
        assert reveals_nothing(answer)
        seen.append(answer.body.decode().replace(name, "NAME"))
    assert seen[0] == seen[1]


#: Methods and targets below a repository that ada may push to, with the expected status.
OWN_REPOSITORY_REQUESTS = [
    ("GET", f"blobs/{BLOB}", 404),
    ("HEAD", f"blobs/{BLOB}", 404),
    ("DELETE", f"blobs/{BLOB}", 404),
    ("GET", f"manifests/{MANIFEST}", 404),
    ("HEAD", f"manifests/{MANIFEST}", 404),
    ("DELETE", f"manifests/{MANIFEST}", 404),
    ("GET", f"referrers/{MANIFEST}", 200),
    ("GET", f"referrers/{MANIFEST}?artifactType=application/other", 200),
    ("POST", f"blobs/uploads/?mount={BLOB}&from=secret/app", 202),
    ("POST", f"blobs/uploads/?mount={BLOB}", 202),
    ("POST", f"blobs/uploads/?mount={BLOB}&from=", 202),
    ("POST", f"blobs/uploads/?mount={BLOB}&from=secret/not", 202),
    ("POST", f"blobs/uploads/?mount={BLOB}&from=public/app", 202),
    # Repeated and encoded parameters: the value that is used is the value that is authorized.
    ("POST", f"blobs/uploads/?mount={BLOB}&from=public/app&from=secret/app", 202),
    ("POST", f"blobs/uploads/?mount={BLOB}&from=secret/app&from=public/app", 202),
    ("POST", f"blobs/uploads/?mount={BLOB}&fr%6fm=secret%2Fapp", 202),
    ("POST", f"blobs/uploads/?mount={BLOB}&from=public/app%26from=secret/app", 400),
    ("POST", f"blobs/uploads/?mount={BLOB}&from=public/app;from=secret/app", 400),
    ("POST", f"blobs/uploads/?mount={BLOB}&digest={BLOB}", 202),
]


@pytest.mark.parametrize(("method", "target", "status"), OWN_REPOSITORY_REQUESTS)
@pytest_twisted.ensureDeferred
async def test_content_of_others_is_not_reachable_elsewhere(registry, method, target, status):
    body = b"" if method == "POST" else None
    answer = await registry("ada", method, f"/v2/team/app/{target}", (), body)
    assert answer.status == status
    assert reveals_nothing(answer)
    if answer.status == 200:
        assert answer.json()["manifests"] == []
    found = await registry("ada", "GET", f"/v2/team/app/blobs/{BLOB}")
    assert found.status == 404


@pytest_twisted.ensureDeferred
async def test_a_manifest_cannot_reference_content_of_others(registry):
    for content in (SECRET_IMAGE, SIGNATURE, image(b"{}", LAYER), image(CONFIG)):
        answer = await registry("ada", "PUT", "/v2/team/app/manifests/stolen", (), content)
        assert (answer.status, answer.code) == (400, "MANIFEST_BLOB_UNKNOWN")
    # A subject may be missing; the response does not show that another repository has it.
    mine = image(b"{}", subject=descriptor(SECRET_IMAGE))
    assert (await registry("ada", "PUT", "/v2/team/app/manifests/mine", (), mine)).status == 201
    answer = await registry("ada", "GET", f"/v2/team/app/referrers/{MANIFEST}")
    assert [each["digest"] for each in answer.json()["manifests"]] == [digest_of(mine)]
    assert reveals_nothing(answer)
    answer = await registry("root", "GET", f"/v2/secret/app/referrers/{MANIFEST}")
    assert [each["digest"] for each in answer.json()["manifests"]] == [digest_of(SIGNATURE)]
    path = f"/v2/team/app/manifests/{digest_of(mine)}"
    assert (await registry("ada", "DELETE", path)).status == 202


@pytest_twisted.ensureDeferred
async def test_the_catalog_lists_only_pullable_repositories(registry):
    for query in ("", "?n=1000", "?n=1&last=public/app", "?last=secret/a", "?last=s"):
        answer = await registry("ada", "GET", f"/v2/_catalog{query}")
        assert answer.status == 200
        assert "secret" not in answer.body.decode()
        assert "secret" not in (answer.get("Link") or "")
    for method in ("GET", "HEAD"):
        assert (await registry("", method, "/v2/_catalog")).status == 401
    answer = await registry("root", "GET", "/v2/_catalog")
    assert answer.json()["repositories"] == ["public/app", "secret/app", "team/app"]


@pytest_twisted.ensureDeferred
async def test_an_upload_is_usable_only_by_its_owner(registry):
    answer = await registry("ada", "POST", "/v2/team/app/blobs/uploads/", (), b"")
    url = answer.get("Location")
    target = url[url.index("/v2/") :]
    bare = target.partition("?")[0]
    other = (await registry("bob", "POST", "/v2/team/app/blobs/uploads/", (), b"")).get("Location")
    swapped = f"{bare}?{other.partition('?')[2]}"
    elsewhere = target.replace("/team/app/", "/team/other/")
    for attempt in (target, bare, swapped, f"{bare}?_state=", f"{bare}?_state={'A' * 200}",
                  elsewhere):  # fmt: skip
        for method in ("GET", "PATCH", "PUT", "DELETE"):
            url = with_query(attempt, digest=digest_of(b"x")) if method == "PUT" else attempt
            body = None if method in {"GET", "DELETE"} else b"x"
            answer = await registry("bob", method, url, (), body)
            assert answer.status == 404, (method, attempt)
    closing = with_query(target, digest=digest_of(b"ada's"))
    assert (await registry("ada", "GET", target)).get("Range") == "0-0"
    assert (await registry("ada", "PUT", closing, (), b"ada's")).status == 201
