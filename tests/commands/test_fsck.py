"""The command ``fsck``."""

from __future__ import annotations

import io
import json
import sys
from contextlib import suppress

import pytest

from tests.commands.image_push import push
from tests.support.manifests import digest_of
from tests.support.processes import (
    CONFIGURATION,
    SERVE,
    RegistryProcess,
    run,
    wait_until,
    write_configuration,
)
from twisted_registry.commands.fsck import FindingPrinter
from twisted_registry.commands.output import ProgressBar
from twisted_registry.integrity.findings import Finding, FindingKind
from twisted_registry.storage.filesystem.tree import temporary_name

FSCK = (sys.executable, "-m", "twisted_registry", "fsck")
LAYER = b"kept layer"


def configuration(folder, more=""):
    gc = "  maintenance: {{gc: {{grace: 0s}}}}\n  delete: {{enabled: true}}\n"
    return write_configuration(
        folder, CONFIGURATION.replace("storage:\n", f"storage:\n{gc}") + more
    )


def tree(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in (folder / "store").rglob("*")
    }


def files(found):
    """The files of a tree, without the quarantine and the collector's clock."""
    return {
        name: content
        for name, content in found.items()
        if content is not None and "/quarantine/" not in name and not name.endswith("/clock")
    }


def blob(folder, content):
    hexadecimal = digest_of(content).partition(":")[2]
    (found,) = (folder / "store").rglob(f"blobs/**/{hexadecimal}/data")
    return found


@pytest.fixture
def filled(tmp_path):
    path = configuration(tmp_path)
    with RegistryProcess(*SERVE, path, cwd=tmp_path) as server:
        push(server, "kept", LAYER)
        server.stop()
    return tmp_path, path


def test_a_sound_store_has_status_0(filled):
    folder, path = filled
    before = tree(folder)
    status, out, err = run(*FSCK, path, cwd=folder)
    assert (status, err) == (0, [])
    assert out.startswith("2 blobs and manifests (")
    assert out.endswith(
        " bytes) and 1 repository checked: "
        "0 damaged, 0 sparse, 0 harmless, 0 repaired; 0 tags affected\n"
    )
    assert tree(folder) == before


def test_damage_is_printed_and_nothing_is_changed(filled):
    folder, path = filled
    blob(folder, LAYER).write_bytes(b"other bytes")
    (folder / "store" / temporary_name()).write_bytes(b"half")
    before = tree(folder)
    status, out, err = run(*FSCK, path, cwd=folder)
    assert (status, err) == (3, [])
    first, *lines = out.splitlines()
    assert first == (
        f"corrupt blob: {blob(folder, LAYER).relative_to(folder / 'store')}: "
        f"its 11 bytes have the digest {digest_of(b'other bytes')}"
    )
    assert "leftovers: /: 1 temporary file that a crash left" in lines
    assert f"affected tag: a:kept ({digest_of(LAYER)})" in lines
    status, out, _ = run(*FSCK, "--json", path, cwd=folder)
    assert status == 3
    found = json.loads(out)
    numbers = [found[name] for name in ("damaged", "sparse", "harmless", "repaired")]
    assert numbers == [1, 0, 1, 0]
    assert found["findings"][0]["kind"] == "corrupt blob"
    assert [one["severity"] for one in found["findings"]] == ["damage", "harmless"]
    assert found["findings"][0]["digest"] == digest_of(LAYER)
    assert found["tags"] == [{"repository": "a", "tag": "kept", "because": [digest_of(LAYER)]}]
    assert tree(folder) == before


def test_a_push_restores_a_quarantined_blob_in_both_processes(tmp_path):
    path = configuration(tmp_path, "  workers: 2\n")
    with RegistryProcess(*SERVE, path, cwd=tmp_path) as server:
        push(server, "kept", LAYER)
        digest = digest_of(LAYER)

        def seen():
            """The responses of both processes."""
            answers = [server.ask("GET", f"/v2/a/blobs/{digest}") for _ in range(12)]
            return {(response.status, len(content)) for response, content in answers}

        assert seen() == {(200, len(LAYER))}
        damaged = blob(tmp_path, LAYER)
        damaged.write_bytes(LAYER[:-1] + b"?")
        status, out, _ = run(*FSCK, "--repair", path, cwd=tmp_path)
        # The tag is affected until the layer is pushed again.
        assert status == 3
        assert out.splitlines()[0].endswith("(repaired)")
        assert {answer for answer, _ in seen()} == {404}
        (quarantined,) = (tmp_path / "store/twisted-registry/quarantine").rglob("data")
        assert quarantined.read_bytes() == LAYER[:-1] + b"?"

        def pushed():
            # A process may refuse the manifest until it has seen that the list is gone.
            with suppress(AssertionError):
                return push(server, "kept", LAYER)

        wait_until(pushed)
        wait_until(lambda: seen() == {(200, len(LAYER))})
        assert run(*FSCK, path, cwd=tmp_path)[0] == 0
        server.stop()


def test_leftovers_are_removed(filled):
    folder, path = filled
    before = tree(folder)
    (folder / "store" / temporary_name()).write_bytes(b"half")
    status, out, _ = run(*FSCK, "--repair", path, cwd=folder)
    assert status == 0
    assert "leftovers: /: 1 temporary file that a crash left (repaired)" in out
    assert files(tree(folder)) == files(before)


def test_a_repair_removes_what_it_can_and_the_rest_is_printed_again(filled):
    folder, path = filled
    store = folder / "store"
    before = tree(folder)
    repositories = store / "docker/registry/v2/repositories"
    (revision,) = repositories.rglob("revisions/**/link")
    (tag,) = repositories.rglob("current/link")
    layer = repositories / "a/_layers/sha256" / digest_of(LAYER).partition(":")[2] / "link"
    planted = {
        revision: b"",
        tag: b"latest",
        layer: b"sha256:?",
        repositories / "a/_layers/sha256/notes": b"?",
        repositories / "a/_uploads/12345678-1234-1234-1234-123456789abc/startedat": b"?",
        store / "twisted-registry/collector/list": b"torn",
        store / "twisted-registry/trash/blobs/sha256/00/0": b"?",
        store / temporary_name(): b"half",
    }
    for file, content in planted.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    status, out, _ = run(*FSCK, "--json", path, cwd=folder)
    assert status == 3
    found = json.loads(out)
    assert {one["kind"] for one in found["findings"]} == {
        *("empty link", "malformed link", "dangling link", "stray file"),
        *("incomplete upload", "leftovers", "torn record"),
    }
    assert [tag["tag"] for tag in found["tags"]] == ["kept"]

    status, out, _ = run(*FSCK, "--repair", "--json", path, cwd=folder)
    assert status == 0
    assert json.loads(out)["tags"] == []
    strays = {str(file.relative_to(folder)): b"?" for file in planted if planted[file] == b"?"}
    strays = {name: content for name, content in strays.items() if "_uploads" not in name}
    assert files(tree(folder)) == {**files(before), **strays}
    status, out, _ = run(*FSCK, path, cwd=folder)
    assert status == 0
    assert [line.partition(":")[0] for line in out.splitlines()[:-1]] == ["stray file"] * 2


def test_a_missing_configuration_is_an_error(filled):
    folder, _ = filled
    status, out, err = run(*FSCK, folder / "none.yml", cwd=folder)
    assert (status, out) == (1, "")
    assert "none.yml" in err[-1]


def test_a_store_in_memory_is_rejected(tmp_path):
    path = write_configuration(tmp_path, "version: 0.1\nstorage: inmemory\n")
    status, out, err = run(*FSCK, path, cwd=tmp_path)
    assert (status, out) == (1, "")
    (line,) = err
    assert line == (
        f"twisted-registry: {path}: storage.inmemory: a command cannot open the store of another"
        " process"
    )


def test_the_bar_shows_bytes_and_repositories():
    out, lines = io.StringIO(), io.StringIO()
    findings = FindingPrinter(lines, ProgressBar(out))
    assert findings.counts
    assert not FindingPrinter(lines, ProgressBar()).counts
    findings.read(2**20, 4 * 2**20)
    findings.read(2**20 + 5, 4 * 2**20)
    findings.repository_started("x" * 100)
    findings.found(Finding(FindingKind.FILE_STRAY, "a/b", repaired=True))
    assert out.getvalue() == (
        f"\r\x1b[Kreading MiB [{'#' * 10}{' ' * 30}] 1 of 4"
        f"\r\x1b[Kchecking: 1 repository, now {'x' * 40}"
        "\r\x1b[K"
    )
    assert lines.getvalue() == "stray file: a/b (repaired)\n"
