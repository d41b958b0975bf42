"""Every kind of request, with preparation and checks, for tests that disturb it."""

from __future__ import annotations

from attrs import define
from twisted.internet.defer import Deferred
from zope.interface import implementer

from tests.support.http_client import with_query
from tests.support.manifests import OCI_IMAGE, OCI_INDEX, descriptor, digest_of, image, index
from twisted_registry.metrics.interfaces import IMetricsObserver

LAYER, CHUNK, REST = b"layer" * 1000, b"chunk" * 5000, b"rest" * 5000
DIGEST = digest_of(LAYER)
IMAGE = image(b"{}", LAYER)
NEW = image(b"{}", LAYER, annotations={"is": "new"})
REFERRER = image(b"{}", subject=descriptor(IMAGE, OCI_IMAGE))
INDEX = index(descriptor(IMAGE, OCI_IMAGE))
BLOBS = (b"{}", LAYER, CHUNK, CHUNK + REST)
MANIFESTS = (IMAGE, NEW, REFERRER, INDEX)


@define
class Scenario:
    """A request, and the statuses that it may have when it is repeated after a failure."""

    method: str
    path: str
    body: bytes | None = None
    media_type: str | None = None
    statuses: tuple[int, ...] = (200,)
    name: str = ""
    streamed: bool = False

    @property
    def writes(self):
        return self.method not in {"GET", "HEAD"}

    def __str__(self):
        return self.name or f"{self.method}-{self.path.replace('/', '-')}"

    def target(self, upload):
        """Return the target of the request; ``upload`` is the URL of a started upload."""
        url = upload.split("/v2/")[1]
        return "/v2/" + self.path.replace("UPLOAD", url)

    def headers(self):
        return {} if self.media_type is None else {"Content-Type": self.media_type}


SCENARIOS = [
    Scenario("GET", "a/manifests/latest"),
    Scenario("HEAD", "a/manifests/latest"),
    Scenario("GET", f"a/manifests/{digest_of(IMAGE)}", name="GET-manifest-by-digest"),
    Scenario("PUT", "a/manifests/latest", NEW, OCI_IMAGE, (201,)),
    Scenario("PUT", f"a/manifests/{digest_of(NEW)}?tag=x&tag=y", NEW, OCI_IMAGE, (201,),
             name="PUT-manifest-with-tags"),
    Scenario("PUT", "a/manifests/referrer", REFERRER, OCI_IMAGE, (201,)),
    Scenario("PUT", "a/manifests/index", INDEX, OCI_INDEX, (201,)),
    Scenario("DELETE", "a/manifests/latest", statuses=(202, 404)),
    Scenario("DELETE", f"a/manifests/{digest_of(IMAGE)}", statuses=(202, 404),
             name="DELETE-manifest-by-digest"),
    Scenario("GET", f"a/blobs/{DIGEST}", name="GET-blob"),
    Scenario("HEAD", f"a/blobs/{DIGEST}", name="HEAD-blob"),
    Scenario("DELETE", f"a/blobs/{DIGEST}", statuses=(202, 404), name="DELETE-blob"),
    Scenario("POST", "a/blobs/uploads/", b"", statuses=(202,), name="POST-upload"),
    Scenario("POST", f"a/blobs/uploads/?digest={digest_of(CHUNK)}", CHUNK, statuses=(201,),
             name="POST-blob"),
    Scenario("POST", f"b/blobs/uploads/?mount={DIGEST}&from=a", b"", statuses=(201,),
             name="POST-mount"),
    Scenario("POST", f"b/blobs/uploads/?mount={DIGEST}", b"", statuses=(201,),
             name="POST-mount-from-anywhere"),
    Scenario("GET", "UPLOAD", statuses=(204,), name="GET-upload"),
    # 416 if the first request was stored: the URL then has the old offset.
    Scenario("PATCH", "UPLOAD", REST, statuses=(202, 416), name="PATCH-upload"),
    Scenario("PUT", f"UPLOAD&digest={digest_of(CHUNK)}", b"", statuses=(201, 404),
             name="PUT-upload"),
    Scenario("PUT", f"UPLOAD&digest={digest_of(CHUNK + REST)}", REST, statuses=(201, 404, 416),
             name="PUT-upload-with-rest"),
    Scenario("DELETE", "UPLOAD", statuses=(204, 404), name="DELETE-upload"),
    Scenario("GET", "a/tags/list"),
    Scenario("GET", "a/tags/list?n=1", name="GET-page-of-tags"),
    Scenario("GET", "_catalog"),
    Scenario("GET", f"a/referrers/{digest_of(IMAGE)}", name="GET-referrers"),
    Scenario("GET", "a/_oci/ext/discover"),
]  # fmt: skip


async def prepare(api):
    """Push an image and its referrer, start an upload, and return its URL."""
    await api.push_image(LAYER)
    await api.push_manifest(image(b"{}", subject=descriptor(IMAGE, OCI_IMAGE), x="y"), "old")
    response = await api.request_target("PATCH", await api.start_upload(), body=CHUNK)
    assert response.status == 202
    return response.get("Location")


async def check(api, scenario, upload):
    """Check that visible content is complete, and that the request can be repeated."""
    for content in BLOBS:
        for name in ("a", "b"):
            response = await api("GET", f"{name}/blobs/{digest_of(content)}")
            assert response.status == 404 or response.body == content
    tags = (await api("GET", "a/tags/list")).json()["tags"]
    for tag in tags:
        response = await api("GET", f"a/manifests/{tag}")
        assert digest_of(response.body) == response.get("Docker-Content-Digest")
    for content in MANIFESTS:
        response = await api("GET", f"a/manifests/{digest_of(content)}")
        assert response.status == 404 or response.body == content
    target = scenario.target(upload)
    response = await api.request_target(scenario.method, target, scenario.headers(), scenario.body)
    assert response.status in scenario.statuses, response
    assert response.is_complete
    if "UPLOAD" in scenario.path and response.status != 201:
        await resume(api, upload)


async def resume(api, upload):
    """Check that the blob of the upload can still be pushed."""
    whole = CHUNK + REST
    url = upload.partition("?")[0]
    response = await api.request_target("GET", url)
    if response.status == 404:
        url, size = (await api.start_upload()).partition("?")[0], 0
    else:
        size = int(response.get("Range").partition("-")[2]) + 1
        url = response.get("Location")
        size = 0 if size == 1 else size
    put = with_query(url, digest=digest_of(whole))
    response = await api.request_target("PUT", put, body=whole[size:])
    assert response.status == 201, response
    assert (await api("GET", f"a/blobs/{digest_of(whole)}")).body == whole


@implementer(IMetricsObserver)
class RequestEnds:
    """A metrics observer that lets a test wait for the end of a request."""

    def __init__(self):
        self.statuses = []
        self._waiting = []

    def request_started(self, handler):
        """Do nothing."""

    def request_finished(self, request):
        self.statuses.append(request.status)
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done.callback(None)

    def after(self, number):
        """Fire when ``number`` requests have ended."""
        done = Deferred()
        if len(self.statuses) >= number:
            done.callback(None)
        else:
            self._waiting.append(done)
            done.addCallback(lambda _: self.after(number))
        return done
