"""The command ``retention``."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime

import pytest

from tests.support.processes import CONFIGURATION, run, write_configuration

RETENTION = (sys.executable, "-m", "twisted_registry", "retention")
TAGS = "store/docker/registry/v2/repositories/a/_manifests/tags"
RULES = """\
  maintenance:
    retention:
      rules:
      - repositories: ['a']
        newest: 1
        always: ['v*']
"""


def tagged(folder, *names):
    """Create tags as a registry stores them, each a day older than the one before."""
    digest = "sha256:" + 64 * "a"
    for index, name in enumerate(names):
        link = (
            folder / f"store/docker/registry/v2/repositories/a/_manifests/tags/{name}/current/link"
        )
        link.parent.mkdir(parents=True)
        link.write_text(digest)
        second = link.stat().st_mtime - 86_400 * (index + 1)
        os.utime(link, (second, second))


@pytest.fixture
def path(tmp_path):
    tagged(tmp_path, "new", "old", "v1")
    return write_configuration(tmp_path, CONFIGURATION.replace("storage:\n", f"storage:\n{RULES}"))


def tags(folder):
    return sorted(entry.name for entry in (folder / TAGS).iterdir())


def test_a_run_deletes_what_a_dry_run_prints(tmp_path, path):
    status, out, err = run(*RETENTION, "--dry-run", path, cwd=tmp_path)
    assert (status, err) == (0, [])
    head, old, total = out.splitlines()
    assert head.split() == ["TAG", "PUSHED", "PULLED", "KEPT"]
    assert old.startswith("-  a:old")
    assert total == "1 of 3 tags would be deleted in 1 repository"
    assert tags(tmp_path) == ["new", "old", "v1"]
    status, out, _ = run(*RETENTION, "--dry-run", "--json-lines", path, cwd=tmp_path)
    assert (status, json.loads(out)["tag"]) == (0, "old")
    status, out, _ = run(*RETENTION, "--all", "--json", path, cwd=tmp_path)
    assert status == 0
    found = json.loads(out)
    assert (found["tags"], found["expired"], found["kept"]) == (3, 1, 2)
    pushed = [datetime.fromisoformat(verdict["pushed"]) for verdict in found["verdicts"]]
    assert all(moment <= datetime.now(UTC) for moment in pushed)
    reasons = {verdict["tag"]: verdict["reason"] for verdict in found["verdicts"]}
    assert reasons == {"new": "newest 1", "old": "", "v1": "always"}
    assert tags(tmp_path) == ["new", "v1"]
    _, out, _ = run(*RETENTION, path, cwd=tmp_path)
    assert out == "0 of 2 tags deleted in 1 repository\n"


def test_nothing_is_deleted_while_another_process_applies_the_rules(tmp_path, path):
    lease = tmp_path / "store/twisted-registry/tasks/retention/running"
    lease.parent.mkdir(parents=True)
    lease.write_bytes(b"elsewhere 1 it")
    status, out, err = run(*RETENTION, path, cwd=tmp_path)
    assert (status, out) == (1, "")
    assert err == ["twisted-registry: another process runs this task"]
    assert tags(tmp_path) == ["new", "old", "v1"]


def test_missing_rules_are_an_error(tmp_path):
    path = write_configuration(tmp_path)
    status, _, err = run(*RETENTION, path, cwd=tmp_path)
    assert (status, err) == (
        1,
        [f"twisted-registry: {path}: storage.maintenance.retention: there are no rules"],
    )
