"""A registry that collects garbage continuously, while clients push and delete.

As a program, this module is the server: ``python -m tests.integration.racing FILE [--open]`` serves
a configuration with a delay between the check of a manifest's references and its link, so that
the race happens often. ``--open`` replaces the gate by one that ignores the collector.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import asynccontextmanager, suppress
from http.client import HTTPException
from pathlib import Path

from attrs import define, field

from tests.integration.images import noise
from tests.integration.remote import ACCEPT, Remote, Response, RoundRobin, with_digest
from tests.integration.servers import Bucket, answers, wait_until
from tests.support.processes import free_port
from twisted_registry.testing import Blob, Image, build_image

CONFIGURATION = """\
version: 0.1
log: {{level: warn, accesslog: {{disabled: true}}}}
storage:
  {storage}
  delete: {{enabled: true}}
  maintenance:
    gc: {{enabled: true, interval: 1s, grace: {grace}, deleteuntagged: true}}
    trash: {{keep: "{trash}", interval: 2s}}
http:
  addr: "127.0.0.1:{port}"
  workers: {workers}
  secret: the same everywhere
"""
LAYERS = [Blob.from_bytes(noise(("layer", number), 3000)) for number in range(24)]
TAGS = [f"tag-{number}" for number in range(3)]
#: Seconds between the check of a manifest's references and its link.
LINK_DELAY_S = 0.1


class Broken(AssertionError):
    """Acknowledged content is missing."""


@define(eq=False)
class Ledger:
    """What the registry acknowledged to all clients, and counts of events."""

    #: (repository, tag) -> the image that it must name
    tags: dict[tuple[str, str], Image] = field(factory=dict)
    #: digests of blobs whose push was acknowledged at some time
    stored: set[str] = field(factory=set)
    counts: Counter[str] = field(factory=Counter)
    #: the longest response of each kind of request, in seconds
    longest_s: dict[str, float] = field(factory=dict)


@define(eq=False)
class Racer(threading.Thread):
    """A client that pushes, overwrites, mounts, deletes and pulls, in its own repository."""

    number: int
    remote: Remote
    over: threading.Event
    ledger: Ledger
    fault: BaseException | None = None

    def __attrs_post_init__(self) -> None:
        """Initialize the thread as a daemon, so that it does not outlive the test."""
        threading.Thread.__init__(self, daemon=True)
        self.random = random.Random(self.number)
        self.repository = f"team/{self.number}"

    __hash__ = object.__hash__

    def run(self) -> None:
        """Act until ``over`` is set, even when the server is killed."""
        try:
            while not self.over.is_set():
                with suppress(OSError, HTTPException):
                    self.act()
                    continue
                time.sleep(0.05)
        except BaseException as fault:  # noqa: BLE001  a thread's fault is the test's
            self.fault = fault
            self.over.set()

    def act(self) -> None:
        """Push, delete or pull, at random."""
        tag = self.random.choice(TAGS)
        choice = self.random.random()
        if choice < 0.6:
            self.push(tag)
        elif choice < 0.75:
            self.delete(tag)
        elif choice < 0.8:
            self.delete_blob()
        else:
            self.pull(tag)

    def timed(self, kind: str, *request) -> Response:
        """Send a request, and remember the longest of its kind."""
        began = time.monotonic()
        response = self.remote.request(*request)
        took_s = time.monotonic() - began
        self.ledger.longest_s[kind] = max(took_s, self.ledger.longest_s.get(kind, 0.0))
        return response

    def push(self, tag: str) -> None:
        """Push an image of shared layers; start again if the registry refuses it."""
        made = self.image()
        self.ledger.tags.pop((self.repository, tag), None)
        for _ in range(3):
            for blob in made.blobs:
                self.push_blob(blob.digest, blob.read())
            response = self.timed(
                "PUT manifest",
                "PUT",
                f"/v2/{self.repository}/manifests/{tag}",
                made.manifest.read(),
                {"Content-Type": made.media_type},
            )
            self.ledger.counts[f"manifest {response.status}"] += 1
            if response.status == 201:
                self.ledger.tags[self.repository, tag] = made
                return
            assert response.status in {400, 503}, response

    def image(self) -> Image:
        config = b'{"n": %d}' % self.random.randrange(40)
        return build_image(layers=self.random.sample(LAYERS, 3), config=Blob.from_bytes(config))

    def push_blob(self, digest: str, blob: bytes) -> None:
        """Push a blob: check for it first, try to mount it, or send it, at random."""
        how = self.random.random()
        base = f"/v2/{self.repository}/blobs/uploads/"
        location = None
        if how < 0.5:
            response = self.timed("HEAD blob", "HEAD", f"/v2/{self.repository}/blobs/{digest}")
            if response.status == 200:
                return
            if digest in self.ledger.stored:
                self.ledger.counts["swept and pushed again"] += 1
        elif how < 0.8:
            other = f"team/{self.random.randrange(4)}"
            response = self.timed("mount", "POST", f"{base}?mount={digest}&from={other}")
            if response.status == 201:
                return
            assert response.status == 202, response
            location = response.headers["location"]
        location = location or self.remote.start_upload(self.repository)
        response = self.timed("PUT blob", "PUT", with_digest(location, digest), blob)
        if response.status == 201:
            self.ledger.stored.add(digest)
        else:
            # The registry waits for the sweep to end, but not without limit.
            assert response.status == 503, response

    def delete(self, tag: str) -> None:
        """Delete a tag, or its manifest with all its tags."""
        made = self.ledger.tags.pop((self.repository, tag), None)
        if made is not None and self.random.random() < 0.5:
            for (name, other), image in list(self.ledger.tags.items()):
                if name == self.repository and image.digest == made.digest:
                    self.ledger.tags.pop((name, other))
            tag = made.digest
        self.send_delete(f"/v2/{self.repository}/manifests/{tag}", expected=made is not None)

    def delete_blob(self) -> None:
        """Delete a blob that no acknowledged image of the repository needs."""
        images = [made for (name, _), made in self.ledger.tags.items() if name == self.repository]
        needed = {blob.digest for made in images for blob in made.blobs}
        unneeded = [layer.digest for layer in LAYERS if layer.digest not in needed]
        self.send_delete(f"/v2/{self.repository}/blobs/{self.random.choice(unneeded)}")

    def send_delete(self, path: str, *, expected: bool = False) -> None:
        """Delete something, and check that what DELETE calls gone, GET does too.

        :param expected: whether it was acknowledged and not deleted since, so that it is there.
        """
        response = self.timed("DELETE", "DELETE", path)
        assert response.status in {202, 404}, response
        self.ledger.counts["deletes"] += 1
        if response.status == 404:
            self.ledger.counts["deletes 404"] += 1
            found = self.remote.request("GET", path, None, {"Accept": ACCEPT})
            if expected or found.status != 404:
                raise Broken(f"DELETE {path} was answered 404, GET {found}")

    def pull(self, tag: str) -> None:
        """Check that an acknowledged image is complete, and not denied by HEAD of its digest."""
        made = self.ledger.tags.get((self.repository, tag))
        if made is not None:
            check(self.remote, self.repository, tag, made)
            path = f"/v2/{self.repository}/manifests/{made.digest}"
            response = self.timed("HEAD manifest", "HEAD", path, None, {"Accept": ACCEPT})
            if response.status != 200:
                raise Broken(f"HEAD {path}, which GET serves: {response}")
            self.ledger.counts["pulls"] += 1


def check(remote: Remote, name: str, tag: str, made: Image) -> None:
    """Check that a tag can be pulled completely.

    :raises Broken: if anything is missing or differs.
    """
    response = remote.manifest(name, tag)
    if response.status != 200 or response.body != made.manifest.read():
        raise Broken(f"{name}:{tag}: {response}")
    for blob in made.blobs:
        response = remote.blob(name, blob.digest)
        if response.status != 200 or response.body != blob.read():
            raise Broken(f"{name}:{tag} needs {blob.digest}: {response}")


@define(eq=False)
class Race:
    """One or two servers over one store, their clients, and a thread that kills processes.

    :ivar bucket: the store; if None, the store is a folder.
    """

    work: Path
    workers: int = 1
    gate: bool = True
    grace: str = "2s"
    kills: bool = True
    trash: str = "off"
    bucket: Bucket | None = None
    instances: int = 1
    ledger: Ledger = field(factory=Ledger)
    #: port -> the last server that listens at it
    servers: dict[int, subprocess.Popen[bytes] | None] = field()

    @servers.default
    def _none_yet(self) -> dict[int, subprocess.Popen[bytes] | None]:
        return {free_port(): None for _ in range(self.instances)}

    @property
    def remote(self) -> Remote:
        """A client of the registry."""
        addresses = [f"127.0.0.1:{port}" for port in self.servers]
        # The racers retry requests that failed.
        if self.instances == 1:
            return Remote(addresses[0])
        return RoundRobin(addresses, attempts=1)

    def run(self, seconds: float) -> None:
        """Race for ``seconds``; raise the first fault of a client."""
        self.start()
        over = threading.Event()
        racers = [Racer(number, self.remote, over, self.ledger) for number in range(4)]
        for racer in racers:
            racer.start()
        chance = random.Random(7)
        until = time.monotonic() + seconds
        try:
            while time.monotonic() < until and not over.wait(chance.uniform(4, 8)):
                if self.kills:
                    self.kill_one(chance)
        finally:
            over.set()
            for racer in racers:
                racer.join(60)
        for racer in racers:
            if racer.fault is not None:
                raise racer.fault

    def start(self) -> None:
        """Start the servers that do not run, and wait until they respond."""
        for port, process in self.servers.items():
            if process is None or process.poll() is not None:
                self.servers[port] = self._start(port)

    def _start(self, port: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.integration.racing", str(self._configured(port))]
        log = self.work / f"race-{port}.log"
        with log.open("ab") as out:
            process = subprocess.Popen(
                [*command, *([] if self.gate else ["--open"])],
                cwd=Path(__file__).parents[2],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        wait_until(lambda: answers(f"127.0.0.1:{port}"), process, log)
        return process

    def _configured(self, port: int) -> Path:
        store = f"filesystem: {{rootdirectory: {self.work / 'store'}}}"
        path = self.work / f"race-{port}.yml"
        path.write_text(
            CONFIGURATION.format(
                storage=store if self.bucket is None else self.bucket.section,
                grace=self.grace,
                port=port,
                workers=self.workers,
                trash=self.trash,
            )
        )
        return path

    def kill_one(self, chance: random.Random) -> None:
        """Kill one of the serving processes; restart it unless its parent does."""
        parents = [process.pid for process in self.servers.values()]
        victim = chance.choice([*parents, *(pid for one in parents for pid in children(one))])
        self.ledger.counts["kills"] += 1
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
        for process in self.servers.values():
            if process.pid == victim:
                process.wait()
        self.start()

    def stop(self) -> None:
        """Stop the servers."""
        running = [one for one in self.servers.values() if one and one.poll() is None]
        for process in running:
            process.terminate()
        for process in running:
            process.wait(60)

    def log_lines(self) -> list[str]:
        """Return what all servers have logged."""
        paths = [self.work / f"race-{port}.log" for port in self.servers]
        return [line for path in paths for line in path.read_text().splitlines()]

    def delete_all(self) -> None:
        """Delete all manifests with their tags."""
        for name in self.remote.catalog():
            digests = {
                self.remote.manifest(name, tag).headers["docker-content-digest"]
                for tag in self.remote.tags(name)
            }
            for digest in digests:
                response = self.remote.request("DELETE", f"/v2/{name}/manifests/{digest}")
                assert response.status == 202, response

    def check_all(self) -> None:
        """Check that every acknowledged tag that was not deleted can be pulled."""
        for (name, tag), made in self.ledger.tags.items():
            check(self.remote, name, tag, made)

    def collect(self) -> None:
        """Collect while the servers are stopped."""
        subprocess.run(
            [sys.executable, "-m", "twisted_registry", "garbage-collect", "-q", "-m",
             str(self._configured(next(iter(self.servers))))],
            check=True, timeout=300,
        )  # fmt: skip

    def blobs(self) -> set[str]:
        """Return the digests of the stored blobs."""
        if self.bucket is None:
            keys = [str(path) for path in (self.work / "store").rglob("blobs/**/data")]
        else:
            keys = self.bucket.keys()
        found = [re.search(r"/blobs/sha256/../([0-9a-f]{64})/data$", key) for key in keys]
        return {f"sha256:{match[1]}" for match in found if match}


def children(pid: int) -> list[int]:
    """Return the ids of the children of a process."""
    with suppress(OSError):
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [int(word) for word in text.split()]
    return []


def serve() -> int:
    """Run the server; return its exit status."""
    from twisted.internet import reactor
    from twisted.internet.task import deferLater

    from twisted_registry.app import maintenance, service
    from twisted_registry.cli import main
    from twisted_registry.gc.gate import CollectorGate
    from twisted_registry.repository.presence import NullGate

    open_gate = NullGate() if "--open" in sys.argv else None

    class DelayedGate(CollectorGate):
        """Delays a push before its link; with ``--open`` its methods are those of NullGate."""

        @asynccontextmanager
        async def protect_push(self, repository, digest):
            async with (open_gate or super()).protect_push(repository, digest) as held:
                await deferLater(reactor, LINK_DELAY_S, lambda: None)
                yield held

        def may_report_present(self, repository, digest):
            return (open_gate or super()).may_report_present(repository, digest)

        def find_listed(self, repository, digests):
            return (open_gate or super()).find_listed(repository, digests)

        def wait_until_unlisted(self, repository, digests):
            return (open_gate or super()).wait_until_unlisted(repository, digests)

        def poll(self):
            # An open gate has no record, so that no collector waits for it.
            return open_gate.find_listed("", ()) if open_gate else super().poll()

    maintenance.CollectorGate = service.CollectorGate = DelayedGate
    return main(["serve", sys.argv[1]])


if __name__ == "__main__":
    sys.exit(serve())
