"""The command ``stats``."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta

import pytest

from tests.commands.image_push import image_of, push
from tests.support.processes import CONFIGURATION, SERVE, RegistryProcess, run, write_configuration

STATS = (sys.executable, "-m", "twisted_registry", "stats")
LAYER = b"x" * 2000


def test_a_store_is_described_beside_the_registry_that_serves_it(tmp_path):
    path = write_configuration(tmp_path)
    with RegistryProcess(*SERVE, path, cwd=tmp_path) as server:
        push(server, "v1", LAYER)
        push(server, "v2", b"y" * 10)
        before = sorted((tmp_path / "store").rglob("*"))
        status, out, err = run(*STATS, path, cwd=tmp_path)
        assert (status, err) == (0, [])
        status, document, err = run(*STATS, "--json", "--repository", "b*", path, cwd=tmp_path)
        assert (status, err) == (0, [])
        assert sorted((tmp_path / "store").rglob("*")) == before
    head, row, empty, *totals = out.splitlines()
    assert head.split()[:3] == ["REPOSITORY", "LOGICAL", "UNIQUE"]
    today = datetime.now(UTC).date()
    fields = row.split()
    assert fields[0] == "a"
    assert " 2     2          " in row
    assert {today.isoformat(), (today - timedelta(1)).isoformat()} & set(fields)
    assert not empty
    assert totals[0].startswith("store         ")
    assert totals[0].endswith("; 1 repository, 2 tags, 2 manifests")
    images = image_of(LAYER), image_of(b"y" * 10)
    size = sum(image.manifest.size + image.config.size for image in images)
    found = json.loads(document)
    assert found["repositories"] == []
    assert found["store"]["blobs"] == {"count": 4, "bytes": size}
    assert found["store"]["growth"][0] == {"days": 1, "bytes": size}
    assert found["store"]["pulls_recorded_since"] is None


def test_an_unreadable_manifest_is_named(tmp_path):
    path = write_configuration(tmp_path)
    with RegistryProcess(*SERVE, path, cwd=tmp_path) as server:
        digest = push(server, "v1", LAYER)
    hexadecimal = digest.partition(":")[2]
    folder = tmp_path / "store/docker/registry/v2/blobs/sha256" / hexadecimal[:2] / hexadecimal
    (folder / "data").write_bytes(b"{}")
    status, out, err = run(*STATS, "--sort", "name", "--top", "1", path, cwd=tmp_path)
    assert (status, err) == (0, [])
    assert "a: has an unreadable manifest; it uses more than is shown\n" in out
    assert "\nunreferenced  2.0 KiB in 1 file\n" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--top", "0"), "expected 1 or more"),
        (("--sort", "size"), "invalid choice"),
        (("--repository", "A"), "--repository A: expected a repository name"),
    ],
)
def test_wrong_usage_is_explained(tmp_path, words, message):
    status, out, err = run(*STATS, *words, cwd=tmp_path)
    assert (status, out, len(err)) == (2, "", 1)
    assert message in err[0]


def test_a_store_in_memory_is_rejected(tmp_path):
    text = CONFIGURATION.replace("filesystem:\n    rootdirectory: {root}", "inmemory: {{}}")
    status, _, err = run(*STATS, write_configuration(tmp_path, text), cwd=tmp_path)
    assert status == 1
    assert "storage.inmemory: a command cannot open the store of another process" in err[0]
