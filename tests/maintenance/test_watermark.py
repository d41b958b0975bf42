"""What is told as a disk fills up, by a clock and a disk that the test sets."""

from __future__ import annotations

import os

import pytest
from twisted.application.service import IService
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import LogLevel
from zope.interface.verify import verifyObject

from twisted_registry.app.maintenance import used_fraction
from twisted_registry.maintenance.watermark import FillLevel, Watermark


class Disk:
    """So full as the test says."""

    def __init__(self):
        self.used = succeed(0.0)
        self.told = []
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
    made = Watermark(disk.measure, disk.told.append, clock, 5.0, marks or (0.8, 0.9), disk.close)
    verifyObject(IService, made)
    made.startService()
    return made


def levels(disk, clock, *parts):
    for part in parts:
        disk.at(part)
        clock.advance(5)
    return disk.told


def test_it_is_told_when_a_mark_is_passed(disk, clock, log_events):
    watermark(disk, clock)
    assert levels(disk, clock, 0.7, 0.8, 0.85, 0.9, 1.0, 0.89, 0.1) == [
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
    assert log_events[1]["part"] == "90.0"


def test_it_says_how_it_stands(disk, clock):
    made = watermark(disk, clock, 0.8, 0.9)
    levels(disk, clock, 0.85)
    assert made.status() == {"used": 0.85, "level": "high", "warn": 0.8, "refuse": 0.9}
    disk.used = fail(OSError("it is gone"))
    clock.advance(5)
    # The level stays as it was; how much is used nobody knows.
    assert made.status() == {"used": None, "level": "high", "warn": 0.8, "refuse": 0.9}


def test_it_is_told_at_once(disk, clock):
    disk.at(0.95)
    watermark(disk, clock)
    assert disk.told == [FillLevel.FULL]


def test_one_mark_alone(disk, clock):
    watermark(disk, clock, 0.0, 0.9)
    assert levels(disk, clock, 0.89, 0.9, 0.1) == [FillLevel.FULL, FillLevel.ROOM]
    other = Disk()
    watermark(other, clock, 0.8, 0.0)
    assert levels(other, clock, 1.0, 0.1) == [FillLevel.HIGH, FillLevel.ROOM]


def test_a_disk_that_can_not_be_asked_changes_nothing(disk, clock, log_events):
    watermark(disk, clock)
    levels(disk, clock, 0.95)
    for _ in range(2):
        disk.used = fail(OSError("it is gone"))
        clock.advance(5)
    assert disk.told == [FillLevel.FULL]
    assert len([event for event in log_events if "log_failure" in event]) == 1
    assert levels(disk, clock, 0.1) == [FillLevel.FULL, FillLevel.ROOM]


def test_a_disk_that_hangs_keeps_nobody_from_stopping(disk, clock):
    disk.used = Deferred()
    made = watermark(disk, clock)
    clock.advance(60)
    stopped = []
    made.stopService().addCallback(stopped.append)
    assert (stopped, disk.closed) == ([None], 1)
    assert clock.getDelayedCalls() == []


def found(**fields):
    """What a system tells of a filesystem of a hundred blocks and inodes, half of them used."""
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
def test_which_part_is_used(fields, part):
    assert used_fraction("/x", found(**fields)) == pytest.approx(part)


def test_a_real_disk(tmp_path):
    assert 0 <= used_fraction(str(tmp_path)) <= 1
