"""Sampled profiles, and their pictures."""

from __future__ import annotations

from threading import Event, Thread
from threading import enumerate as all_threads
from xml.etree import ElementTree as ET

import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from twisted_registry.health.profile import (
    Profiler,
    format_stacks,
    parse_stacks,
    render_flame_graph,
)

SVG = "{http://www.w3.org/2000/svg}"


@pytest_twisted.ensureDeferred
async def test_a_profile_counts_the_functions_of_a_thread():
    entered, leave = Event(), Event()

    def hold_the_thread():
        entered.set()
        leave.wait(30)

    thread = Thread(target=hold_the_thread, name="held; here")
    thread.start()
    try:
        entered.wait(30)
        stacks = await Profiler(reactor).profile(0.3)
    finally:
        leave.set()
        thread.join()
    (held,) = (stack for stack in stacks if stack.startswith("thread held  here;"))
    names = held.split(";")
    assert names[1] == "threading:Thread._bootstrap"  # the outermost function is first
    assert names[-1] == "threading:Condition.wait"
    assert any(name.endswith("hold_the_thread") for name in names)
    assert any(stack.startswith("thread MainThread;") for stack in stacks)
    assert not any(stack.startswith("thread profiler") for stack in stacks)


@pytest_twisted.ensureDeferred
async def test_a_new_profile_ends_the_one_before():
    profiler = Profiler(reactor)
    first = Deferred.fromCoroutine(profiler.profile(60))
    await profiler.profile(0.1)
    await first.addTimeout(30, reactor)


@pytest_twisted.ensureDeferred
async def test_cancelling_ends_the_thread():
    profiling = Deferred.fromCoroutine(Profiler(reactor).profile(60))
    ended = profiling.addErrback(lambda reason: reason.trap(CancelledError))
    profiling.cancel()
    await ended
    for _ in range(1000):
        if not any(thread.name == "profiler" for thread in all_threads()):
            break
        await deferLater(reactor, 0.02)
    assert not any(thread.name == "profiler" for thread in all_threads())


def test_lines_of_stacks_are_cut_after_the_most_frequent():
    stacks = {"a;b": 1, "a;c d": 30, "e": 2}
    assert format_stacks(stacks) == "a;c d 30\ne 2\na;b 1\n"
    assert parse_stacks(format_stacks(stacks)) == stacks
    assert format_stacks(stacks, 12) == "a;c d 30\n"


def test_a_flame_graph_shows_callers_above_callees():
    svg = render_flame_graph({"t;f;<g>": 3, "t;h": 1, "u": 4, "t;narrow": 0})
    root = ET.fromstring(svg)
    drawn = {}
    for group in root.iter(f"{SVG}g"):
        title, rect = group.find(f"{SVG}title"), group.find(f"{SVG}rect")
        drawn[title.text] = [float(rect.get(name)) for name in ("x", "y", "width")]
    rows = sorted({y for _, y, _ in drawn.values()})
    assert drawn == {
        "all processes (8 samples, 100.0 %)": [0, rows[0], 1200],
        "t (4 samples, 50.0 %)": [0, rows[1], 600],
        "u (4 samples, 50.0 %)": [600, rows[1], 600],
        "f (3 samples, 37.5 %)": [0, rows[2], 450],
        "h (1 samples, 12.5 %)": [450, rows[2], 150],
        "<g> (3 samples, 37.5 %)": [0, rows[3], 450],
    }
    assert float(root.get("height")) > rows[-1]


def test_a_flame_graph_without_samples_is_a_picture():
    (group,) = ET.fromstring(render_flame_graph({})).iter(f"{SVG}g")
    assert group.find(f"{SVG}title").text.startswith("all processes (0 samples")
