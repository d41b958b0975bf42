"""A disk that fills up during parallel pushes: pushes are refused, pulls continue."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from attrs import define, field

from tests.integration.images import image
from tests.integration.remote import Remote, with_digest
from tests.integration.servers import OURS
from tests.integration.small_disk import MIB, mounted_disk
from tests.support.manifests import digest_of
from tests.support.processes import CONFIGURATION, SERVE, RegistryProcess, write_configuration

if TYPE_CHECKING:
    from twisted_registry.testing import Image

pytestmark = pytest.mark.integration

DISK = 24
CLIENTS = 6
#: What a push consists of, and how it arrives.
LAYER = 2 * MIB
PIECE = 700_000


@pytest.fixture
def disk(tmp_path):
    """A filesystem of 24 MiB."""
    with mounted_disk(tmp_path, f"size={DISK}m") as made:
        yield made


@define(eq=False)
class Push:
    """A push that stops at the first unsuccessful response and can be resumed.

    :ivar refused: the response that it stopped at.
    :ivar statuses: the status codes of all responses.
    """

    remote: Remote
    name: str
    image: Image
    refused: object = None
    statuses: list[int] = field(factory=list)
    _location: str | None = None
    _stored: int = 0

    def resume(self) -> None:
        """Push what the registry does not have yet."""
        self.refused = None
        for blob in self.image.blobs:
            if self.remote.request("HEAD", f"/v2/{self.name}/blobs/{blob.digest}").status == 200:
                continue
            if not self._blob(blob.digest, blob.read()):
                return
        self._request(
            "PUT",
            f"/v2/{self.name}/manifests/latest",
            self.image.manifest.read(),
            {"Content-Type": self.image.media_type},
        )

    def start_upload(self) -> bool:
        """Start the upload of a blob; return whether it was accepted."""
        return self._request("POST", f"/v2/{self.name}/blobs/uploads/", b"")

    def _blob(self, digest: str, blob: bytes) -> bool:
        if self._location is not None:
            # A refused client asks for the offset of its upload.
            response = self.remote.request("GET", self._location)
            assert response.status == 204, response
            self._update_location(response)
        elif not self.start_upload():
            return False
        while self._stored < len(blob):
            piece = blob[self._stored : self._stored + PIECE]
            if not self._request(
                "PATCH", self._location, piece, {"Content-Range": self._range(piece)}
            ):
                return False
        if not self._request("PUT", with_digest(self._location, digest), b""):
            return False
        self._location, self._stored = None, 0
        return True

    def _range(self, piece: bytes) -> str:
        return f"{self._stored}-{self._stored + len(piece) - 1}"

    def _request(self, method, path, body, headers=None) -> bool:
        response = self.remote.request(method, path, body, headers)
        self.statuses.append(response.status)
        if response.status not in {201, 202}:
            self.refused = response
            return False
        if response.status == 202:
            self._update_location(response)
        return True

    def _update_location(self, response) -> None:
        self._location = response.headers["location"]
        end = response.headers.get("range", "0-0").partition("-")[2]
        # The range of an empty upload equals that of an upload with one byte.
        self._stored = 0 if end == "0" else int(end) + 1


def run_in_threads(*works):
    """Run all callables in parallel threads; raise the first exception."""
    faults = []

    def run(work):
        try:
            work()
        except BaseException as fault:  # noqa: BLE001 - whatever it is, the test fails with it
            faults.append(fault)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]


def make_puller(remote: Remote, held: Image, over: threading.Event, pulls: list[int]):
    """Return a callable that pulls an image until ``over`` is set."""

    def work() -> None:
        while not over.is_set():
            remote.assert_holds("held", held, "latest")
            pulls.append(1)

    return work


@pytest.mark.parametrize("workers", [1, 2])
def test_pushes_to_a_full_disk_are_refused_and_resume(disk, launcher, workers):
    remote = launcher.start(OURS, disk.root / "store", workers).remote
    held = image("held", size=100_000)
    remote.push("held", held, "latest")
    disk.fill(leave=5 * MIB)
    pushes = [
        Push(remote, f"team/{number}", image(("push", number), layers=1, size=LAYER))
        for number in range(CLIENTS)
    ]
    over, pulls = threading.Event(), []

    def push_all() -> None:
        try:
            run_in_threads(*(push.resume for push in pushes))
        finally:
            over.set()

    run_in_threads(push_all, make_puller(remote, held, over, pulls))
    assert pulls
    refused = [push for push in pushes if push.refused is not None]
    assert len(refused) >= 3
    for push in refused:
        assert push.refused.status == 507, push.refused
        assert push.refused.json()["errors"][0]["code"] == "UNAVAILABLE"
    # The pushes that succeeded are complete.
    for push in pushes:
        if push.refused is None:
            remote.assert_holds(push.name, push.image, "latest")
    disk.free()
    run_in_threads(*(push.resume for push in refused))
    for push in pushes:
        assert push.refused is None, push.refused
        remote.assert_holds(push.name, push.image, "latest")
        for blob in push.image.blobs:
            assert digest_of(remote.blob(push.name, blob.digest).body) == blob.digest


WATERMARKS = """\
storage:
  delete: {{enabled: true}}
  maintenance: {{watermark: {{warn: 60%, refuse: 80%}}}}
"""


def eventually(ready):
    """Wait until ``ready()`` is true, for at most 20 seconds."""
    for _ in range(200):
        if ready():
            return
        threading.Event().wait(0.1)
    assert ready()


def test_watermarks_warn_and_refuse_pushes(disk, tmp_path):
    text = CONFIGURATION.replace("storage:\n", WATERMARKS).replace(
        "{root}", str(disk.root / "store")
    )
    with RegistryProcess(*SERVE, write_configuration(tmp_path, text), cwd=tmp_path) as server:
        remote = Remote(f"127.0.0.1:{server.port}")
        held = image("held", size=100_000)
        remote.push("held", held, "latest")
        push = Push(remote, "team", image("push", layers=1, size=LAYER))
        assert push.start_upload()
        assert "warning" not in remote.request("GET", "/v2/").headers
        disk.fill(leave=DISK * MIB * 3 // 10)
        eventually(lambda: "warning" in remote.request("GET", "/v2/").headers)
        warning = '299 - "the storage of this registry is nearly full"'
        for path in ("/v2/held/manifests/latest", f"/v2/held/blobs/{held.config.digest}"):
            assert remote.request("GET", path).headers["warning"] == warning
        remote.push("held", held, "again")
        disk.fill(leave=DISK * MIB // 10)
        eventually(lambda: remote.request("POST", "/v2/x/blobs/uploads/", b"").status == 507)
        push.resume()
        assert push.refused.status == 507
        assert push.refused.json()["errors"][0]["code"] == "UNAVAILABLE"
        assert remote.request("DELETE", "/v2/held/manifests/again").status == 202
        remote.assert_holds("held", held, "latest")
        disk.free()
        eventually(lambda: "warning" not in remote.request("GET", "/v2/").headers)
        push.resume()
        assert push.refused is None
        remote.assert_holds("team", push.image, "latest")
        status, _, lines = server.stop()
        assert status == 0
    for words in (
        "store is full, pushes are refused",
        "store has space again",
        'level=warning msg="store is',
    ):
        assert any(words in line for line in lines), words
