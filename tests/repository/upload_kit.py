"""Steps of an upload, for tests."""

from __future__ import annotations

from tests.repository.worlds import Body, done
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.repository import layout

A, B = b"a" * 10, b"b" * 10
BOTH = Digest.of(A + B)


def start(world):
    return done(world.repo().uploads.start()).id


def find(world, upload_id, registry=None):
    return done(world.repo(registry=registry).uploads.find(upload_id))


def is_known(world, upload_id):
    try:
        find(world, upload_id)
    except RegistryError as error:
        if error.code is not ErrorCode.BLOB_UPLOAD_UNKNOWN:
            raise
        return False
    return True


def append(world, upload_id, *pieces, **options):
    return done(find(world, upload_id).append(Body(*pieces), **options))


def finish(world, upload_id, digest, *pieces, **options):
    body = Body(*pieces) if pieces else None
    return done(find(world, upload_id).finish(digest, body, **options))


def size_of(world, digest, name="a/b"):
    return done(world.repo(name).store.presence.blob_size(name, digest))


def reads(world):
    """Return how often the bytes of an upload were read."""
    return sum(action == "open" for action, _ in world.driver.calls)


def folder(upload_id):
    return layout.upload_folder("a/b", upload_id)
