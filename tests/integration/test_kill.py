"""kill -9 in the middle of pushes: what was answered 201 is there, nothing partial shows.

Clients push images in streamed pieces, each blob twice in danger: while its bytes come in
and while it is committed.  At a random step the server is killed and started again over the
same store; then every promise is looked after, and each interrupted upload goes on where the
registry says it stands.
"""

from __future__ import annotations

import random
import threading
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

import pytest
from attrs import define, field

from tests.integration.images import Image, image, sha256
from tests.integration.remote import Remote, with_digest
from tests.integration.servers import AGAINST

pytestmark = pytest.mark.integration

CLIENTS = 4
PIECE = 32 * 1024
#: Steps (a piece sent, an answer received) of all clients after which a kill may fall.
STEPS = 600


@define(eq=False)
class Ledger:
    """What the clients were promised, and what they know of the rest."""

    #: (repository, digest) -> blob, answered 201
    blobs: dict[tuple[str, str], bytes] = field(factory=dict)
    #: (repository, tag) -> manifest, answered 201
    tags: dict[tuple[str, str], Image] = field(factory=dict)
    #: (repository, digest) -> blob, asked for but not answered
    attempted: dict[tuple[str, str], bytes] = field(factory=dict)


@define(eq=False)
class Countdown:
    """Steps that are left before the kill; shared by all clients."""

    left: int
    reached: threading.Event = field(factory=threading.Event)
    lock: threading.Lock = field(factory=threading.Lock)

    def step(self) -> None:
        """One more thing happened."""
        with self.lock:
            self.left -= 1
            if self.left <= 0:
                self.reached.set()


@define(eq=False)
class Client(threading.Thread):
    """Pushes image after image until the server is gone."""

    remote: Remote
    name: str
    seed: str
    countdown: Countdown
    ledger: Ledger = field(factory=Ledger)
    #: The blob on its way: its bytes, where it goes, and whether its closing PUT was sent.
    underway: tuple[bytes, str, bool] | None = None
    fault: BaseException | None = None

    def __attrs_post_init__(self) -> None:
        """Be a thread that does not outlive the test."""
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
        """One image: its blobs, then the manifest under a tag of its own and under latest."""
        size = random.Random(f"{self.seed}-{number}").randrange(100, 900_000)
        made = image((self.seed, number), size=size)
        for digest, blob in made.blobs.items():
            self.ledger.attempted[self.name, digest] = blob
            self.push_blob(digest, blob)
            self.ledger.blobs[self.name, digest] = blob
        for tag in (f"{self.seed}-{number}", "latest"):
            self.remote.push_manifest(self.name, tag, made)
            self.ledger.tags[self.name, tag] = made
            self.countdown.step()

    def push_blob(self, digest: str, blob: bytes) -> None:
        """POST, a streamed PATCH, PUT; what is known of it is kept in ``underway``."""
        location = self.remote.start_upload(self.name)
        self.countdown.step()
        self.underway = (blob, location, False)
        location = stream(self.remote, location, blob, self.countdown.step)
        self.countdown.step()
        self.underway = (blob, location, True)
        closed = self.remote.request("PUT", with_digest(location, digest), b"")
        assert closed.status == 201, closed
        self.countdown.step()
        self.underway = None


def stream(remote: Remote, location: str, data: bytes, step) -> str:
    """PATCH ``data`` piece by piece in one chunked request; answers where it goes on."""

    def pieces():
        for start in range(0, len(data), PIECE):
            yield data[start : start + PIECE]
            step()

    split = urlsplit(location)
    connection = HTTPConnection(remote.address, timeout=60)
    try:
        connection.request(
            "PATCH",
            f"{split.path}?{split.query}",
            pieces(),
            {"Content-Type": "application/octet-stream"},
            encode_chunked=True,
        )
        response = connection.getresponse()
        response.read()
        assert response.status == 202, response.status
        return response.headers["Location"]
    finally:
        connection.close()


def path_of(location: str) -> str:
    """A Location without its host, which changes when the server starts again."""
    split = urlsplit(location)
    return split.path + (f"?{split.query}" if split.query else "")


def assert_promises(remote: Remote, client: Client) -> None:
    """What was promised is whole; what was not is whole or not there."""
    ledger = client.ledger
    for (name, digest), blob in ledger.blobs.items():
        answer = remote.blob(name, digest)
        assert answer.status == 200, (digest, answer)
        assert answer.body == blob, digest
    for name, digest in ledger.attempted:
        answer = remote.blob(name, digest)
        assert answer.status in {200, 404}, (digest, answer)
        if answer.status == 200:
            assert sha256(answer.body) == digest
    for (name, tag), made in ledger.tags.items():
        if tag != "latest":
            remote.assert_holds(name, made, tag)


def assert_visible(remote: Remote, clients: list[Client]) -> None:
    """The lists hold what was promised, and all that they hold is whole."""
    catalog = set(remote.catalog())
    for name in {client.name for client in clients}:
        promised = {tag for client in clients for each, tag in client.ledger.tags if each == name}
        if not promised:
            continue
        assert name in catalog
        tags = remote.tags(name)
        assert promised <= set(tags)
        for tag in tags:
            remote.assert_whole(name, tag)


def resume(remote: Remote, client: Client) -> bool:
    """Bring the interrupted blob to its end; answers whether there was an upload to go on."""
    if client.underway is None:
        return False
    blob, location, closing = client.underway
    digest, location = sha256(blob), path_of(location)
    status = remote.request("GET", location)
    if status.status == 404:
        assert closing, "an upload that was answered 202 is lost"
        remote.push_blob(client.name, blob)
    else:
        assert status.status == 204, status
        # 0-0 is what an empty upload shows; none here stands at one byte.
        last = int(status.headers["range"].partition("-")[2])
        offset = last + 1 if last else 0
        assert offset <= len(blob)
        location = path_of(status.headers["location"])
        if offset < len(blob):
            rest = blob[offset:]
            fields = {
                "Content-Range": f"{offset}-{len(blob) - 1}",
                "Content-Type": "application/octet-stream",
            }
            answer = remote.request("PATCH", location, rest, fields)
            assert answer.status == 202, answer
            location = path_of(answer.headers["location"])
        answer = remote.request("PUT", with_digest(location, digest), b"")
        assert answer.status == 201, answer
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
        for client in clients:
            client.start()
        assert countdown.reached.wait(60), "the clients came to a halt"
        # Not always right after an answer: a moment later a commit may be half done.
        threading.Event().wait(chance.random() * 0.02)
        served.kill()
        for client in clients:
            client.join(60)
            assert not client.is_alive()
            assert client.fault is None, client.fault

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
    assert resumed
