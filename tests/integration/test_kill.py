"""SIGKILL during pushes: acknowledged content is kept, and nothing partial is visible.

Clients push images in streamed pieces. At a random step the server is killed, while it receives or
commits blobs, and restarted over the same store. Then the test checks all acknowledged content,
and resumes each interrupted upload at the offset that the registry reports. One more client sends
the first half of a blob and waits, so that an upload is interrupted in each round.
"""

from __future__ import annotations

import random
import threading
from contextlib import suppress
from http.client import HTTPException
from typing import TYPE_CHECKING

import pytest
from attrs import define, field

from tests.integration.images import image
from tests.integration.remote import Remote, target_of, with_digest
from tests.integration.servers import AGAINST
from tests.support.manifests import digest_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twisted_registry.testing import Image

pytestmark = pytest.mark.integration

CLIENTS = 4
PIECE = 32 * 1024
#: Upper limit for the steps (a piece sent, a response received) of all clients before a kill.
STEPS = 600


@define(eq=False)
class Ledger:
    """What the registry acknowledged to the clients, and what they attempted."""

    #: (repository, digest) -> blob, acknowledged
    blobs: dict[tuple[str, str], bytes] = field(factory=dict)
    #: (repository, tag) -> manifest, acknowledged
    tags: dict[tuple[str, str], Image] = field(factory=dict)
    #: (repository, digest) -> blob, sent but perhaps not acknowledged
    attempted: dict[tuple[str, str], bytes] = field(factory=dict)


@define(eq=False)
class Countdown:
    """The number of steps before the kill, shared by all clients."""

    left: int
    reached: threading.Event = field(factory=threading.Event)
    lock: threading.Lock = field(factory=threading.Lock)

    def step(self) -> None:
        """Count a step."""
        with self.lock:
            self.left -= 1
            if self.left <= 0:
                self.reached.set()


@define(eq=False)
class Client(threading.Thread):
    """Pushes images until the server is killed."""

    remote: Remote
    name: str
    seed: str
    countdown: Countdown
    ledger: Ledger = field(factory=Ledger)
    #: The current upload: its bytes, its location, and whether its final PUT was sent.
    current_upload: tuple[bytes, str, bool] | None = None
    fault: BaseException | None = None

    def __attrs_post_init__(self) -> None:
        """Initialize the thread as a daemon, so that it does not outlive the test."""
        threading.Thread.__init__(self, daemon=True)

    __hash__ = object.__hash__

    def run(self) -> None:
        """Push until the connection breaks; any other end is a fault."""
        try:
            with suppress(OSError, HTTPException):
                for number in range(10_000):
                    self.push(number)
        except BaseException as fault:  # noqa: BLE001  a thread's fault is the test's
            self.fault = fault
            self.countdown.reached.set()

    def push(self, number: int) -> None:
        """Push an image: its blobs, then the manifest under a new tag and under latest."""
        size = random.Random(f"{self.seed}-{number}").randrange(100, 900_000)
        made = image((self.seed, number), size=size)
        for blob in made.blobs:
            data = blob.read()
            self.ledger.attempted[self.name, blob.digest] = data
            self.push_blob(blob.digest, data)
            self.ledger.blobs[self.name, blob.digest] = data
        for tag in (f"{self.seed}-{number}", "latest"):
            self.remote.push_manifest(self.name, tag, made)
            self.ledger.tags[self.name, tag] = made
            self.countdown.step()

    def push_blob(self, digest: str, blob: bytes) -> None:
        """Push a blob with POST, a chunked PATCH and PUT, and set ``current_upload``."""
        location = self.remote.start_upload(self.name)
        self.countdown.step()
        self.current_upload = (blob, location, False)
        headers = {"Content-Type": "application/octet-stream"}
        response = self.remote.request("PATCH", location, self.pieces(blob), headers)
        assert response.status == 202, response
        location = response.headers["location"]
        self.countdown.step()
        self.current_upload = (blob, location, True)
        closed = self.remote.request("PUT", with_digest(location, digest), b"")
        assert closed.status == 201, closed
        self.countdown.step()
        self.current_upload = None

    def push_half(self) -> None:
        """Send the first half of a blob, and set ``current_upload``."""
        blob = random.Random(self.seed).randbytes(2 * PIECE)
        location = self.remote.start_upload(self.name)
        self.current_upload = (blob, location, False)
        headers = {"Content-Type": "application/octet-stream"}
        response = self.remote.request("PATCH", location, blob[:PIECE], headers)
        assert response.status == 202, response

    def pieces(self, blob: bytes) -> Iterator[bytes]:
        """Yield the pieces of a blob, and count each as a step."""
        for start in range(0, len(blob), PIECE):
            yield blob[start : start + PIECE]
            self.countdown.step()


def assert_promises(remote: Remote, client: Client) -> None:
    """Check that acknowledged content is complete, and other content complete or absent."""
    ledger = client.ledger
    for (name, digest), blob in ledger.blobs.items():
        response = remote.blob(name, digest)
        assert response.status == 200, (digest, response)
        assert response.body == blob, digest
    for name, digest in ledger.attempted:
        response = remote.blob(name, digest)
        assert response.status in {200, 404}, (digest, response)
        if response.status == 200:
            assert digest_of(response.body) == digest
    for (name, tag), made in ledger.tags.items():
        if tag != "latest":
            remote.assert_holds(name, made, tag)


def assert_visible(remote: Remote, clients: list[Client]) -> None:
    """Check that lists have all acknowledged names, and that listed content is complete."""
    catalog = set(remote.catalog())
    for name in {client.name for client in clients}:
        promised = {tag for client in clients for each, tag in client.ledger.tags if each == name}
        if not promised:
            continue
        assert name in catalog
        tags = remote.tags(name)
        assert promised <= set(tags)
        for tag in tags:
            remote.assert_complete(name, tag)


def resume(remote: Remote, client: Client) -> bool:
    """Finish the interrupted blob; return whether its upload still existed."""
    if client.current_upload is None:
        return False
    blob, location, closing = client.current_upload
    digest, location = digest_of(blob), target_of(location)
    status = remote.request("GET", location)
    if status.status == 404:
        assert closing, "an upload that was answered 202 is lost"
        remote.push_blob(client.name, blob)
    else:
        assert status.status == 204, status
        # 0-0 is the range of an empty upload; no upload here has exactly one byte.
        last = int(status.headers["range"].partition("-")[2])
        offset = last + 1 if last else 0
        assert offset <= len(blob)
        location = target_of(status.headers["location"])
        if offset < len(blob):
            rest = blob[offset:]
            fields = {
                "Content-Range": f"{offset}-{len(blob) - 1}",
                "Content-Type": "application/octet-stream",
            }
            response = remote.request("PATCH", location, rest, fields)
            assert response.status == 202, response
            location = target_of(response.headers["location"])
        response = remote.request("PUT", with_digest(location, digest), b"")
        assert response.status == 201, response
    assert remote.blob(client.name, digest).body == blob
    return status.status == 204


@pytest.mark.parametrize(
    ("rounds", "workers"),
    [
        (5, 1),
        (5, 2),
        pytest.param(50, 1, marks=[pytest.mark.nightly, pytest.mark.timeout(3600)]),
        pytest.param(50, 2, marks=[pytest.mark.nightly, pytest.mark.timeout(3600)]),
    ],
)
def test_acknowledged_pushes_survive_kills(launcher, tmp_path, rounds, workers):
    root = tmp_path / "root"
    survivors: list[Client] = []
    resumed = promised = 0
    for number in range(rounds):
        chance = random.Random(f"round {number}")
        served = launcher.start(AGAINST, root, workers)
        countdown = Countdown(chance.randrange(1, STEPS))
        clients = [
            Client(served.remote, f"kill/{number}", f"r{number}-{n}", countdown)
            for n in range(CLIENTS)
        ]
        waiting = Client(served.remote, f"kill/{number}", f"r{number}-half", countdown)
        waiting.push_half()
        for client in clients:
            client.start()
        assert countdown.reached.wait(60), "the clients came to a halt"
        # A short delay lets some kills hit a commit.
        threading.Event().wait(chance.random() * 0.02)
        served.kill()
        for client in clients:
            client.join(60)
            assert not client.is_alive()
            assert client.fault is None, client.fault

        clients.append(waiting)
        served = launcher.start(AGAINST, root, workers)
        for client in clients:
            assert_promises(served.remote, client)
            resumed += resume(served.remote, client)
            promised += len(client.ledger.blobs) + len(client.ledger.tags)
        assert_visible(served.remote, clients)
        survivors += clients
        served.stop()

    served = launcher.start(AGAINST, root)
    for client in survivors:
        assert_promises(served.remote, client)
    assert_visible(served.remote, survivors)
    print(f"{rounds} kills: {promised} promises kept, {resumed} uploads resumed")
    assert promised
    assert resumed >= rounds
