"""Content and media types that a pusher chooses so that browsers run them."""

from __future__ import annotations

import json

import pytest
import pytest_twisted

from tests.attacks.attacked_registry import LAYER
from tests.support.manifests import OTHER, digest_of

PAGE = b"<!DOCTYPE html><script>alert(document.domain)</script>"
ACTIVE = ["text/html", "TEXT/html; charset=utf-8", "application/xhtml+xml", "image/svg+xml",
          "application/javascript", "text/javascript", "application/xml", "text/xml",
          "multipart/x-mixed-replace"]  # fmt: skip


async def put(registry, content, media_type):
    target = f"/v2/team/app/manifests/{digest_of(content)}"
    headers = {} if media_type is None else {"Content-Type": media_type}
    return await registry("ada", "PUT", target, headers, content)


@pytest.mark.parametrize("media_type", ACTIVE)
@pytest_twisted.ensureDeferred
async def test_a_manifest_cannot_be_pushed_as_a_page_or_script(registry, media_type):
    page = PAGE + media_type.encode()
    answer = await put(registry, page, media_type)
    assert (answer.status, answer.code) == (400, "MANIFEST_INVALID")
    declared = media_type.partition(";")[0]
    content = json.dumps({"mediaType": declared, "x": PAGE.decode()}).encode()
    for header in (None, declared):
        answer = await put(registry, content, header)
        assert (answer.status, answer.code) == (400, "MANIFEST_INVALID")
    for pushed in (page, content):
        target = f"/v2/team/app/manifests/{digest_of(pushed)}"
        assert (await registry("ada", "GET", target)).status == 404


@pytest_twisted.ensureDeferred
async def test_a_stored_page_is_served_as_unknown_content(registry):
    """A page that an older version or another registry has stored, with its type in a file."""
    assert (await put(registry, PAGE, OTHER)).status == 201
    digest = digest_of(PAGE)
    (stored,) = registry.folder.rglob(f"revisions/sha256/{digest[7:]}/*media*")
    assert stored.read_text() == OTHER
    stored.write_text("text/html")
    for method in ("GET", "HEAD"):
        answer = await registry("ada", method, f"/v2/team/app/manifests/{digest}")
        assert answer.status == 200
        assert answer.get("Content-Type") == "application/octet-stream"
        assert answer.get("X-Content-Type-Options") == "nosniff"
        assert answer.get("Content-Security-Policy") == "default-src 'none'; sandbox"
    stored.write_text(OTHER)


@pytest_twisted.ensureDeferred
async def test_browsers_are_told_not_to_run_content(registry):
    for target in (f"/v2/secret/app/blobs/{digest_of(LAYER)}", "/v2/secret/app/manifests/latest",
                   "/v2/secret/app/manifests/missing", "/v2/secret/app/tags/list"):  # fmt: skip
        for user in ("root", "ada", ""):
            answer = await registry(user, "GET", target)
            assert answer.get("X-Content-Type-Options") == "nosniff"
            assert answer.get("Content-Security-Policy") == "default-src 'none'; sandbox"
