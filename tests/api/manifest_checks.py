"""Checks of a manifest that was pushed."""

from __future__ import annotations

from tests.support.manifests import digest_of


async def check_served(api, content, reference, media_type, digest=None):
    """Check that a manifest is served unchanged by its digest and by ``reference``."""
    digest = digest or digest_of(content)
    for name in (reference, digest):
        for method in ("GET", "HEAD"):
            response = await api(method, f"a/manifests/{name}", {"Accept": "*/*"})
            assert response.status == 200, response
            assert response.get("Content-Type") == media_type
            assert response.get("Docker-Content-Digest") == digest
            assert response.get("ETag") == f'"{digest}"'
            assert response.get("Content-Length") == str(len(content))
            assert response.body == (content if method == "GET" else b"")


def check_created(response, api, digest):
    assert (response.status, response.body) == (201, b""), response
    assert response.get("Docker-Content-Digest") == digest
    assert response.get("Location") == f"http://{api.host}/v2/a/manifests/{digest}"
