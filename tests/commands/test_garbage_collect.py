"""The command ``garbage-collect``."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from tests.commands.image_push import image_of, push
from tests.support.manifests import digest_of
from tests.support.processes import (
    CONFIGURATION,
    SERVE,
    RegistryProcess,
    environment,
    run,
    wait_until,
    write_configuration,
)
from twisted_registry.commands.garbage_collect import CollectionProgress
from twisted_registry.commands.output import ProgressBar

COLLECT = (sys.executable, "-m", "twisted_registry", "garbage-collect")


def configuration(folder, grace="0s"):
    gc = f"  maintenance: {{{{gc: {{{{grace: {grace}}}}}}}}}\n  delete: {{{{enabled: true}}}}\n"
    return write_configuration(folder, CONFIGURATION.replace("storage:\n", f"storage:\n{gc}"))


def delete(server, digest):
    assert server.ask("DELETE", f"/v2/a/manifests/{digest}")[0].status == 202


def blobs(folder):
    return {path.parent.name for path in (folder / "store").rglob("blobs/**/data")}


@pytest.fixture
def filled(tmp_path):
    """A store with one image, and another one whose manifest was deleted."""
    path = configuration(tmp_path)
    with RegistryProcess(*SERVE, path, cwd=tmp_path) as server:
        kept = push(server, "kept", b"kept layer")
        doomed = push(server, "doomed", b"doomed layer")
        delete(server, doomed)
        server.stop()
    return tmp_path, path, kept, doomed


def test_the_blobs_of_a_deleted_image_are_deleted(filled):
    folder, path, kept, doomed = filled
    status, out, err = run(*COLLECT, path, cwd=folder)
    assert (status, err) == (0, [])
    size = image_of(b"doomed layer").manifest.size
    assert out.splitlines() == [
        "a",
        f"a: marking manifest {kept}",
        *(
            f"blob eligible for deletion: {digest}"
            for digest in sorted([doomed, digest_of(b"doomed layer")])
        ),
        f"2 blobs marked, 2 blobs and 0 manifests deleted ({12 + size} bytes)",
    ]
    kept_blobs = {digest.partition(":")[2] for digest in (kept, digest_of(b"kept layer"))}
    assert blobs(folder) == kept_blobs


def test_a_dry_run_deletes_nothing(filled):
    folder, path, *_ = filled
    before = blobs(folder)
    for flag in ("-d", "--dry-run", "--dry-run=true"):
        status, out, _ = run(*COLLECT, flag, path, cwd=folder)
        assert status == 0
        assert "2 blobs and 0 manifests eligible for deletion" in out
    assert blobs(folder) == before


def test_flags_of_distribution_are_accepted(filled):
    folder, path, *_ = filled
    status, out, _ = run(*COLLECT, "-q", "-m", "--dry-run=false", path, cwd=folder)
    assert status == 0
    assert out.count("\n") == 1


def test_the_counts_are_printed_as_json(filled):
    folder, path, *_ = filled
    status, out, _ = run(*COLLECT, "--json", path, cwd=folder)
    assert status == 0
    found = json.loads(out)
    assert (found["repositories"], found["marked"], found["blobs"]) == (1, 2, 2)
    assert found["troubled"] == []


def test_untagged_manifests_are_deleted_on_request(tmp_path):
    path = configuration(tmp_path)
    with RegistryProcess(*SERVE, path, cwd=tmp_path) as server:
        first = push(server, "latest", b"first")
        second = push(server, "latest", b"second")
        server.stop()
    assert "2 blobs and" not in run(*COLLECT, path, cwd=tmp_path)[1]
    status, out, _ = run(*COLLECT, "--delete-untagged", path, cwd=tmp_path)
    assert status == 0
    assert f"a: manifest eligible for deletion: {first}" in out
    assert "2 blobs and 1 manifests deleted" in out
    assert second.partition(":")[2] in blobs(tmp_path)


def test_a_collection_runs_while_a_registry_serves(tmp_path):
    path = configuration(tmp_path)
    with RegistryProcess(*SERVE, path, cwd=tmp_path) as server:
        kept = push(server, "kept", b"kept layer")
        delete(server, push(server, "doomed", b"doomed layer"))
        # What a client requested lately is kept for the grace period, which is 0 here.
        status, out, err = run(*COLLECT, "--quiet", path, cwd=tmp_path)
        assert (status, err) == (0, [])
        assert "2 blobs and 0 manifests deleted" in out
        doomed = digest_of(b"doomed layer")
        assert server.ask("HEAD", f"/v2/a/blobs/{doomed}")[0].status == 404
        assert server.ask("GET", f"/v2/a/manifests/{kept}")[0].status == 200
        # Deleted content can be pushed again at once.
        again = push(server, "doomed", b"doomed layer")
        assert server.ask("GET", f"/v2/a/manifests/{again}")[0].status == 200
        server.stop()


def test_within_the_grace_period_nothing_is_deleted(filled):
    folder, _, *_ = filled
    before = blobs(folder)
    status, out, err = run(*COLLECT, "-q", configuration(folder, "24h"), cwd=folder)
    assert (status, err) == (0, [])
    assert "0 blobs and 0 manifests deleted" in out
    assert "2 blobs and 0 manifests kept for now" in out
    assert "younger than storage.maintenance.gc.grace, 1 day" in out
    assert blobs(folder) == before
    status, out, _ = run(*COLLECT, "--json", configuration(folder, "24h"), cwd=folder)
    assert json.loads(out)["young_blobs"] == 2


def test_the_grace_period_can_be_shortened_for_one_collection(filled):
    folder, *_ = filled
    command = (*COLLECT, "-q", configuration(folder, "24h"))
    status, out, _ = run(*command, "--grace", "1d", cwd=folder)
    assert status == 0
    assert "younger than --grace, 1 day" in out
    status, out, _ = run(*command, "--grace", "0s", cwd=folder)
    assert status == 0
    assert "2 blobs and 0 manifests deleted" in out
    status, out, (line,) = run(*command, "--grace", "soon", cwd=folder)
    assert (status, out) == (2, "")
    assert "--grace: not a duration such as 2h or 0s: 'soon'" in line


def test_content_that_clients_asked_for_is_kept_until_a_time_and_deleted_by_waiting(tmp_path):
    path = configuration(tmp_path, "6s")
    with RegistryProcess(*SERVE, path, cwd=tmp_path) as server:
        delete(server, push(server, "doomed", b"doomed layer"))
        blob = f"/v2/a/blobs/{digest_of(b'doomed layer')}"
        assert server.ask("HEAD", blob)[0].status == 200
        status, out, err = run(*COLLECT, "-q", "--grace", "0s", path, cwd=tmp_path)
        assert (status, err) == (0, [])
        found = re.search(r"items? kept, because .*; can be deleted after (\S+), or", out)
        assert datetime.fromisoformat(found[1]) > datetime.now(UTC) - timedelta(minutes=1)
        # The registry obeys the list of the collector a moment longer.
        wait_until(lambda: server.ask("HEAD", blob)[0].status == 200)
        status, out, err = run(*COLLECT, "-q", "--grace", "0s", "--wait", path, cwd=tmp_path)
        assert status == 0
        assert " kept, because clients asked for them; waiting until " in err[0]
        assert "kept, because" not in out
        assert server.ask("HEAD", blob)[0].status == 404
        server.stop()


def test_a_repository_with_an_unreadable_manifest_is_printed_and_kept(filled):
    folder, path, kept, _ = filled
    hexadecimal = kept.partition(":")[2]
    (blob,) = (folder / "store").rglob(f"blobs/**/{hexadecimal}/data")
    blob.write_bytes(b"damaged")
    status, out, _ = run(*COLLECT, "-q", path, cwd=folder)
    assert status == 0
    assert "a: has an unreadable manifest; all of its blobs are kept" in out
    assert digest_of(b"kept layer").partition(":")[2] in blobs(folder)


def test_a_store_in_memory_is_rejected(tmp_path):
    path = write_configuration(tmp_path, "version: 0.1\nstorage: inmemory\n")
    status, out, err = run(*COLLECT, path, cwd=tmp_path)
    assert (status, out) == (1, "")
    (line,) = err
    assert line == (
        f"twisted-registry: {path}: storage.inmemory: a command cannot open the store of another"
        " process"
    )


def test_an_interrupted_wait_for_another_process_deletes_nothing(filled):
    folder, path, *_ = filled
    record = folder / "store/twisted-registry/collector/processes/somebody"
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_bytes(b"")
    before = blobs(folder)
    collecting = subprocess.Popen(
        [*COLLECT, path], cwd=folder, env=environment(), stderr=subprocess.PIPE, text=True
    )
    published = folder / "store/twisted-registry/collector/list"
    wait_until(published.exists)
    collecting.send_signal(signal.SIGINT)
    _, err = collecting.communicate(timeout=30)
    assert collecting.returncode == 1
    assert "interrupted" in err
    assert not published.exists()
    assert blobs(folder) == before


def test_a_bar_is_shown_on_a_terminal(filled):
    folder, path, *_ = filled
    master, slave = pty.openpty()
    with subprocess.Popen(
        [*COLLECT, path], cwd=folder, env=environment(), stderr=slave, stdout=subprocess.PIPE
    ) as collecting:
        out, _ = collecting.communicate(timeout=60)
    os.close(slave)
    shown = os.read(master, 1_000_000).decode()
    os.close(master)
    assert out.decode().count("\n") == 1
    assert "marking: 1 repository, now a" in shown
    assert f"removing [{'#' * 40}] 2 of 2" in shown
    assert shown.endswith("\r\x1b[K")


def test_the_bar_shows_repositories_and_deleted_items():
    out = io.StringIO()
    bar = CollectionProgress(ProgressBar(out))
    bar.repository_started("x" * 100)
    bar.removed(1, 4)
    assert out.getvalue() == (
        f"\r\x1b[Kmarking: 1 repository, now {'x' * 40}"
        f"\r\x1b[Kremoving [{'#' * 10}{' ' * 30}] 1 of 4"
    )


def test_explain_prints_why_a_digest_is_kept(filled):
    folder, path, kept, doomed = filled
    status, out, err = run(*COLLECT, "--explain", digest_of(b"kept layer"), path, cwd=folder)
    assert (status, err) == (0, [])
    head, why = out.splitlines()
    assert head.startswith(f"{digest_of(b'kept layer')}: 10 bytes, stored ")
    assert why == f"  kept: a@{kept}: tagged kept"
    status, out, _ = run(*COLLECT, "--explain", doomed, path, cwd=folder)
    assert status == 0
    assert out.splitlines()[1] == (
        "deleted by the next collection after its grace period, which is over"
    )
    status, out, err = run(
        *COLLECT, "--json", "--explain", digest_of(b"kept layer"), path, cwd=folder
    )
    assert (status, err) == (0, [])
    found = json.loads(out)
    assert (found["kept"], found["goes"], found["size"]) == (True, None, 10)
    assert datetime.fromisoformat(found["stored"]) <= datetime.now(UTC)
    assert [(held["manifest"], held["tags"]) for held in found["holders"]] == [(kept, ["kept"])]
    _, out, _ = run(*COLLECT, "--explain", doomed, configuration(folder, "24h"), cwd=folder)
    assert "after its grace period, which ends at 2" in out
    assert blobs(folder) >= {doomed.partition(":")[2]}
    status, out, _ = run(*COLLECT, "--explain", digest_of(b"nothing"), path, cwd=folder)
    assert (status, out) == (1, f"{digest_of(b'nothing')}: not stored\n")
    status, _, err = run(*COLLECT, "--explain", "nothing", path, cwd=folder)
    assert status == 2
    assert err[0].startswith("twisted-registry: --explain: ")
