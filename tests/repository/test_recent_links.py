"""Links that are remembered for pulls of blobs from a bucket."""

from __future__ import annotations

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.repository.bucket_world import BucketWorld
from tests.repository.worlds import ORIGIN, Body, Gate, begin, done, result_of
from twisted_registry.gc.sweep import Sweeper
from twisted_registry.oci.digest import Digest
from twisted_registry.oci.errors import ErrorCode, RegistryError
from twisted_registry.repository import layout
from twisted_registry.repository.cache import MemoryDescriptorCache
from twisted_registry.repository.recent_links import RECENT_LINK_S, RecentLinks
from twisted_registry.repository.registry import Registry
from twisted_registry.repository.trash import Deleter, TrashDeleter
from twisted_registry.storage.checked import CheckedDriver
from twisted_registry.storage.memory import MemoryDriver

CONTENT = b"content"
DIGEST = Digest.of(CONTENT)
LINK = layout.layer_link("a/b", DIGEST)


@define
class Reads:
    """Reads links; all are valid unless ``valid`` is False."""

    count: int = 0
    valid: bool = True

    async def read(self):
        self.count += 1
        return self.valid

    def ask(self, links, path="link"):
        return done(links.is_valid(path, self.read))


def test_a_link_is_read_once_within_its_time():
    clock, reads = Clock(), Reads()
    links = RecentLinks(clock)
    assert [reads.ask(links), reads.ask(links), reads.count] == [True, True, 1]
    clock.advance(RECENT_LINK_S - 1)
    assert [reads.ask(links), reads.count] == [True, 1]
    clock.advance(1)
    # Uses have not extended it.
    assert [reads.ask(links), reads.count] == [True, 2]


def test_an_invalid_link_is_read_each_time():
    links, reads = RecentLinks(Clock()), Reads(valid=False)
    assert [reads.ask(links), reads.ask(links), reads.count] == [False, False, 2]


def test_the_least_recently_used_link_is_evicted():
    links, reads = RecentLinks(Clock(), 2), Reads()
    for path in ("one", "two", "one", "three"):
        reads.ask(links, path)
    assert reads.count == 3
    reads.ask(links, "one")
    assert reads.count == 3
    reads.ask(links, "two")
    assert reads.count == 4


def test_a_link_that_was_read_while_one_is_removed_is_not_remembered():
    links, reads, arrival = RecentLinks(Clock()), Reads(), Deferred()

    async def read():
        await arrival
        return True

    answer = begin(links.is_valid("link", read))
    links.forget()
    arrival.callback(None)
    assert result_of(answer)
    reads.ask(links)
    assert reads.count == 1


def test_a_removal_is_seen_by_all_that_share_the_count():
    removals, reads = [], Reads()
    processes = [RecentLinks(Clock()) for _ in range(2)]
    for links in processes:
        links.share_removals(lambda: removals.append(1), lambda: len(removals))
        reads.ask(links)
    processes[0].forget()
    for links in processes:
        reads.ask(links)
    assert reads.count == 4
    for links in processes:
        reads.ask(links)
    assert reads.count == 4


@define
class Instances:
    """Two registries over one bucket; the first remembers links."""

    world: BucketWorld = field(factory=BucketWorld)
    gate: Gate = field(factory=Gate)
    trash: bool = False
    one: Registry = field(init=False)
    other: Registry = field(init=False)

    def __attrs_post_init__(self):
        clock, driver = self.world.clock, CheckedDriver(self.world.memory, self.world.clock)
        self.other = Registry(driver, clock)
        self.one = Registry(
            driver,
            clock,
            gate=self.gate,
            deleter=TrashDeleter(driver, clock) if self.trash else Deleter(driver),
            descriptors=MemoryDescriptorCache(0),
            recent_links=RecentLinks(clock),
        )
        done(self.blobs("a/b", self.other).uploads.store_blob(DIGEST, Body(CONTENT)))

    def blobs(self, name="a/b", registry=None):
        return (registry or self.one).repository(name, ORIGIN)

    def size(self):
        """Return the size for a redirect, or the code of the error."""
        try:
            return done(self.blobs().blobs.size(DIGEST, for_pull=True))
        except RegistryError as error:
            return error.code


@pytest.fixture
def instances():
    return Instances()


def test_a_repeated_redirect_asks_the_store_nothing_and_the_gate_each_time(instances):
    assert instances.size() == 7
    asked = len(instances.world.bucket.asked)
    assert [instances.size(), instances.size()] == [7, 7]
    assert len(instances.world.bucket.asked) == asked
    assert instances.gate.asked == 3 * [("a/b", DIGEST)]


def test_a_repeated_pull_through_the_registry_reads_only_the_blob(instances):
    for _ in range(2):
        instances.world.bucket.asked.clear()
        done(instances.blobs().blobs.open_whole(DIGEST)).close()
    assert [key for _, key in instances.world.bucket.asked] == [layout.blob_data(DIGEST)]


async def delete_blob(instances):
    await instances.blobs().blobs.delete(DIGEST)


async def delete_repository(instances):
    await instances.blobs().delete()


async def collect(instances):
    deleter = instances.one.deleter
    sweeper = Sweeper(instances.one.driver, deleter)
    assert await deleter.delete_blob(DIGEST, lambda: True)
    await sweeper.unlink_blobs([DIGEST])


@pytest.mark.parametrize("trash", [False, True])
@pytest.mark.parametrize("remove", [delete_blob, delete_repository, collect])
def test_a_blob_that_this_process_removes_is_unknown_at_once(remove, trash):
    instances = Instances(trash=trash)
    assert instances.size() == 7
    done(remove(instances))
    assert instances.size() is ErrorCode.BLOB_UNKNOWN


def test_a_removal_that_fails_may_have_removed_the_link(instances):
    assert instances.size() == 7

    def lose_answer(key):
        instances.world.bucket.objects.pop(LINK, None)
        raise RuntimeError(key)

    for operation in ("delete_object", "delete_objects"):
        instances.world.bucket.hooks[operation] = lose_answer
    with pytest.raises(RegistryError):
        done(instances.blobs().blobs.delete(DIGEST))
    assert instances.size() is ErrorCode.BLOB_UNKNOWN


def test_a_blob_that_another_instance_removes_is_redirected_to_for_a_limited_time(instances):
    assert instances.size() == 7
    done(instances.blobs(registry=instances.other).blobs.delete(DIGEST))
    instances.world.clock.advance(RECENT_LINK_S - 1)
    assert instances.size() == 7
    instances.world.clock.advance(1)
    assert instances.size() is ErrorCode.BLOB_UNKNOWN


def test_questions_before_a_push_and_deletes_read_the_link(instances):
    assert instances.size() == 7
    done(instances.blobs(registry=instances.other).blobs.delete(DIGEST))
    mine = instances.blobs()
    with pytest.raises(RegistryError):
        done(mine.blobs.size(DIGEST))
    with pytest.raises(RegistryError):
        done(mine.blobs.delete(DIGEST))
    assert not done(mine.blobs.is_linked(DIGEST))
    assert done(instances.blobs("c").blobs.mount(DIGEST, "a/b")) is None


def test_a_link_of_another_repository_gives_nothing(instances):
    assert instances.size() == 7
    with pytest.raises(RegistryError):
        done(instances.blobs("c").blobs.size(DIGEST, for_pull=True))


def test_links_of_a_store_that_can_be_peeked_at_are_validated_each_time():
    clock = Clock()
    driver = MemoryDriver(clock)
    registry = Registry(driver, clock, recent_links=RecentLinks(clock))
    blobs = registry.repository("a/b", ORIGIN)
    done(blobs.uploads.store_blob(DIGEST, Body(CONTENT)))
    assert done(blobs.blobs.size(DIGEST, for_pull=True)) == 7
    result_of(driver.delete(LINK))
    with pytest.raises(RegistryError):
        done(blobs.blobs.size(DIGEST, for_pull=True))
