"""Publishing of delete lists, and calls of a gate."""

from __future__ import annotations

from attrs import evolve
from twisted.internet.defer import maybeDeferred

from tests.repository.worlds import World, result_of
from twisted_registry.gc.delete_list import DeleteList, Phase
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.errors import ErrorCode
from twisted_registry.repository import layout

LIST_TTL_S = 120.0
BLOB = Digest.of(b"blob")
MANIFEST = Digest.of(b"manifest")
OTHER = Digest.of(b"other")


class ListPublisher:
    """Publishes delete lists in a world's store."""

    def __init__(self, world):
        self.world = world
        self.number = 0

    def propose(self, *blobs, manifests=(), **changes):
        self.number += 1
        self.list = DeleteList(
            f"list-{self.number}",
            Phase.PROPOSED,
            LIST_TTL_S,
            frozenset(blobs),
            frozenset(manifests),
            **changes,
        )
        self.publish()

    def condemn(self):
        """Condemn what was proposed, without what has a lease."""
        leased = {Digest.parse(path.replace("/", ":")) for path in self.leases()}
        self.list = evolve(
            self.list,
            phase=Phase.CONDEMNED,
            blobs=self.list.blobs - leased,
            manifests=frozenset(pair for pair in self.list.manifests if pair[1] not in leased),
        )
        self.publish()

    def publish(self):
        self.world.write(layout.DELETE_LIST, self.list.to_bytes())

    def withdraw(self):
        self.world.remove(layout.DELETE_LIST)

    def leases(self):
        prefix = f"{layout.leases_folder(self.list.id)}/"
        return {path.removeprefix(prefix) for path in self.world.paths() if prefix in path}


def may_report_present(gate, digest, repository="a"):
    return result_of(maybeDeferred(gate.may_report_present, repository, digest))


async def hold(gate, digest, until=None, repository="a"):
    async with gate.protect_push(repository, digest):
        if until is not None:
            await until


def refused(world, protect_push):
    """Check that a push is refused after 20 seconds, with a Retry-After header."""
    failures = []
    protect_push.addErrback(failures.append)
    world.clock.pump([1.0] * 19)
    assert failures == []
    world.clock.pump([1.0] * 2)
    error = failures[0].value
    assert (error.code, error.http_status) == (ErrorCode.UNAVAILABLE, 503)
    assert error.headers == (("Retry-After", "10"),)


def lease(digest):
    return f"{digest.algorithm}/{digest.hex}"


def late_world():
    """Return a world whose clock does not start at 0."""
    world = World()
    world.clock.advance(1_000_000)
    return world
