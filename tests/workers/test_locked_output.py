from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.processes import environment
from twisted_registry.workers.logs import LockedOutput, open_locked_output

WRITER = """
import sys
from twisted_registry.workers.logs import open_locked_output
stream = open_locked_output(1)
for number in range(300):
    size = 20_000 if number % 10 == 0 else 80
    stream.write(sys.argv[1] * size + "\\n")
"""


def test_lines_of_several_processes_are_not_interleaved():
    """Some lines are longer than a page, and the pipe is read slowly."""
    reading, writing = os.pipe()
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, letter], stdout=writing, env=environment())
        for letter in "abc"
    ]
    os.close(writing)
    with os.fdopen(reading, "rb", buffering=1000) as stream:
        lines = stream.read().splitlines()
    assert all(writer.wait(30) == 0 for writer in writers)
    assert len(lines) == 900
    for line in lines:
        assert len(set(line)) == 1
        assert len(line) in {80, 20_000}


def test_a_write_is_not_buffered_and_close_leaves_the_descriptor_open(tmp_path):
    path = tmp_path / "log"
    with path.open("wb") as target:
        stream = open_locked_output(target.fileno())
        stream.write("one\n")
        assert path.read_bytes() == b"one\n"
        stream.write("two \ud800\n")
        assert path.read_bytes() == b"one\ntwo \\ud800\n"
        stream.close()
        target.write(b"still open\n")


def test_an_output_that_cannot_be_locked_is_written(monkeypatch, tmp_path):
    def lockf(*_):
        raise OSError

    monkeypatch.setattr("fcntl.lockf", lockf)
    path = tmp_path / "log"
    with path.open("wb") as target:
        assert LockedOutput(target.fileno()).write(b"line\n") == 5
    assert path.read_bytes() == b"line\n"


def test_writing_to_a_closed_pipe_raises():
    reading, writing = os.pipe()
    os.close(reading)
    output = LockedOutput(writing)
    with pytest.raises(BrokenPipeError):
        output.write(b"x")
    os.close(writing)
