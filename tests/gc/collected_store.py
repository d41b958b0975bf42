"""A store with a collector and serving processes, and a clock that the test controls."""

from __future__ import annotations

from twisted.python.failure import Failure

from tests.repository.worlds import begin, done, result_of
from tests.support.inline_thread import InlineThread
from twisted_registry.gc.collector import Collector
from twisted_registry.gc.gate import CollectorGate
from twisted_registry.gc.mark import CollectorObserver
from twisted_registry.gc.reference_db import ReferenceDatabase
from twisted_registry.gc.sweep import Sweeper
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.errors import RegistryError
from twisted_registry.repository import layout
from twisted_registry.repository.inventory import Inventory

DAY = 86_400.0
#: Settings of a collection that removes untagged manifests as well.
UNTAGGED = {"untagged": True}


def drive(world, coroutine, seconds=300):
    """Run a coroutine to its end, and advance the clock while it waits."""
    results = []
    begin(coroutine).addBoth(results.append)
    for _ in range(seconds * 4):
        if results:
            break
        world.clock.advance(0.25)
    (result,) = results
    if isinstance(result, Failure):
        result.raiseException()
    return result


class RecordingObserver(CollectorObserver):
    def __init__(self):
        self.names = []
        self.manifests, self.blobs = [], []
        self.progress = []
        self.kept = set()

    def repository_started(self, name):
        self.names.append(name)

    def manifest_kept(self, name, digest):
        self.kept.add((name, digest))

    def eligible(self, manifests, blobs):
        self.manifests += manifests
        self.blobs += blobs

    def removed(self, done, total):
        self.progress.append((done, total))


class Store:
    """A store with a collector, and as many serving processes as a test starts."""

    def __init__(self, world):
        self.world = world
        world.clock.advance(1_800_000_000)
        self.observer = RecordingObserver()
        self.references = ReferenceDatabase(":memory:", InlineThread())

    def collector(self, grace=DAY, **settings):
        return Collector(
            Inventory(self.world.driver),
            Sweeper(self.world.driver),
            self.references,
            self.world.clock,
            grace,
            observer=self.observer,
            **settings,
        )

    def collect(self, **settings):
        return drive(self.world, self.collector(**settings).run())

    def close(self):
        """Close the database of references."""
        result_of(self.references.close())

    def age(self, seconds=2 * DAY):
        self.world.clock.advance(seconds)

    def serve(self):
        """Start to serve, and return the gate; the test polls it."""
        gate = CollectorGate(self.world.driver, self.world.clock, recent_s=600.0)
        done(gate.poll())
        self.world.gate = gate
        self.world.registry = self.world.another()
        return gate

    def holds(self, content):
        return layout.blob_data(Digest.of(content)) in self.world.paths()

    def is_whole(self, digest, name="a/b"):
        """Return whether a manifest can be pulled with everything that it needs."""
        held = done(self.world.repo(name).manifests.get_parsed(digest))
        if held is None:
            return False
        _, manifest = held
        blobs = done_each(
            self.world.registry.repository(name).blobs.size(blob.digest) for blob in manifest.blobs
        )
        return blobs and all(self.is_whole(child.digest, name) for child in manifest.manifests)


def done_each(coroutines):
    try:
        return all(done(coroutine) is not None for coroutine in coroutines)
    except RegistryError:
        return False


def heartbeats_running(store, gate):
    """Poll a gate periodically."""

    def poll():
        done(gate.poll())
        store.world.clock.callLater(1, poll)

    poll()
