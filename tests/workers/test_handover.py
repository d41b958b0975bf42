from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

from twisted_registry.config.loading import load_text
from twisted_registry.workers.handover import (
    TABLE_FD,
    Handover,
    encode_message,
    worker_command,
    worker_environment,
)

TEXT = """
version: 0.1
storage: {filesystem: {rootdirectory: /x}}
http: {workers: 2, secret: do-not-tell, headers: {X-Y: [z]}}
validation: {manifests: {urls: {allow: ['^https://']}}}
"""


BUCKET = """
version: 0.1
storage: {s3: {bucket: b, region: us-east-1, accesskey: key, secretkey: do-not-tell}}
http: {workers: 2}
"""


def through_a_pipe(content):
    reading, writing = os.pipe()
    os.write(writing, content)
    os.close(writing)
    try:
        return Handover.read(reading)
    finally:
        os.close(reading)


def test_a_handover_carries_the_configuration_with_overrides_and_hides_it_in_repr():
    loaded = load_text(TEXT, {"REGISTRY_HTTP_SECRET": "overridden", "REGISTRY_NONSENSE": "x"})
    assert loaded.warnings
    arrived = through_a_pipe(encode_message(Handover(loaded, 1)))
    assert arrived.loaded == loaded
    assert arrived.loaded.configuration.http.secret == "overridden"
    assert arrived.number == 1
    assert arrived.table_fd == TABLE_FD
    assert "overridden" not in repr(arrived)


def test_a_handover_carries_the_configuration_of_a_bucket():
    loaded = load_text(BUCKET, {})
    arrived = through_a_pipe(encode_message(Handover(loaded, 2)))
    assert arrived.loaded == loaded
    assert arrived.loaded.configuration.storage.bucket.secretkey == "do-not-tell"


def test_an_incomplete_handover_is_none():
    content = encode_message(Handover(load_text(TEXT, {}), 1))
    for size in (0, 3, 8, 100, len(content) - 1):
        assert through_a_pipe(content[:size]) is None


def test_reading_a_handover_leaves_later_messages_in_the_pipe():
    reading, writing = os.pipe()
    os.write(writing, encode_message(Handover(load_text(TEXT, {}), 1)) + b"more")
    assert Handover.read(reading) is not None
    assert os.read(reading, 10) == b"more"
    os.close(reading)
    os.close(writing)


def test_worker_environment_drops_overrides_and_keeps_the_module_path():
    environ = {
        "PATH": "/bin", "REGISTRY_HTTP_SECRET": "x", "LISTEN_FDS": "1", "LISTEN_PID": "2",
        "NOTIFY_SOCKET": "/run/n", "PYTHONPATH": "/nowhere",
    }  # fmt: skip
    made = worker_environment(environ)
    path = made.pop("PYTHONPATH").split(os.pathsep)
    assert made == {"PATH": "/bin"}
    assert all(Path(entry).is_absolute() and Path(entry).exists() for entry in path)
    assert [entry for entry in map(os.path.abspath, sys.path) if Path(entry).exists()] == path


def test_worker_command_runs_this_interpreter():
    assert worker_command()[0] == sys.executable
    assert pickle.dumps(worker_command())
