"""The text about what a process does."""

from __future__ import annotations

from threading import Event, Thread

import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from twisted_registry.health.stacks import ActiveRequest, describe_activity


async def wait_inside(waited):
    await waited


async def wait_outside(waited):
    await wait_inside(waited)


@pytest_twisted.ensureDeferred
async def test_stacks_of_threads_have_their_names_and_functions():
    entered, leave = Event(), Event()

    def hold_the_thread():
        entered.set()
        leave.wait(30)

    thread = Thread(target=hold_the_thread, name="held")
    thread.start()
    try:
        entered.wait(30)
        text = await describe_activity([], reactor)
    finally:
        leave.set()
        thread.join()
    held = text.partition("\nthread held\n")[2].partition("\n\n")[0].splitlines()
    assert held[0].rpartition(" ")[2].startswith("Thread.")  # the outermost function is first
    assert any(line.endswith("hold_the_thread") for line in held)
    assert "thread MainThread\n" in text


@pytest_twisted.ensureDeferred
async def test_coroutines_that_wait_are_shown_once_by_their_stack():
    waited = [Deferred() for _ in range(3)]
    running = [Deferred.fromCoroutine(wait_outside(each)) for each in waited]
    text = await describe_activity([], reactor)
    (stack,) = [part for part in text.split("\n\n") if "wait_inside" in part]
    count, outside, inside = stack.splitlines()
    assert count == "3 with this stack"
    assert outside.endswith(" wait_outside")
    assert inside.endswith(" wait_inside")
    for each in waited:
        each.callback(None)
    assert "wait_inside" not in await describe_activity([], reactor)
    assert all(each.called for each in running)


@pytest_twisted.ensureDeferred
async def test_requests_are_listed_the_oldest_first():
    requests = [
        ActiveRequest("GET", "/v2/a/manifests/1", "192.0.2.1", "ada", 0.5),
        ActiveRequest("PUT", "/v2/\u00fc\n", "", "", 12.3456),
    ]
    lines = (await describe_activity(requests, reactor)).splitlines()
    begin = lines.index("requests: 2")
    assert lines[begin + 1 : begin + 3] == [
        r"  12.346 s PUT /v2/\xfc\n client=- user=-",
        "  0.500 s GET /v2/a/manifests/1 client=192.0.2.1 user=ada",
    ]


@pytest_twisted.ensureDeferred
async def test_a_long_list_of_requests_is_cut():
    request = ActiveRequest("GET", "/v2/", "", "", 1.0)
    text = await describe_activity([request] * 5000, reactor)
    assert "requests: 5000\n" in text
    assert text.count("GET /v2/") == 1000
