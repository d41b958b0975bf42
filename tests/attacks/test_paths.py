"""Path traversal: malformed names in every parameter that takes a name.

The caller is an administrator, so that no access rule hides the effect of a path.
"""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
import pytest_twisted

from tests.attacks.attacked_registry import HIDDEN, LAYER, OWN_TOKENS, SECRET_IMAGE
from tests.support.manifests import OCI_IMAGE, descriptor, digest_of

#: As written in a URL. None of them is the name of a repository, a tag, a digest or an upload.
MALFORMED_NAMES = [
    *("..", ".", "../..", "../../canary", "../../../../etc/passwd", "./app", "app/../../canary"),
    *("....//....//canary", "..;/canary", "..\\..\\canary", "~root", "/etc/passwd", "//canary"),
    # Encoded once, twice, and three times.
    *("%2e%2e", "%2E%2E%2F%2E%2E%2Fcanary", "..%2f..%2fcanary", "..%5c..%5ccanary", "%2f"),
    *("%2fetc%2fpasswd", "%252e%252e%252fcanary", "%25252e%25252e%25252f", "..%252fcanary"),
    # Overlong and truncated UTF-8, and characters that look like dots and slashes.
    *("%c0%ae%c0%ae%c0%afcanary", "%e0%80%ae%e0%80%ae", "%ff%fe", "%ed%a0%80", "%c3"),
    *("%ef%bc%8e%ef%bc%8e%ef%bc%8f", "%e2%80%a5%e2%88%95canary", "%e2%80%ae", "%cc%81"),
    # NUL, line ends, and the syntax of shells and databases.
    *("%00", "app%00", "..%00/canary", "app%0a", "app%0d%0aX-Injected:%20yes", "%20", "app%20"),
    *("%7bapp%7d", "$(id)", "`id`", "%27%20OR%201=1--", "%25s%25n", "*", "**", "C:%5Ccanary"),
    *("sha256:", "sha256:..", "sha256:%2e%2e/canary", "sha256:" + "A" * 64, "sha256:" + "a" * 63),
    *("md5:" + "a" * 32, "x" * 300, "%C3%A4pp"),
]
UPLOAD_ID = "6a1c4d0e-0000-4000-8000-000000000000"
MANIFEST_DIGEST = digest_of(SECRET_IMAGE)

REFUSED = {400, 404}
#: Method, target with a placeholder for a name, and the statuses that are allowed.
REQUESTS = [
    ("GET", "/{}", REFUSED | {200}),
    ("GET", "/v2/{}", REFUSED | {200}),
    ("GET", "/v2/{}/tags/list", REFUSED),
    ("GET", "/v2/team/{}/tags/list", REFUSED),
    ("GET", "/v2/{}/manifests/latest", REFUSED),
    ("PUT", "/v2/{}/manifests/latest", REFUSED),
    ("DELETE", "/v2/{}/manifests/latest", REFUSED),
    ("GET", f"/v2/{{}}/blobs/{digest_of(LAYER)}", REFUSED),
    ("POST", "/v2/{}/blobs/uploads/", REFUSED),
    ("GET", f"/v2/{{}}/referrers/{MANIFEST_DIGEST}", REFUSED),
    ("GET", "/v2/team/app/manifests/{}", REFUSED),
    ("PUT", "/v2/team/app/manifests/{}", REFUSED),
    ("DELETE", "/v2/team/app/manifests/{}", REFUSED),
    ("PUT", f"/v2/team/app/manifests/{MANIFEST_DIGEST}?tag={{}}", REFUSED),
    ("GET", "/v2/team/app/blobs/{}", REFUSED),
    ("HEAD", "/v2/team/app/blobs/{}", REFUSED),
    ("DELETE", "/v2/team/app/blobs/{}", REFUSED),
    ("GET", "/v2/team/app/referrers/{}", REFUSED),
    ("GET", f"/v2/team/app/referrers/{MANIFEST_DIGEST}?artifactType={{}}", {200}),
    ("GET", "/v2/team/app/tags/list?last={}", {200}),
    ("GET", "/v2/team/app/tags/list?n={}", {400}),
    ("GET", "/v2/_catalog?last={}", {200}),
    ("GET", "/v2/_catalog?n={}", {400}),
    ("GET", "/v2/team/app/blobs/uploads/{}", REFUSED),
    ("PATCH", "/v2/team/app/blobs/uploads/{}", REFUSED),
    ("PUT", f"/v2/team/app/blobs/uploads/{{}}?digest={MANIFEST_DIGEST}", REFUSED),
    ("DELETE", "/v2/team/app/blobs/uploads/{}", REFUSED),
    ("PUT", f"/v2/team/app/blobs/uploads/{UPLOAD_ID}?digest={{}}", REFUSED),
    ("PATCH", f"/v2/team/app/blobs/uploads/{UPLOAD_ID}?_state={{}}", REFUSED),
    ("POST", "/v2/team/app/blobs/uploads/?digest={}", REFUSED),
    ("POST", "/v2/team/app/blobs/uploads/?digest-algorithm={}", REFUSED),
    ("POST", "/v2/team/app/blobs/uploads/?mount={}&from=secret/app", REFUSED),
    ("POST", f"/v2/team/app/blobs/uploads/?mount={digest_of(LAYER)}&from={{}}", REFUSED),
]


@pytest.mark.parametrize(("method", "target", "answers"), REQUESTS)
@pytest_twisted.ensureDeferred
async def test_a_malformed_name_reaches_no_file(registry, method, target, answers):
    before = registry.files()
    for name in MALFORMED_NAMES:
        body = b"{}" if method in {"PUT", "POST", "PATCH"} else None
        answer = await registry("root", method, target.format(name), (), body)
        # A target that cannot be parsed is also a 400.
        assert answer.status in answers | {400}, (name, answer)
        assert not any(each in answer.raw for each in HIDDEN), name
        assert b"root:" not in answer.body
        assert answer.get("X-Injected") is None
        assert answer.is_complete
        if answer.status == 200 and "artifactType" in target:
            assert answer.json()["manifests"] == []
    assert registry.files() == before
    await registry.assert_still_serves()


@pytest.mark.parametrize("field", ["config", "layer", "subject", "child"])
@pytest_twisted.ensureDeferred
async def test_a_malformed_digest_in_a_manifest_reaches_no_file(registry, field):
    before = registry.files()
    for text in ("../../canary", "sha256:../../canary", "sha256:" + "../" * 21 + "a",
                 "sha256:" + "A" * 64, "sha256:\0", "\u2025\u2215", "/etc/passwd", "", 1, None, [],
                 "x" * 5000):  # fmt: skip
        bad = {**descriptor(b"{}"), "digest": text}
        document = {"schemaVersion": 2, "mediaType": OCI_IMAGE, "config": descriptor(b"{}"),
                    "layers": []}  # fmt: skip
        if field == "child":
            document = {"schemaVersion": 2, "manifests": [bad]}
        elif field == "layer":
            document["layers"] = [bad]
        else:
            document[field] = bad
        content = json.dumps(document).encode()
        answer = await registry("root", "PUT", "/v2/team/app/manifests/bad", (), content)
        assert answer.status == 400, (text, answer)
        assert answer.code in {"MANIFEST_INVALID", "MANIFEST_BLOB_UNKNOWN", "DIGEST_INVALID"}
    assert registry.files() == before


@pytest_twisted.ensureDeferred
async def test_a_malformed_name_in_a_scope_is_not_granted(registry):
    """A rule for ``team/**`` grants nothing for names that merely start with ``team/``."""
    if registry.scheme != OWN_TOKENS:
        return
    below_team = ("team/../secret/app", "team%2F..%2Fsecret/app", "team//app", "team/")
    for name in (*MALFORMED_NAMES, *below_team):
        for scope in (f"repository:{name}:pull", f"repository:{quote(name)}:*", f"{name}:x:pull"):
            target = f"/auth/token?service={name}&account={name}&scope={scope}"
            answer = await registry.api.request_target("GET", target)
            assert answer.status in {200, 400}, (name, answer)
            if answer.status == 200:
                assert answer.json()["scope"] == "", name
