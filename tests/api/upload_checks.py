"""An upload in parts, and what is true of it in the end."""

from __future__ import annotations

from tests.support.http_client import with_query
from tests.support.manifests import digest_of

ONE, TWO, THREE = b"one" * 400, b"two" * 500, b"three" * 600
WHOLE = ONE + TWO + THREE
DIGEST = digest_of(WHOLE)


async def closed(api, url, content, digest=None, body=None, **headers):
    """Close an upload, and check that all of it is there."""
    digest = digest or digest_of(content)
    response = await api.request_target("PUT", with_query(url, digest=digest), headers, body)
    assert response.status == 201, response
    assert response.get("Docker-Content-Digest") == digest
    assert response.get("Location") == f"http://{api.host}/v2/a/blobs/{digest}"
    assert (await api.request_target("GET", response.get("Location"))).body == content
    assert (await api.request_target("GET", url)).code == "BLOB_UPLOAD_UNKNOWN"


def accepted(response, size):
    """A 202 or 204 that says how far the upload is; its Location."""
    assert response.status in {202, 204}, response
    assert response.body == b""
    assert response.get("Range") == f"0-{max(size - 1, 0)}"
    assert response.get("Docker-Upload-UUID") in response.get("Location")
    return response.get("Location")


async def refused(api, response, size):
    """A 416 with which a client can go on; its Location."""
    assert (response.status, response.code) == (416, "RANGE_INVALID")
    assert response.get("Range") == f"0-{max(size - 1, 0)}"
    url = response.get("Location")
    assert accepted(await api.request_target("GET", url), size)
    return url
