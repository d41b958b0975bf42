"""Levels that are reported as a disk fills up, with a clock and a disk that the test controls."""

from __future__ import annotations

import os

import pytest
from twisted.application.service import IService
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import LogLevel
from zope.interface.verify import verifyObject

from twisted_registry.maintenance.watermark import FillLevel, Watermark, used_fraction


class Disk:
    """A disk whose usage the test sets."""

    def __init__(self):
        self.used = succeed(0.0)
        self.levels = []
        self.closed = 0

    def measure(self):
        return self.used

    def close(self):
        self.closed += 1
        return succeed(None)

    def at(self, part):
        self.used = succeed(part)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def disk():
    return Disk()


def watermark(disk, clock, *marks):
    made = Watermark(disk.measure, disk.levels.append, clock, 5.0, marks or (0.8, 0.9), disk.close)
    verifyObject(IService, made)
    made.startService()
    return made


def reported_levels(disk, clock, *parts):
    for part in parts:
        disk.at(part)
        clock.advance(5)
    return disk.levels


def test_each_crossed_threshold_is_reported_and_logged(disk, clock, log_events):
    watermark(disk, clock)
    assert reported_levels(disk, clock, 0.7, 0.8, 0.85, 0.9, 1.0, 0.89, 0.1) == [
        FillLevel.HIGH,
        FillLevel.FULL,
        FillLevel.HIGH,
        FillLevel.ROOM,
    ]
    assert [event["log_level"] for event in log_events] == [
        LogLevel.warn,
        LogLevel.error,
        LogLevel.warn,
        LogLevel.info,
    ]
    assert log_events[1]["percent"] == "90.0"


def test_status_has_usage_level_and_thresholds(disk, clock):
    made = watermark(disk, clock, 0.8, 0.9)
    reported_levels(disk, clock, 0.85)
    assert made.status() == {"used": 0.85, "level": "high", "warn": 0.8, "refuse": 0.9}
    disk.used = fail(OSError("it is gone"))
    clock.advance(5)
    # The level stays; the usage is unknown.
    assert made.status() == {"used": None, "level": "high", "warn": 0.8, "refuse": 0.9}


def test_level_is_reported_at_start(disk, clock):
    disk.at(0.95)
    watermark(disk, clock)
    assert disk.levels == [FillLevel.FULL]


def test_either_threshold_may_be_unset(disk, clock):
    watermark(disk, clock, 0.0, 0.9)
    assert reported_levels(disk, clock, 0.89, 0.9, 0.1) == [FillLevel.FULL, FillLevel.ROOM]
    other = Disk()
    watermark(other, clock, 0.8, 0.0)
    assert reported_levels(other, clock, 1.0, 0.1) == [FillLevel.HIGH, FillLevel.ROOM]


def test_failed_measurement_keeps_the_level_and_is_logged_once(disk, clock, log_events):
    watermark(disk, clock)
    reported_levels(disk, clock, 0.95)
    for _ in range(2):
        disk.used = fail(OSError("it is gone"))
        clock.advance(5)
    assert disk.levels == [FillLevel.FULL]
    assert len([event for event in log_events if "log_failure" in event]) == 1
    assert reported_levels(disk, clock, 0.1) == [FillLevel.FULL, FillLevel.ROOM]


def test_stopping_cancels_a_hanging_measurement(disk, clock):
    disk.used = Deferred()
    made = watermark(disk, clock)
    clock.advance(60)
    stopped = []
    made.stopService().addCallback(stopped.append)
    assert (stopped, disk.closed) == ([None], 1)
    assert clock.getDelayedCalls() == []


def statvfs_with(**fields):
    """Return a statvfs() for 100 blocks and 100 inodes, half of them used."""
    names = ["bsize", "frsize", "blocks", "bfree", "bavail"]
    names += ["files", "ffree", "favail", "flag", "namemax"]
    values = {
        **dict.fromkeys(names, 0),
        "blocks": 100,
        "bfree": 50,
        "bavail": 50,
        "files": 100,
        "ffree": 50,
        "favail": 50,
        **fields,
    }
    return lambda _: os.statvfs_result([values[name] for name in names])


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({}, 0.5),
        ({"bfree": 20, "bavail": 0}, 1.0),
        ({"bfree": 60, "bavail": 40}, 0.5),
        ({"ffree": 10, "favail": 10}, 0.9),
        ({"files": 0, "ffree": 0, "favail": 0}, 0.5),
        ({"blocks": 0, "bfree": 0, "bavail": 0, "files": 0}, 0.0),
    ],
)
def test_used_fraction_is_the_larger_of_blocks_and_inodes(fields, part):
    assert used_fraction("/x", statvfs_with(**fields)) == pytest.approx(part)


def test_used_fraction_of_a_real_disk(tmp_path):
    assert 0 <= used_fraction(str(tmp_path)) <= 1
