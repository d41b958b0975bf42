"""A registry asked over plain HTTP, so that no client program stands between.

Each request has its own connection: a server may be killed between two of them.
"""

from __future__ import annotations

import json
from http.client import HTTPConnection
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urljoin, urlsplit

from attrs import field, frozen

from tests.integration.images import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Image,
    sha256,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ACCEPT = f"{OCI_MANIFEST}, {OCI_INDEX}, {DOCKER_MANIFEST}, {DOCKER_LIST}"


@frozen
class Answer:
    """A whole answer; header names are in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=lambda body: repr(body[:300]))

    def json(self) -> dict:
        """The body, which must be JSON."""
        return json.loads(self.body)


@frozen
class Remote:
    """The registry at ``address``, a ``host:port``."""

    address: str

    def request(self, method: str, path: str, body=None, headers=None) -> Answer:
        """One request; ``path`` may be a whole URL, as a Location is.

        A redirect to an object store is followed, as clients do it.
        """
        split = urlsplit(path)
        target = split.path + (f"?{split.query}" if split.query else "")
        connection = HTTPConnection(split.netloc or self.address, timeout=60)
        try:
            connection.request(method, target, body, dict(headers or {}))
            response = connection.getresponse()
            fields = {name.lower(): value for name, value in response.getheaders()}
            answer = Answer(response.status, fields, response.read())
        finally:
            connection.close()
        if answer.status == 307 and method in {"GET", "HEAD"}:
            return self.request(method, answer.headers["location"])
        return answer

    def manifest(self, name: str, reference: str, accept: str = ACCEPT) -> Answer:
        """GET of a manifest by tag or digest."""
        return self.request("GET", f"/v2/{name}/manifests/{reference}", None, {"Accept": accept})

    def blob(self, name: str, digest: str) -> Answer:
        """GET of a blob."""
        return self.request("GET", f"/v2/{name}/blobs/{digest}")

    def pages(self, path: str) -> Iterator[dict]:
        """A list's documents, each page of it, by its Link."""
        while path:
            answer = self.request("GET", path)
            assert answer.status == 200, (path, answer)
            yield answer.json()
            link = answer.headers.get("link")
            path = urljoin(path, link.partition("<")[2].partition(">")[0]) if link else ""

    def tags(self, name: str) -> list[str]:
        """All tags of a repository, in the order given."""
        return [tag for page in self.pages(f"/v2/{name}/tags/list") for tag in page["tags"] or []]

    def catalog(self) -> list[str]:
        """All repositories, in the order given."""
        return [name for page in self.pages("/v2/_catalog") for name in page["repositories"]]

    def referrers(self, name: str, digest: str) -> list[str]:
        """The digests of a manifest's referrers."""
        path = f"/v2/{name}/referrers/{digest}"
        return [entry["digest"] for page in self.pages(path) for entry in page["manifests"]]

    def start_upload(self, name: str) -> str:
        """POST of a new upload; answers where it goes on."""
        answer = self.request("POST", f"/v2/{name}/blobs/uploads/", headers={"Content-Length": "0"})
        assert answer.status == 202, answer
        return answer.headers["location"]

    def push_blob(self, name: str, data: bytes) -> str:
        """A blob in one PUT."""
        digest = sha256(data)
        answer = self.request("PUT", with_digest(self.start_upload(name), digest), data)
        assert answer.status == 201, answer
        return digest

    def push_in_chunks(self, name: str, data: bytes, step: int) -> str:
        """A blob in chunks of ``step`` bytes, each a request of its own."""
        location = self.start_upload(name)
        for start in range(0, len(data), step):
            chunk = data[start : start + step]
            answer = self.request("PATCH", location, chunk, {
                "Content-Range": f"{start}-{start + len(chunk) - 1}",
                "Content-Length": str(len(chunk)),
            })  # fmt: skip
            assert answer.status == 202, answer
            location = answer.headers["location"]
        digest = sha256(data)
        closing = with_digest(location, digest)
        answer = self.request("PUT", closing, headers={"Content-Length": "0"})
        assert answer.status == 201, answer
        return digest

    def push_manifest(self, name: str, reference: str, image: Image) -> None:
        """A manifest whose content is there already."""
        answer = self.request(
            "PUT",
            f"/v2/{name}/manifests/{reference}",
            image.manifest,
            {"Content-Type": image.media_type},
        )
        assert answer.status == 201, answer

    def push(self, name: str, image: Image, tag: str | None = None) -> None:
        """An image with all it names, children first."""
        for each in image.walk():
            for blob in each.blobs.values():
                self.push_blob(name, blob)
            self.push_manifest(name, each.digest, each)
        if tag is not None:
            self.push_manifest(name, tag, image)

    def assert_holds(self, name: str, image: Image, tag: str | None = None) -> None:
        """Every byte of ``image`` is served unchanged, by digest and by ``tag``."""
        for each in image.walk():
            references = [each.digest, *([tag] if tag is not None and each is image else [])]
            for reference in references:
                answer = self.manifest(name, reference)
                assert answer.status == 200, (reference, answer)
                assert answer.body == each.manifest, reference
                assert answer.headers["content-type"] == each.media_type
                assert answer.headers["docker-content-digest"] == each.digest
            for digest, blob in each.blobs.items():
                answer = self.blob(name, digest)
                assert answer.status == 200, (digest, answer)
                assert answer.body == blob, digest
                assert answer.headers["content-length"] == str(len(blob))

    def assert_whole(self, name: str, reference: str) -> Answer:
        """What ``reference`` names resolves to its last blob, each under its true digest."""
        answer = self.manifest(name, reference)
        assert answer.status == 200, (reference, answer)
        assert answer.headers["docker-content-digest"] == sha256(answer.body)
        document = answer.json()
        for child in document.get("manifests", []):
            self.assert_whole(name, child["digest"])
        blobs = [*document.get("layers", [])]
        if "config" in document:
            blobs.append(document["config"])
        for descriptor in blobs:
            blob = self.blob(name, descriptor["digest"])
            assert blob.status == 200, (descriptor, blob)
            assert sha256(blob.body) == descriptor["digest"]
            assert len(blob.body) == descriptor["size"]
        return answer


def with_digest(location: str, digest: str) -> str:
    """The URL of the PUT that closes the upload at ``location``."""
    return f"{location}{'&' if '?' in location else '?'}{urlencode({'digest': digest})}"
