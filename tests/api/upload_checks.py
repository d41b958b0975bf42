"""Content in three parts, and checks of the responses of an upload."""

from __future__ import annotations

from tests.support.http_client import with_query
from tests.support.manifests import digest_of

ONE, TWO, THREE = b"one" * 400, b"two" * 500, b"three" * 600
WHOLE = ONE + TWO + THREE
DIGEST = digest_of(WHOLE)


async def finish_upload(api, url, content, digest=None, body=None, **headers):
    """Finish an upload, and check that its blob is served."""
    digest = digest or digest_of(content)
    response = await api.request_target("PUT", with_query(url, digest=digest), headers, body)
    assert response.status == 201, response
    assert response.get("Docker-Content-Digest") == digest
    assert response.get("Location") == f"http://{api.host}/v2/a/blobs/{digest}"
    assert (await api.request_target("GET", response.get("Location"))).body == content
    assert (await api.request_target("GET", url)).code == "BLOB_UPLOAD_UNKNOWN"


def check_accepted(response, size):
    """Check a 202 or 204 with the stored size, and return its Location."""
    assert response.status in {202, 204}, response
    assert response.body == b""
    assert response.get("Range") == f"0-{max(size - 1, 0)}"
    assert response.get("Docker-Upload-UUID") in response.get("Location")
    return response.get("Location")


async def check_range_refused(api, response, size):
    """Check a 416 that allows the client to continue, and return its Location."""
    assert (response.status, response.code) == (416, "RANGE_INVALID")
    assert response.get("Range") == f"0-{max(size - 1, 0)}"
    url = response.get("Location")
    assert check_accepted(await api.request_target("GET", url), size)
    return url
