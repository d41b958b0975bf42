"""A registry without HTTP for the tests of the domain, and doubles for its plug-ins."""

from __future__ import annotations

import json

from attrs import define, field
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer

from tests.repository.watched_driver import WatchedDriver
from tests.storage.filesystem.power_loss import PowerLossFiles, Survival, driver_on
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.manifest import OCI_IMAGE, OCI_INDEX
from twisted_registry.repository.interfaces import Event, IRegistryListener, Origin
from twisted_registry.repository.policy import Policy
from twisted_registry.repository.presence import NullGate
from twisted_registry.repository.registry import Registry
from twisted_registry.storage.checked import CheckedDriver
from twisted_registry.storage.memory import MemoryDriver

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG = "application/vnd.oci.image.config.v1+json"
ROOT = "docker/registry/v2"
ORIGIN = Origin(user="somebody", address="192.0.2.1")


def begin(coroutine):
    """Start a coroutine. An error that no test reads does not fail another test."""
    return Deferred.fromCoroutine(coroutine)


def result_of(deferred):
    """Return the result of a Deferred that has fired, or raise its error."""
    results = []
    deferred.addBoth(results.append)
    assert results, "it has not fired"
    if isinstance(results[0], Failure):
        results[0].raiseException()
    return results[0]


def done(coroutine):
    """Run a coroutine that does not wait, and return its result."""
    return result_of(begin(coroutine))


async def listed(iterator):
    return [item async for item in iterator]


class ClientGone(Exception):
    """The client has disconnected."""


@implementer(IBodyProducer)
class Body:
    """A body that arrives at once: pieces, then its end or an error."""

    def __init__(self, *pieces, error=None, length=UNKNOWN_LENGTH):
        self.pieces = pieces
        self.error = error
        self.length = length
        self.started = False

    def startProducing(self, consumer):
        self.started = True
        for piece in self.pieces:
            consumer.write(piece)
        return succeed(None) if self.error is None else fail(self.error)

    def pauseProducing(self):
        pass

    def resumeProducing(self):
        pass

    def stopProducing(self):
        pass


@implementer(IBodyProducer)
class SlowBody:
    """A body whose pieces arrive when the test says."""

    length = UNKNOWN_LENGTH

    def __init__(self):
        self.consumer = None
        self.stopped = self.cancelled = False

    def startProducing(self, consumer):
        self.consumer = consumer
        self.over = Deferred(self._cancel)
        return self.over

    def _cancel(self, _):
        self.cancelled = True

    def arrive(self, piece):
        self.consumer.write(piece)

    def end(self):
        self.over.callback(None)

    def leave(self):
        self.over.errback(ClientGone())

    def pauseProducing(self):
        pass

    def resumeProducing(self):
        pass

    def stopProducing(self):
        self.stopped = True
        self.leave()


@implementer(IRegistryListener)
class Listener:
    def __init__(self):
        self.events = []

    def handle_event(self, event):
        assert isinstance(event, Event)
        assert event.origin == ORIGIN
        self.events.append(event)

    def take(self):
        """Return and forget the events."""
        events, self.events = self.events, []
        return events

    def brief(self):
        return [(event.action, event.kind, event.tag) for event in self.take()]


class Gate(NullGate):
    """A gate that admits everything but the condemned digests."""

    def __init__(self):
        self.condemned = set()
        self.asked = []

    def may_report_present(self, repository, digest):
        self.asked.append((repository, digest))
        return succeed(digest not in self.condemned)


def referrers_in(repository, subject, after="", artifact_type=None):
    """Return the digests on a page of referrers, which is the last."""
    page = done(repository.referrers.page(subject, after, artifact_type, max_bytes=4 * 2**20))
    assert page.last is None
    return [Digest.parse(json.loads(one)["digest"]) for one in page.descriptors]


@define(eq=False)
class World:
    """A store, and a registry over it that can be restarted."""

    can_peek = False

    clock: Clock = field(factory=Clock)
    policy: Policy = field(factory=Policy)
    memory: MemoryDriver = field()
    driver: WatchedDriver = field()
    listener: Listener = field(factory=Listener)
    gate: Gate = field(factory=Gate)
    #: None removes content for good.
    deleter: object = None
    registry: Registry = field(init=False)

    @memory.default
    def _memory(self):
        return MemoryDriver(self.clock)

    @driver.default
    def _driver(self):
        return WatchedDriver(CheckedDriver(self.memory, self.clock), can_peek=self.can_peek)

    def __attrs_post_init__(self):
        self.restart()

    def restart(self):
        """Replace the process: its locks and caches are gone, the store stays."""
        self.driver.close_writers()
        self.driver = WatchedDriver(CheckedDriver(self.memory, self.clock), can_peek=self.can_peek)
        self.registry = self.another()

    def settle(self):
        """Let the time pass that stores need before files are cached."""

    def another(self):
        """Return the registry of a second process."""
        other = {} if self.deleter is None else {"deleter": self.deleter}
        return Registry(
            self.driver,
            self.clock,
            policy=self.policy,
            gate=self.gate,
            listener=self.listener,
            **other,
        )

    def repo(self, name="a/b", registry=None):
        return (registry or self.registry).repository(name, ORIGIN)

    def paths(self, prefix=""):
        return [entry.path for entry in result_of(self.memory.walk(prefix, "", 10**6))]

    def read(self, path):
        return result_of(self.memory.get(path, 10**9))

    def write(self, path, content):
        result_of(self.memory.put(path, content))

    def remove(self, path):
        result_of(self.memory.delete(path))

    def blob(self, content, name="a/b", algorithm="sha256"):
        digest = Digest.of(content, algorithm)
        assert done(self.repo(name).uploads.store_blob(digest, Body(content))) == len(content)
        return digest

    def image(self, tag=None, name="a/b", media_type=OCI_IMAGE, **fields):
        """Push an image with its blobs."""
        for content in (b"{}", b"layer"):
            self.blob(content, name)
        return self.put(image(**fields), media_type, tag, name)

    def put(self, content, media_type, tag=None, name="a/b", precondition=None):
        digest = Digest.of(content)
        tags = [] if tag is None else [tag]
        done(self.repo(name).manifests.put(digest, content, media_type, tags, precondition))
        return digest

    def tags(self, name="a/b"):
        names, more = done(self.repo(name).tags.page("", 10**6))
        assert not more
        return names

    def referrers(self, subject, name="a/b"):
        """Return the listed referrers."""
        return referrers_in(self.repo(name), subject)

    def check(self):
        """Check that each digest has its bytes, and that each tag names an existing manifest."""
        for path in self.paths(ROOT):
            parts = path.removeprefix(f"{ROOT}/").split("/")
            if parts[0] == "blobs":
                assert Digest(parts[1], parts[3]).matches(self.read(path)), path
            elif path.endswith("/current/link"):
                name = path.removeprefix(f"{ROOT}/repositories/").partition("/_manifests")[0]
                digest = Digest.parse(self.read(path).decode())
                assert done(self.repo(name).manifests.get_parsed(digest)) is not None, path
            elif path.endswith("/link"):
                assert self.read(path).decode() == ":".join(parts[-3:-1]), path
                if "_referrers" not in parts:
                    digest = Digest(*parts[-3:-1])
                    assert self.exists(
                        f"{ROOT}/blobs/{digest.algorithm}/{digest.hex[:2]}/{digest.hex}/data"
                    )

    def exists(self, path):
        found = []
        self.memory.stat(path).addCallbacks(found.append, lambda _: None)
        return bool(found)


class PeekWorld(World):
    """A store with ``peek``, so that links and manifests are cached."""

    can_peek = True


class DiskWorld(World):
    """A world over the filesystem driver, on a disk in memory."""

    files = PowerLossFiles

    def __init__(self):
        self.disk = self.files()
        clock = Clock()
        super().__init__(clock=clock, memory=driver_on(self.disk, clock))

    def restart(self):
        self.disk = self.disk.remount(Survival.ALL)
        self.memory = driver_on(self.disk, self.clock)
        self.driver = WatchedDriver(CheckedDriver(self.memory, self.clock), can_peek=self.can_peek)
        self.registry = self.another()

    def settle(self):
        self.clock.advance(1)

    def check(self):
        super().check()
        # All files are closed.
        assert self.disk.descriptors == 0


def descriptor(content, media_type=LAYER, **fields):
    return {
        "mediaType": media_type,
        "digest": str(Digest.of(content)),
        "size": len(content),
        **fields,
    }


def image(**fields):
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_IMAGE,
            "config": descriptor(b"{}", CONFIG),
            "layers": [descriptor(b"layer")],
            **fields,
        }
    ).encode()


def index(*children, **fields):
    return json.dumps(
        {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(children), **fields}
    ).encode()
