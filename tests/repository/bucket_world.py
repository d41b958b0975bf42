"""A registry over a bucket, for the tests of the domain."""

from __future__ import annotations

from twisted.internet.task import Clock

from tests.repository.watched_driver import WatchedDriver
from tests.repository.worlds import World
from tests.storage.s3.fake_bucket import FakeBucket
from tests.support.inline_thread import InlineThread
from twisted_registry.storage.checked import CheckedDriver
from twisted_registry.storage.s3.driver import S3Driver
from twisted_registry.storage.s3.interfaces import ObjectInfo


class Timed(dict):
    """Objects, and the times at which they were stored."""

    def __init__(self, clock):
        self.clock = clock
        self.times = {}

    def __setitem__(self, key, stored):
        super().__setitem__(key, stored)
        self.times[key] = int(self.clock.seconds() * 1e9)


class TimedBucket(FakeBucket):
    """A bucket with the times of a clock."""

    def info(self, key):
        stored = self.found(key)
        return ObjectInfo(
            key, len(stored.content), stored.etag, self.objects.times[key], stored.metadata
        )


def driver_on(bucket):
    return S3Driver(bucket, Clock(), threads=InlineThread())


class BucketWorld(World):
    """A world in a bucket.

    :ivar make_bucket: the class of the bucket.
    """

    make_bucket = TimedBucket

    def __init__(self):
        clock = Clock()
        self.bucket = self.make_bucket(objects=Timed(clock))
        super().__init__(clock=clock, memory=driver_on(self.bucket))

    def restart(self):
        self.memory = driver_on(self.bucket)
        self.driver = WatchedDriver(CheckedDriver(self.memory, self.clock))
        self.registry = self.another()

    def exists(self, path):
        return path in self.paths()
