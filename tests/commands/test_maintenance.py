"""The command ``maintenance``."""

from __future__ import annotations

import json
import re
import sys
from datetime import datetime

import pytest

from tests.support.processes import CONFIGURATION, SERVE, RegistryProcess, run, write_configuration
from twisted_registry.commands.maintenance import format_result

MAINTENANCE = (sys.executable, "-m", "twisted_registry", "maintenance")
PURGE = "uploadpurging: {{enabled: false, age: 1h, interval: 2h, dryrun: false}}"


@pytest.fixture
def path(tmp_path):
    text = CONFIGURATION.replace("storage:\n", f"storage:\n  maintenance: {{{{{PURGE}}}}}\n")
    return write_configuration(tmp_path, text)


def lease_file(folder):
    """The file that names the process that runs the task."""
    return folder / "store/twisted-registry/tasks/uploadpurging/running"


def test_a_run_is_recorded_in_the_status(tmp_path, path):
    status, out, err = run(*MAINTENANCE, "status", path, cwd=tmp_path)
    assert (status, err) == (0, [])
    assert out.splitlines()[:2] == ["uploadpurging: not enabled", "  never ran"]
    status, out, err = run(*MAINTENANCE, "run", "uploadpurging", path, cwd=tmp_path)
    assert (status, err) == (0, [])
    assert out.startswith("uploadpurging: nothing to do; took ")
    assert not lease_file(tmp_path).exists()
    _, out, _ = run(*MAINTENANCE, "status", path, cwd=tmp_path)
    assert re.fullmatch(
        r"  last: \S+T\S+Z, took .* s, process \d+ on \S+: nothing to do", out.splitlines()[1]
    )
    _, out, _ = run(*MAINTENANCE, "status", "--json", path, cwd=tmp_path)
    (task,) = [task for task in json.loads(out)["tasks"] if task["name"] == "uploadpurging"]
    assert (task["enabled"], task["interval"], task["running"]) == (False, 7200.0, None)
    assert task["last"]["result"]["found"] == 0
    assert datetime.fromisoformat(task["last"]["began"]).tzinfo is not None


def test_commands_that_do_a_task_are_in_the_status(tmp_path):
    more = "retention: {{rules: [{{repositories: [a], newest: 1}}]}}"
    text = CONFIGURATION.replace("storage:\n", f"storage:\n  maintenance: {{{{{more}}}}}\n")
    path = write_configuration(tmp_path, text)
    for command in ("retention", "garbage-collect"):
        run(*MAINTENANCE[:-1], command, "--dry-run", path, cwd=tmp_path)
    _, out, _ = run(*MAINTENANCE, "status", path, cwd=tmp_path)
    assert out.count("never ran") == out.count("\n") // 2
    for command in ("retention", "garbage-collect"):
        assert run(*MAINTENANCE[:-1], command, path, cwd=tmp_path)[0] == 0
    _, out, _ = run(*MAINTENANCE, "status", "--json", path, cwd=tmp_path)
    ran = {task["name"] for task in json.loads(out)["tasks"] if task["last"]}
    assert ran == {"retention", "gc"}


@pytest.mark.parametrize(
    ("task", "result", "text"),
    [
        ("gc", {"marked": 1, "blobs": 2, "size": 1536, "troubled": []},
         "1 blob in use, 2 blobs deleted, 1.5 KiB"),
        ("gc", {"marked": 0, "troubled": ["a"], "failed": 2},
         "1 repository is unreadable, 2 failures"),
        ("scrub", {"files": 3, "tags": 1, "affected": ["a:1"]}, "3 files read, 1 tag needs them"),
        ("quotas", {"repositories": 2, "used": {"team/**": 2048}},
         "2 repositories, team/**: 2.0 KiB"),
        ("gc", {"blobs": 0}, "nothing to do"),
        ("other", {"things": 2}, "2 things"),
        ("other", None, "done"),
    ],
)  # fmt: skip
def test_results_are_in_words(task, result, text):
    assert format_result(task, result) == text


def test_a_task_runs_while_a_registry_serves(tmp_path, path):
    with RegistryProcess(*SERVE, path, cwd=tmp_path) as server:
        status, out, err = run(*MAINTENANCE, "run", "--json", "gc", path, cwd=tmp_path)
        assert (status, err) == (0, [])
        assert json.loads(out)["result"]["blobs"] == 0
        server.stop()


def test_a_task_that_another_process_runs_is_skipped(tmp_path, path):
    lease_file(tmp_path).parent.mkdir(parents=True)
    lease_file(tmp_path).write_bytes(b"elsewhere 1 it")
    status, out, err = run(*MAINTENANCE, "run", "uploadpurging", path, cwd=tmp_path)
    assert (status, out) == (3, "")
    assert err[-1].endswith("uploadpurging: another process runs this task")
    _, out, _ = run(*MAINTENANCE, "status", path, cwd=tmp_path)
    assert "  running: process 1 on elsewhere" in out.splitlines()


def test_a_failed_run_has_status_1(tmp_path, path):
    (tmp_path / "store/docker/registry/v2").mkdir(parents=True)
    (tmp_path / "store/docker/registry/v2/repositories").write_bytes(b"")
    status, out, err = run(*MAINTENANCE, "run", "gc", path, cwd=tmp_path)
    assert (status, out) == (1, "")
    assert err[-1].startswith("twisted-registry: gc failed: ")


def test_unknown_tasks_and_stores_in_memory_are_rejected(tmp_path, path):
    status, _, err = run(*MAINTENANCE, "run", "dusting", path, cwd=tmp_path)
    assert status == 2
    assert err[-1].startswith(
        "twisted-registry: dusting: no such task; known tasks are uploadpurging"
    )
    status, _, err = run(*MAINTENANCE, "run", "retenton", path, cwd=tmp_path)
    assert status == 2
    assert err == ["twisted-registry: retenton: no such task; did you mean retention?"]
    memory = write_configuration(tmp_path, "version: 0.1\nstorage: inmemory\n")
    status, _, err = run(*MAINTENANCE, "status", memory, cwd=tmp_path)
    assert status == 1
    assert "storage.inmemory" in err[-1]
    assert run(*MAINTENANCE, cwd=tmp_path)[0] == 2
