"""What the soak and the fuzzer measure: a leak is found, noise is not."""

from __future__ import annotations

import os
import random
import socket
import threading
from pathlib import Path

import pytest

from tests.support.process_usage import count_uploads, growth, usage


def samples(value):
    rng = random.Random(1)
    return [(second, value(second) + rng.uniform(-5, 5)) for second in range(200)]


def test_a_leak_is_found_beneath_noise():
    assert growth(samples(lambda second: 100 + second / 10)) == pytest.approx(20, abs=2)


def test_a_series_that_goes_up_and_down_does_not_grow():
    assert abs(growth(samples(lambda second: 100 + second % 20))) < 5


def test_outliers_do_not_matter():
    points = samples(lambda second: 100)
    points[-1] = (points[-1][0], 10_000)
    assert abs(growth(points)) < 2


def test_sockets_files_and_threads_are_counted():
    before, over = usage(os.getpid()), threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    with socket.socket(), Path(os.devnull).open("rb"):
        now = usage(os.getpid())
    over.set()
    thread.join()
    assert now.connections - before.connections == 1
    assert now.files - before.files == 1
    assert now.threads - before.threads == 1
    assert now.memory_kib > 0


def test_unfinished_uploads_are_counted(tmp_path):
    uploads = tmp_path / "docker/registry/v2/repositories/a/b/_uploads"
    (uploads / "one").mkdir(parents=True)
    (uploads / "two").mkdir()
    assert count_uploads(tmp_path, ["a/b", "absent"]) == 2
