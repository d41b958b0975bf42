"""Clients of the soak: they push, pull, list, mount and delete, slowly, and leave at random."""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from collections import Counter
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from attrs import define, field, frozen

from tests.support.manifests import OCI_IMAGE, digest_of, image
from tests.support.passwords import basic_header

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

REPOSITORIES = [f"team/app-{number}" for number in range(20)]
USERS = {"ada": "ada-knows-this", "bob": "bob-knows-this"}
#: Layers that many images have.
SHARED = [random.Random(number).randbytes(30_000) for number in range(40)]
#: Names of images in each repository. Their content is always the same, so that bounded caches fill
#: soon, and what grows afterwards is a leak.
TAGS = [f"{kind}-{number}" for kind in ("image", "referrer") for number in range(25)]
#: After a client has left in the middle, its last request may still be served for this long.
UNKNOWN_S = 30
#: Above this number of images, clients delete.
MAX_IMAGES = 300
#: A request without a response for this long is a failure.
MAX_RESPONSE_S = 60
#: Below the idle timeout of the registry.
MAX_PAUSE_S = 40


class Unexpected(Exception):
    """A response that fails the soak."""


@frozen
class Pushed:
    """An image whose push was answered 201."""

    repository: str
    tag: str
    digest: str
    blobs: tuple[tuple[str, int], ...]


@define(eq=False)
class Ledger:
    """What all clients know and found.

    :ivar images: those that were pushed, and that nobody has begun to delete.
    :ivar reserved: images that a client pushes or deletes, and until when; nobody else does.
    :ivar lost: connections that neither end should have closed: when they were opened, and when
        the loss was noticed.
    """

    images: dict[tuple[str, str], Pushed] = field(factory=dict)
    reserved: dict[tuple[str, str], float] = field(factory=dict)
    counts: Counter[str] = field(factory=Counter)
    failures: list[str] = field(factory=list)
    lost: list[tuple[float, float]] = field(factory=list)

    @contextmanager
    def reservation(self, key: tuple[str, str]) -> Iterator[bool]:
        """Reserve an image for the block; gives whether nobody else had it."""
        if self.reserved.get(key, 0) > time.monotonic():
            yield False
            return
        self.reserved[key] = math.inf
        done = False
        try:
            yield True
            done = True
        finally:
            self.reserved[key] = 0 if done else time.monotonic() + UNKNOWN_S

    def has(self, pushed: Pushed) -> bool:
        return self.images.get((pushed.repository, pushed.tag)) is pushed


@frozen
class Response:
    status: int
    headers: Mapping[str, str]
    body: bytes


@define(eq=False)
class Client:
    """A client in one repository, with one connection at a time.

    :ivar pause_s: the mean time between two actions, in seconds.
    """

    number: int
    port: int
    ledger: Ledger
    pause_s: float
    random: random.Random = field(init=False)
    repository: str = field(init=False)
    other: str = field(init=False)
    user: str = field(init=False)
    _reader: asyncio.StreamReader | None = field(init=False, default=None)
    _writer: asyncio.StreamWriter | None = field(init=False, default=None)
    _opened_at: float = field(init=False, default=0.0)
    _token: str = field(init=False, default="")

    def __attrs_post_init__(self) -> None:
        self.random = random.Random(self.number)
        self.repository = REPOSITORIES[self.number % len(REPOSITORIES)]
        self.other = REPOSITORIES[(self.number * 7 + 1) % len(REPOSITORIES)]
        self.user = sorted(USERS)[self.number % len(USERS)]

    async def run(self) -> None:
        """Act until cancelled."""
        try:
            await self._pause(self.random.uniform(0, 2 * self.pause_s))
            while True:
                await self._act_once()
                await self._pause(min(self.random.expovariate(1 / self.pause_s), MAX_PAUSE_S))
        finally:
            self.leave()

    async def _pause(self, seconds: float) -> None:
        """Wait with an open connection."""
        try:
            async with asyncio.timeout(seconds):
                reader, _ = await self._connect()
                while not await reader.read(1):
                    await self._lose()
                    reader, _ = await self._connect()
                self.ledger.failures.append("bytes without a request")
        except TimeoutError:
            pass
        except OSError:
            await self._lose()

    async def _lose(self) -> None:
        """Record a lost connection."""
        self.ledger.lost.append((self._opened_at, time.monotonic()))
        self.leave()
        await asyncio.sleep(self.random.uniform(0, 2))

    async def _act_once(self) -> None:
        """Act; sometimes leave in the middle, or afterwards."""
        action = self._choose()
        leaves_early = self.random.random() < 0.1
        try:
            async with asyncio.timeout(self.random.uniform(0, 0.1) if leaves_early else None):
                await action()
        except TimeoutError:
            if not leaves_early:
                self.ledger.failures.append(f"{action.__name__}: no response")
            self.ledger.counts["left early"] += 1
            self.leave()
        except Unexpected as failure:
            self.ledger.failures.append(str(failure))
            self.leave()
        except (OSError, asyncio.IncompleteReadError):
            await self._lose()
        if self.random.random() < 0.1:
            self.leave()

    def _choose(self) -> Callable[[], Awaitable[None]]:
        deletes = len(self.ledger.images) > MAX_IMAGES
        weights = {
            self.push: 25,
            self.pull: 25,
            self.pull_slowly: 5,
            self.pull_range: 10,
            self.list_tags: 10,
            self.list_catalog: 2,
            self.list_referrers: 8,
            self.begin_upload: 5,
            self.delete: 30 if deletes else 3,
        }
        return self.random.choices(list(weights), list(weights.values()))[0]

    # Connections

    def leave(self) -> None:
        """Close the connection; a response in progress makes this a reset."""
        self._drop()
        self._token = ""

    def _drop(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
        self._reader = self._writer = None

    async def request(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        *,
        allowed: tuple[int, ...],
        slowly: bool = False,
        **headers: str,
    ) -> Response:
        """Send a request, with a new token if the registry asks for one.

        :param allowed: the expected statuses; any other is a failure of the soak.
        :param slowly: whether to send, or receive, the body in pieces with pauses.
        """
        for _ in range(2):
            if not self._token:
                self._token = await self._get_token()
            response = await self._exchange(
                method, target, body, slowly, {**headers, "Authorization": f"Bearer {self._token}"}
            )
            if response.status != 401:
                break
            self._token = ""
        self.ledger.counts[f"{method} {response.status}"] += 1
        if response.status not in allowed:
            raise Unexpected(f"{method} {target}: {response.status} {response.body[:300]!r}")
        return response

    async def _get_token(self) -> str:
        scopes = [
            f"repository:{self.repository}:pull,push,delete",
            f"repository:{self.other}:pull",
            "registry:catalog:*",
        ]
        query = urlencode([("service", "registry"), *[("scope", scope) for scope in scopes]])
        login = {"Authorization": basic_header(self.user, USERS[self.user])}
        response = await self._exchange("GET", f"/auth/token?{query}", b"", False, login)
        self.ledger.counts[f"token {response.status}"] += 1
        if response.status != 200:
            raise Unexpected(f"token: {response.status} {response.body[:300]!r}")
        return json.loads(response.body)["token"]

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._reader is None or self._writer is None:
            self._opened_at = time.monotonic()
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port)
        return self._reader, self._writer

    async def _exchange(
        self, method: str, target: str, body: bytes, slowly: bool, headers: Mapping[str, str]
    ) -> Response:
        reader, writer = await self._connect()
        fields = {"Host": "localhost", "Content-Length": str(len(body)), **headers}
        lines = [f"{method} {target} HTTP/1.1", *[f"{name}: {fields[name]}" for name in fields]]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n")
        step = max(1, len(body) // 8) if slowly else max(1, len(body))
        for start in range(0, len(body), step):
            if slowly:
                await asyncio.sleep(0.3)
            writer.write(body[start : start + step])
            await writer.drain()
        async with asyncio.timeout(MAX_RESPONSE_S):
            return await self._read_response(reader, method, slowly)

    async def _read_response(
        self, reader: asyncio.StreamReader, method: str, slowly: bool
    ) -> Response:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head[1:] if line)
        }
        status, body = int(head[0].split(" ")[1]), b""
        if method != "HEAD" and status not in {204, 304}:
            left = int(headers["content-length"])
            while left:
                if slowly:
                    await asyncio.sleep(0.3)
                piece = await reader.readexactly(min(left, 8192) if slowly else left)
                body, left = body + piece, left - len(piece)
        if headers.get("connection") == "close":
            self._drop()
        return Response(status, headers, body)

    # Actions

    def _target(self, rest: str) -> str:
        return f"/v2/{self.repository}/{rest}"

    def _any_image(self) -> Pushed | None:
        mine = [each for each in self.ledger.images.values() if each.repository == self.repository]
        return self.random.choice(mine) if mine else None

    def _count_if_lost(self, pushed: Pushed, response: Response) -> None:
        """Report content that is missing although nobody has begun to delete it."""
        if response.status == 404 and self.ledger.has(pushed):
            self.ledger.failures.append(f"{pushed} is missing: {response.body!r}")

    async def push(self) -> None:
        """Push an image, if nobody else does."""
        name = self.random.choice(TAGS)
        with self.ledger.reservation((self.repository, name)) as reserved:
            if reserved:
                await self._push(name)

    async def _push(self, name: str) -> None:
        """Push an image with a layer of its own and a layer that others have, too."""
        rng = random.Random(f"{self.repository} {name}")
        config = json.dumps({"name": name, "repository": self.repository}).encode()
        shared = rng.choice(SHARED)
        own = rng.randbytes(rng.choice([100, 5_000, 50_000]))
        more = {}
        if name.startswith("referrer"):
            subject = digest_of(name.encode())
            more["subject"] = {"mediaType": OCI_IMAGE, "digest": subject, "size": 500}
        content = image(config, shared, own, **more)
        target = self._target(f"manifests/{name}")
        for _ in range(3):
            await self._push_shared(shared)
            for blob in (config, own):
                await self._push_blob(blob)
            # The collector may delete a blob that is in no image yet, as it may with any client.
            response = await self.request(
                "PUT", target, content, allowed=(201, 400), **{"Content-Type": OCI_IMAGE}
            )
            if response.status == 201:
                blobs = tuple((digest_of(blob), len(blob)) for blob in (config, shared, own))
                pushed = Pushed(self.repository, name, digest_of(content), blobs)
                self.ledger.images[self.repository, name] = pushed
                self.ledger.counts["pushes"] += 1
                return
        self.ledger.failures.append(f"{target}: {response.body[:300]!r} three times")

    async def _push_shared(self, blob: bytes) -> None:
        digest = digest_of(blob)
        found = await self.request("HEAD", self._target(f"blobs/{digest}"), allowed=(200, 404))
        if found.status == 200:
            return
        query = urlencode({"mount": digest, "from": self.other})
        mounted = await self.request(
            "POST", self._target(f"blobs/uploads/?{query}"), allowed=(201, 202)
        )
        if mounted.status == 202:
            await self._finish(mounted, blob, digest)

    async def _push_blob(self, blob: bytes) -> None:
        digest = digest_of(blob)
        if self.random.random() < 0.4:
            target = self._target(f"blobs/uploads/?digest={digest}")
            slowly = self.random.random() < 0.3
            await self.request("POST", target, blob, allowed=(201,), slowly=slowly)
            return
        begun = await self.request("POST", self._target("blobs/uploads/"), allowed=(202,))
        half = len(blob) // 2
        location = begun.headers["location"]
        if self.random.random() < 0.5:
            sent = await self.request(
                "PATCH", _path(location), blob[:half], allowed=(202,), slowly=True
            )
            await self._finish(sent, blob[half:], digest)
        else:
            await self._finish(begun, blob, digest)

    async def _finish(self, begun: Response, rest: bytes, digest: str) -> None:
        location = _path(begun.headers["location"])
        await self.request("PUT", f"{location}&digest={digest}", rest, allowed=(201,))

    async def begin_upload(self) -> None:
        """Begin an upload and forget about it."""
        begun = await self.request("POST", self._target("blobs/uploads/"), allowed=(202,))
        await self.request("PATCH", _path(begun.headers["location"]), b"some", allowed=(202,))

    async def pull(self) -> None:
        """Pull an image, and check what is received."""
        pushed = self._any_image()
        if pushed is None:
            return
        target = self._target(f"manifests/{pushed.tag}")
        response = await self.request("GET", target, allowed=(200, 404))
        self._count_if_lost(pushed, response)
        if response.status == 200 and digest_of(response.body) != pushed.digest:
            self.ledger.failures.append(f"{target}: is {digest_of(response.body)}")
        for digest, _ in pushed.blobs:
            await self._pull_blob(pushed, digest)

    async def pull_slowly(self) -> None:
        """Pull a layer in pieces, with pauses."""
        pushed = self._any_image()
        if pushed is not None:
            await self._pull_blob(pushed, pushed.blobs[-1][0], slowly=True)

    async def _pull_blob(self, pushed: Pushed, digest: str, *, slowly: bool = False) -> None:
        target = self._target(f"blobs/{digest}")
        response = await self.request("GET", target, allowed=(200, 404), slowly=slowly)
        self._count_if_lost(pushed, response)
        if response.status == 200 and digest_of(response.body) != digest:
            self.ledger.failures.append(f"{target}: is {digest_of(response.body)}")

    async def pull_range(self) -> None:
        """Pull a part of a layer."""
        pushed = self._any_image()
        if pushed is None:
            return
        digest, size = pushed.blobs[-1]
        first = self.random.randrange(size)
        last = self.random.randrange(first, size)
        response = await self.request(
            "GET",
            self._target(f"blobs/{digest}"),
            allowed=(206, 404),
            Range=f"bytes={first}-{last}",
        )
        self._count_if_lost(pushed, response)
        if response.status == 206 and len(response.body) != last - first + 1:
            self.ledger.failures.append(f"{digest} {first}-{last}: {len(response.body)} bytes")

    async def list_tags(self) -> None:
        """List tags, page by page."""
        target: str | None = self._target("tags/list?n=50")
        while target:
            # A repository without an image is unknown.
            response = await self.request("GET", target, allowed=(200, 404))
            link = response.headers.get("link", "")
            target = link.partition("<")[2].partition(">")[0] and _path(link[1:].partition(">")[0])

    async def list_catalog(self) -> None:
        """List repositories."""
        await self.request("GET", "/v2/_catalog?n=5", allowed=(200,))

    async def list_referrers(self) -> None:
        """List what refers to an image, which need not exist."""
        pushed = self._any_image()
        if pushed is None:
            return
        subject = digest_of(pushed.tag.encode())
        response = await self.request("GET", self._target(f"referrers/{subject}"), allowed=(200,))
        listed = {entry["digest"] for entry in json.loads(response.body)["manifests"]}
        if (
            pushed.tag.startswith("referrer")
            and pushed.digest not in listed
            and self.ledger.has(pushed)
        ):
            self.ledger.failures.append(f"{pushed} is not listed")

    async def delete(self) -> None:
        """Delete a tag or an image."""
        pushed = self._any_image()
        if pushed is None:
            return
        key = pushed.repository, pushed.tag
        with self.ledger.reservation(key) as reserved:
            if reserved:
                self.ledger.images.pop(key, None)
                target = self._target(f"manifests/{self.random.choice([key[1], pushed.digest])}")
                await self.request("DELETE", target, allowed=(202, 404))


def _path(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"


async def check_all(port: int, ledger: Ledger) -> int:
    """Pull every image that was pushed and not deleted; return how many.

    What is missing or wrong is added to the failures.
    """
    images = list(ledger.images.values())
    for number, repository in enumerate(REPOSITORIES):
        client = Client(number, port, ledger, pause_s=1)
        assert client.repository == repository
        for pushed in [each for each in images if each.repository == repository]:
            target = f"/v2/{repository}/manifests/{pushed.tag}"
            targets = {target: pushed.digest}
            targets |= {f"/v2/{repository}/blobs/{digest}": digest for digest, _ in pushed.blobs}
            for each, digest in targets.items():
                response = await client.request("GET", each, allowed=(200, 404))
                if digest_of(response.body) != digest:
                    ledger.failures.append(f"{each} of {pushed}: {response.body[:300]!r}")
        client.leave()
    return len(images)


async def run_clients(clients: list[Client]) -> None:
    """Run clients until cancelled."""
    tasks = [asyncio.ensure_future(client.run()) for client in clients]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.wait(tasks)
