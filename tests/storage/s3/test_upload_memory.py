"""The memory that uploads share: a hard bound, in order of request."""

from __future__ import annotations

import pytest
from attrs import define, field
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from zope.interface import implementer

from tests.storage.s3.fake_agent import failure_of, no_result, result_of
from twisted_registry.storage.s3.upload_memory import PATIENCE_S, IMemoryUser, UploadMemory
from twisted_registry.storage.writers import TRIM_THRESHOLD_BYTES


@implementer(IMemoryUser)
@define(eq=False)
class User:
    """A user that returns what it holds when it is asked."""

    memory: UploadMemory
    held: int = 0
    asked: list[float] = field(factory=list)

    def give_up(self, before):
        self.asked.append(before)
        held, self.held = self.held, 0
        self.memory.release(held)


@pytest.fixture
def clock():
    clock = Clock()
    yield clock
    assert clock.getDelayedCalls() == []


@pytest.fixture
def memory(clock):
    return UploadMemory(10, clock)


def test_requests_are_served_one_at_a_time_in_order(memory):
    assert memory.take(6)
    assert not memory.take(5)
    served = []
    for number, size in enumerate((5, 1, 4, 10)):
        memory.acquire(lambda size=size: size).addCallback(served.append)
        assert not memory.take(1), number  # nobody overtakes those who wait
    memory.release(3)
    assert (served, memory.used) == ([5, 1], 9)
    memory.release(1)
    assert (served, memory.used) == ([5, 1], 8)
    memory.release(2)
    assert (served, memory.used) == ([5, 1, 4], 10)
    memory.release(9)
    assert (served, memory.used) == ([5, 1, 4], 1)
    memory.release(1)
    assert (served, memory.used) == ([5, 1, 4, 10], 10)


def test_request_is_for_what_is_needed_when_it_is_served(memory):
    sizes = {"now": 5}
    assert memory.take(10)
    request = memory.acquire(lambda: sizes["now"])
    sizes["now"] = 2
    memory.release(2)
    assert result_of(request) == 2


def test_request_that_is_cancelled_leaves_the_queue(memory):
    assert memory.take(10)
    first, second = memory.acquire(lambda: 10), memory.acquire(lambda: 1)
    memory.release(1)
    no_result(second)
    first.cancel()
    failure_of(first, CancelledError)
    assert result_of(second) == 1


def test_excess_is_counted_and_a_large_request_is_served_alone(memory):
    memory.take_excess(12)
    request = memory.acquire(lambda: 30)
    memory.release(11)
    no_result(request)
    memory.release(1)
    assert result_of(request) == 30
    assert not memory.take(1)


@pytest.mark.parametrize(
    ("size", "calls"), [(TRIM_THRESHOLD_BYTES - 1, 0), (TRIM_THRESHOLD_BYTES, 1)]
)
def test_heap_is_trimmed_when_nothing_is_used_any_more(clock, size, calls):
    idle = []
    memory = UploadMemory(TRIM_THRESHOLD_BYTES, clock, lambda: idle.append(memory.used))
    assert memory.take(size - 1)
    request = memory.acquire(lambda: 1)
    memory.release(size - 1)
    assert result_of(request) == 1
    assert idle == []
    memory.release(1)
    assert idle == [0] * calls
    assert memory.take(size - 1)
    memory.release(size - 1)
    assert idle[calls:] == ([] if calls else [0])


def test_users_are_asked_to_give_up_memory_while_others_wait(memory, clock):
    user, other = User(memory), User(memory)
    memory.add_user(user)
    memory.add_user(other)
    assert memory.take(8)
    clock.advance(5)
    request = memory.acquire(lambda: 9)
    clock.advance(PATIENCE_S)
    assert user.asked == other.asked == [5]
    no_result(request)
    memory.remove_user(other)
    user.held = 8
    clock.advance(PATIENCE_S)
    assert user.asked == [5, 5 + PATIENCE_S]
    assert other.asked == [5]
    assert result_of(request) == 9
