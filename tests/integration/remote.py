"""An HTTP client for a registry, without a client program in between.

Each request uses a new connection, because a server may be killed between two requests.
"""

from __future__ import annotations

import json
import time
from http.client import HTTPConnection, HTTPException
from itertools import count
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urljoin, urlsplit

from attrs import field, frozen

from tests.integration.images import blobs_of
from tests.support.manifests import digest_of
from twisted_registry.oci.manifest import DOCKER_IMAGE, DOCKER_INDEX, OCI_IMAGE, OCI_INDEX
from twisted_registry.testing.images import all_images

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from twisted_registry.testing.images import AnyImage

ACCEPT = f"{OCI_IMAGE}, {OCI_INDEX}, {DOCKER_IMAGE}, {DOCKER_INDEX}"


@frozen
class Response:
    """A complete response; header names are lowercase."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=lambda body: repr(body[:300]))

    def json(self) -> dict:
        """Parse the body as JSON."""
        return json.loads(self.body)


class UnexpectedResponse(AssertionError):
    """A response has another status than the one that was expected.

    :ivar response: the response.
    """

    def __init__(self, response: Response) -> None:
        super().__init__(response)
        self.response = response


def expect(response: Response, status: int) -> None:
    """Check the status of a response, in the same way whether pytest rewrites assertions or not."""
    if response.status != status:
        raise UnexpectedResponse(response)


@frozen
class Remote:
    """The registry at ``address``, a ``host:port``."""

    address: str
    timeout_s: float = field(default=60, kw_only=True)

    def request(self, method: str, path: str, body=None, headers=None) -> Response:
        """Send a request. A redirect to an object store is followed, as clients do.

        :param path: a path, or a URL such as a Location.
        :param body: bytes, or an iterator over pieces; without a Content-Length they are chunks.
        """
        split = urlsplit(path)
        connection = HTTPConnection(split.netloc or self.address, timeout=self.timeout_s)
        try:
            connection.request(method, target_of(path), body, dict(headers or {}))
            reply = connection.getresponse()
            fields = {name.lower(): value for name, value in reply.getheaders()}
            response = Response(reply.status, fields, reply.read())
        finally:
            connection.close()
        if response.status == 307 and method in {"GET", "HEAD"}:
            return self.request(method, response.headers["location"])
        return response

    def manifest(self, name: str, reference: str, accept: str = ACCEPT) -> Response:
        """Get a manifest by tag or digest."""
        return self.request("GET", f"/v2/{name}/manifests/{reference}", None, {"Accept": accept})

    def blob(self, name: str, digest: str) -> Response:
        """Get a blob."""
        return self.request("GET", f"/v2/{name}/blobs/{digest}")

    def pages(self, path: str) -> Iterator[dict]:
        """Yield the documents of a paginated list, following its Link headers."""
        while path:
            response = self.request("GET", path)
            assert response.status == 200, (path, response)
            yield response.json()
            link = response.headers.get("link")
            path = urljoin(path, link.partition("<")[2].partition(">")[0]) if link else ""

    def tags(self, name: str) -> list[str]:
        """Return all tags of a repository, in the order of the responses."""
        return [tag for page in self.pages(f"/v2/{name}/tags/list") for tag in page["tags"] or []]

    def catalog(self) -> list[str]:
        """Return all repositories, in the order of the responses."""
        return [name for page in self.pages("/v2/_catalog") for name in page["repositories"]]

    def referrers(self, name: str, digest: str) -> list[str]:
        """Return the digests of a manifest's referrers."""
        path = f"/v2/{name}/referrers/{digest}"
        return [entry["digest"] for page in self.pages(path) for entry in page["manifests"]]

    def start_upload(self, name: str) -> str:
        """Start an upload; return its location."""
        response = self.request(
            "POST", f"/v2/{name}/blobs/uploads/", headers={"Content-Length": "0"}
        )
        expect(response, 202)
        return response.headers["location"]

    def push_blob(self, name: str, data: bytes) -> str:
        """Push a blob in one PUT; return its digest."""
        digest = digest_of(data)
        response = self.request("PUT", with_digest(self.start_upload(name), digest), data)
        expect(response, 201)
        return digest

    def post_blob(self, name: str, data: bytes) -> str:
        """Push a blob in one POST; return its digest."""
        digest = digest_of(data)
        path = with_digest(f"/v2/{name}/blobs/uploads/", digest)
        response = self.request("POST", path, data)
        expect(response, 201)
        return digest

    def push_in_chunks(self, name: str, data: bytes, step: int) -> str:
        """Push a blob in chunks of ``step`` bytes, one request each; return its digest."""
        location = self.start_upload(name)
        for start in range(0, len(data), step):
            chunk = data[start : start + step]
            response = self.request("PATCH", location, chunk, {
                "Content-Range": f"{start}-{start + len(chunk) - 1}",
                "Content-Length": str(len(chunk)),
            })  # fmt: skip
            expect(response, 202)
            location = response.headers["location"]
        digest = digest_of(data)
        closing = with_digest(location, digest)
        response = self.request("PUT", closing, headers={"Content-Length": "0"})
        expect(response, 201)
        return digest

    def push_manifest(self, name: str, reference: str, image: AnyImage) -> None:
        """Push a manifest whose content exists."""
        response = self.request(
            "PUT",
            f"/v2/{name}/manifests/{reference}",
            image.manifest.read(),
            {"Content-Type": image.media_type},
        )
        expect(response, 201)

    def push(self, name: str, image: AnyImage, tag: str | None = None) -> None:
        """Push an image with all that it references, children first."""
        for blob in blobs_of(image):
            self.push_blob(name, blob.read())
        for each in all_images(image):
            self.push_manifest(name, each.digest, each)
        if tag is not None:
            self.push_manifest(name, tag, image)

    def assert_holds(self, name: str, image: AnyImage, tag: str | None = None) -> None:
        """Check that ``image`` is served unchanged, by digest and by ``tag``."""
        for each in all_images(image):
            references = [each.digest, *([tag] if tag is not None and each is image else [])]
            for reference in references:
                response = self.manifest(name, reference)
                assert response.status == 200, (reference, response)
                assert response.body == each.manifest.read(), reference
                assert response.headers["content-type"] == each.media_type
                assert response.headers["docker-content-digest"] == each.digest
        for blob in blobs_of(image):
            response = self.blob(name, blob.digest)
            assert response.status == 200, (blob, response)
            assert response.body == blob.read(), blob
            assert response.headers["content-length"] == str(blob.size)

    def assert_complete(self, name: str, reference: str) -> Response:
        """Check that all content of ``reference`` is served under the right digests."""
        response = self.manifest(name, reference)
        assert response.status == 200, (reference, response)
        assert response.headers["docker-content-digest"] == digest_of(response.body)
        document = response.json()
        for child in document.get("manifests", []):
            self.assert_complete(name, child["digest"])
        blobs = [*document.get("layers", [])]
        if "config" in document:
            blobs.append(document["config"])
        for descriptor in blobs:
            blob = self.blob(name, descriptor["digest"])
            assert blob.status == 200, (descriptor, blob)
            assert digest_of(blob.body) == descriptor["digest"]
            assert len(blob.body) == descriptor["size"]
        return response


@frozen
class RoundRobin(Remote):
    """Sends requests to several registries in turn, as a load balancer does; one may be down.

    :ivar attempts: how many requests are sent until one gets a response.
    """

    address: str = field(default="", init=False)
    addresses: list[str]
    attempts: int = 60
    turns: count = field(factory=count)

    def request(self, method: str, path: str, body=None, headers=None) -> Response:
        for _ in range(self.attempts):
            address = self.addresses[next(self.turns) % len(self.addresses)]
            try:
                return Remote(address).request(method, target_of(path), body, headers)
            except (OSError, HTTPException):
                time.sleep(0.1)
        raise ConnectionError(f"no registry responds to {method} {path}")


def target_of(url: str) -> str:
    """Return path and query of a URL, without the host, which may change after a restart."""
    split = urlsplit(url)
    return split.path + (f"?{split.query}" if split.query else "")


def with_digest(location: str, digest: str) -> str:
    """Return the URL of the PUT that finishes the upload at ``location``."""
    return f"{location}{'&' if '?' in location else '?'}{urlencode({'digest': digest})}"
