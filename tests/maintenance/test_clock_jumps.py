"""Nothing is removed too early because the clock of the machine was set."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred

from tests.gc.collected_store import Store, drive
from tests.maintenance.test_retention import ALL, in_days, retention
from tests.repository.clock_kit import JumpingClock
from tests.repository.trash_kit import KeptStore
from tests.repository.worlds import World, begin, done, image, result_of
from tests.support.services import HTTP, MEMORY
from twisted_registry.app.maintenance import MaintenanceService
from twisted_registry.config.loading import load_text
from twisted_registry.gc.delete_list import DeleteList, DeleteListProtocol, Phase
from twisted_registry.gc.expire_trash import TrashExpiry
from twisted_registry.gc.mark import MarkPhase
from twisted_registry.maintenance.lease import TaskLease
from twisted_registry.maintenance.pull_times import MAX_GAP_S, PullTimes
from twisted_registry.maintenance.purge import UploadPurge
from twisted_registry.maintenance.retention import RetentionRule
from twisted_registry.oci.digest import Digest
from twisted_registry.repository import layout
from twisted_registry.repository.clock import ClockWasSet
from twisted_registry.repository.inventory import Inventory
from twisted_registry.repository.trash import Trash, TrashDeleter, TrashedKind

DAY = 86_400.0
JUMP_S = 10 * DAY
LIST_CREATED = ("create", layout.DELETE_LIST)


@pytest.fixture
def world():
    world = World()
    world.clock.advance(1_800_000_000)
    return world


@pytest.fixture
def clock(world):
    return JumpingClock(world.clock)


def test_upload_that_is_seconds_old_is_not_purged(world, clock):
    purge = UploadPurge(world.registry, 7 * DAY, dry_run=False, jumps=clock.jumps())
    upload_id = done(world.repo().uploads.start()).id
    clock.advance(5)
    clock.jump(JUMP_S)
    for _ in range(6):
        assert done(purge.run()).found == 0
        clock.advance(DAY)
    assert done(world.repo().uploads.is_started(upload_id))
    clock.advance(DAY)
    assert done(purge.run()).removed == 1


def test_young_blob_is_not_collected(clock, world):
    store = Store(world)
    collector = store.collector(jumps=clock.jumps())
    world.blob(b"young")
    clock.advance(5)
    clock.jump(JUMP_S)
    assert drive(world, collector.run()).blobs == 0
    clock.advance(DAY)
    assert drive(world, collector.run()).blobs == 1
    store.close()


def test_young_entry_of_the_trash_is_not_expired(world, clock):
    store = KeptStore(world)
    jumps = clock.jumps()
    mark_phase = MarkPhase(Inventory(world.driver), store.references)
    expiry = TrashExpiry(Trash(world.driver), mark_phase, 7 * DAY, jumps=jumps)
    world.image("v1")
    done(world.repo().tags.delete("v1"))
    trashed = len(store.trash())
    clock.jump(JUMP_S)
    assert drive(world, expiry.run()).removed == 0
    assert len(store.trash()) == trashed > 0
    clock.advance(7 * DAY + 1)
    assert drive(world, expiry.run()).removed == trashed
    store.close()


def test_entry_of_the_trash_has_the_later_of_two_clocks(world):
    """The clock of the process that put it there was ten days slow."""
    slow = JumpingClock()
    slow.advance(1_800_000_000 - JUMP_S)
    world.deleter = TrashDeleter(world.driver, slow.clock)
    world.registry = world.another()
    world.image("v1")
    done(world.repo().tags.delete("v1"))

    async def entries():
        return [item async for page in Trash(world.driver).pages() for item in page]

    (record, *_) = [item for item in done(entries()) if item.kind is TrashedKind.TAG]
    assert record.entry_name.seconds < world.clock.seconds() - 9 * DAY
    assert record.since == pytest.approx(world.clock.seconds(), abs=1)


def test_young_tag_is_kept_by_retention(world, clock):
    jumps = clock.jumps()
    in_days(world, "v1")
    clock.jump(JUMP_S)
    rule = RetentionRule(ALL, pushed_within=5 * DAY)
    for _ in range(3):
        assert done(retention(world, rule, jumps=jumps).run()).expired == 0
        clock.advance(DAY)
    clock.advance(2 * DAY)
    assert done(retention(world, rule, jumps=jumps).run()).expired == 1


def test_recording_of_pulls_is_not_interrupted(world, clock):
    times = PullTimes(world.driver, clock.jumps())
    done(times.mark_recording())
    since = done(times.recording_since())
    clock.advance(300)
    clock.jump(JUMP_S)
    assert JUMP_S > MAX_GAP_S
    done(times.mark_recording())
    assert done(times.recording_since()) == since


def lease(world, clock):
    return TaskLease(world.driver, "gc", clock.elapsing, 3600, jumps=clock.jumps())


def is_free(lease):
    """Try to run the task under a lease."""
    ran = []

    async def work():
        ran.append(True)

    begin(lease.run_exclusively(work, scheduled=False)).addErrback(lambda _: None)
    return bool(ran)


def test_lease_that_is_renewed_stays(world, clock):
    holder, other, waiting = lease(world, clock), lease(world, clock), Deferred()

    async def work():
        await waiting

    begin(holder.run_exclusively(work, scheduled=False))
    clock.advance(5)
    clock.jump(JUMP_S)
    assert not is_free(other)


@pytest.mark.parametrize("seconds", [-JUMP_S, JUMP_S])
def test_lease_of_a_dead_process_ends_although_the_clock_was_set(world, clock, seconds):
    world.write(layout.task_running("gc"), b"host 1 id dead")
    other = lease(world, clock)
    assert not is_free(other)
    clock.jump(seconds)
    for _ in range(3):
        clock.advance(15)
        assert not is_free(other)
    clock.advance(16)
    assert is_free(other)


@pytest.mark.parametrize(("seconds", "waits_s"), [(JUMP_S, 25), (-JUMP_S, 30)])
def test_record_of_a_process_counts_for_30_seconds_although_the_clock_was_set(
    world, clock, seconds, waits_s
):
    protocol = DeleteListProtocol(world.driver, clock.elapsing, 0.0, clock.jumps())
    world.write(layout.process_record("dead"), b" some-process")
    clock.advance(5)
    clock.jump(seconds)
    proposing = []
    proposed = DeleteList("list", Phase.PROPOSED, 120.0, frozenset([Digest.of(b"x")]))
    begin(protocol.propose(proposed)).addBoth(proposing.append)
    for _ in range(waits_s - 1):
        clock.advance(1)
    assert proposing == []
    for _ in range(2):
        clock.advance(1)
    assert proposing == [None]
    assert layout.process_record("dead") in world.paths()


def set_back(clock, *paths):
    """Return a hook of a driver that sets the clock back when one of the files is deleted."""
    deleted = []

    def before(_number, action, path):
        if action in {"delete", "move"} and path.startswith(paths):
            deleted.append(path)
            if len(deleted) == 1:
                clock.jump(-JUMP_S)

    return before, deleted


def test_purge_ends_when_the_clock_is_set_during_the_run(world, clock):
    for _ in range(3):
        done(world.repo().uploads.start())
    clock.advance(2 * DAY)
    world.driver.before, deleted = set_back(clock, layout.uploads_folder("a/b"))
    with pytest.raises(ClockWasSet):
        done(UploadPurge(world.registry, DAY, dry_run=False, jumps=clock.jumps()).run())
    assert len(deleted) == 1


def test_retention_ends_when_the_clock_is_set_during_the_run(world, clock):
    in_days(world, "v1", "v2", "v3")
    clock.advance(2 * DAY)
    world.driver.before, deleted = set_back(clock, layout.tags_folder("a/b"))
    with pytest.raises(ClockWasSet):
        done(retention(world, RetentionRule(ALL), jumps=clock.jumps()).run())
    assert len({path.split("/tags/")[1].split("/")[0] for path in deleted}) == 1


def test_expiry_of_the_trash_ends_when_the_clock_is_set_during_the_run(world, clock):
    store = KeptStore(world)
    mark_phase = MarkPhase(Inventory(world.driver), store.references)
    world.image("v1")
    done(world.repo().manifests.delete(Digest.of(image())))
    trashed = len(store.trash())
    clock.advance(2 * DAY)
    jumps = clock.jumps()

    def set_once(_seen):
        if not jumps.count:
            clock.jump(-JUMP_S)

    expiry = TrashExpiry(Trash(world.driver), mark_phase, DAY, set_once, jumps)
    with pytest.raises(ClockWasSet):
        drive(world, expiry.run())
    assert len(store.trash()) == trashed > 0
    store.close()


def test_collector_begins_a_new_round_when_the_clock_is_set_during_a_sweep(world, clock):
    store = Store(world)
    for number in range(40):
        world.blob(b"garbage %d" % number)
    clock.advance(2 * DAY)
    world.driver.before, deleted = set_back(clock, layout.BLOBS)
    assert drive(world, store.collector(jumps=clock.jumps()).run()).blobs == len(deleted) == 40
    lists = [number for number, call in enumerate(world.driver.calls) if call == LIST_CREATED]
    deletes = [
        number
        for number, (action, path) in enumerate(world.driver.calls)
        if action == "delete" and path.startswith(layout.BLOBS)
    ]
    assert len(lists) == 2
    # The rest had to be old by the time of the clock that was set, too.
    assert sum(number > lists[1] for number in deletes) == 39
    store.close()


def test_task_skips_the_run_after_the_clock_was_set(world, clock):
    """Once for each task; a run by command is skipped as well."""
    configuration = load_text(MEMORY.replace("{{}}", "{}") + HTTP, {}).configuration
    service = MaintenanceService(
        world.registry, world.driver, configuration, world.clock, clock.jumps()
    )
    upload_id = done(world.repo().uploads.start()).id
    clock.advance(8 * DAY)
    clock.jump(JUMP_S)
    task = service.task("uploadpurging")
    for scheduled in (True, False):
        run = result_of(task.run(scheduled=scheduled))
        assert bool(run.skipped) is scheduled
        assert done(world.repo().uploads.is_started(upload_id)) is scheduled
    assert run.result.removed == 1
    assert "clock" in result_of(service.task("scrub").run()).skipped
