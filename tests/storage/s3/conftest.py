"""Fixtures: a client over a fake Agent, drivers over a fake bucket, real stores."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from tests.storage.s3.fake_agent import NOW, Agent, make_client
from tests.storage.s3.fake_bucket import FakeBucket
from tests.storage.s3.upload_helpers import CHUNK
from twisted_registry.storage.s3.driver import S3Driver
from twisted_registry.storage.s3.interfaces import IS3Client


@pytest.fixture
def clock():
    clock = Clock()
    clock.advance(NOW)
    yield clock
    assert clock.getDelayedCalls() == []


@pytest.fixture
def agent():
    return Agent()


@pytest.fixture
def client(clock, agent):
    client = make_client(clock, agent)
    verifyObject(IS3Client, client)
    return client


@pytest.fixture(
    params=[
        pytest.param("swift", marks=pytest.mark.integration),
        pytest.param("ceph", marks=pytest.mark.integration),
    ]
)
def store(request, object_stores):
    return object_stores.get(request.param)


@pytest.fixture
def bucket():
    return FakeBucket()


@pytest_twisted.async_yield_fixture
async def machines(bucket):
    """Two drivers over one bucket, as of two processes."""
    drivers = [S3Driver(bucket, reactor, "root", CHUNK) for _ in range(2)]
    yield drivers
    for driver in drivers:
        await driver.close()


@pytest.fixture
def driver(machines):
    return machines[0]
