"""Helpers for tests of manifests."""

from __future__ import annotations

import json

import pytest

from tests.repository.worlds import CONFIG, World, descriptor, done
from twisted_registry.oci.errors import RegistryError
from twisted_registry.repository.policy import Policy

OTHER = "application/vnd.example.thing.v1+json"
#: An image without a media type, which may be pushed with any image type.
UNTYPED = json.dumps(
    {"schemaVersion": 2, "config": descriptor(b"{}", CONFIG), "layers": []}
).encode()


def refusal(function, *arguments, **options):
    with pytest.raises(RegistryError) as caught:
        function(*arguments, **options)
    return caught.value


def get(world, reference, name="a/b"):
    return done(world.repo(name).manifests.get(reference))


def world_with(**policy):
    """Return a world with a policy and the blobs of an image."""
    world = World(policy=Policy(**policy))
    world.blob(b"{}")
    world.blob(b"layer")
    return world
