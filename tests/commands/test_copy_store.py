"""The command ``copy-store``."""

from __future__ import annotations

import io
import json
import sys

import pytest

from tests.commands.image_push import push
from tests.support.manifests import digest_of
from tests.support.processes import CONFIGURATION, SERVE, RegistryProcess, run, write_configuration
from twisted_registry.commands.copy_store import draw_progress
from twisted_registry.commands.output import ProgressBar
from twisted_registry.maintenance.store_copy import StoreCopyResult

COPY = (sys.executable, "-m", "twisted_registry", "copy-store")


def files(folder):
    root = folder / "store"
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and "twisted-registry" not in path.parts
    }


@pytest.fixture
def folders(tmp_path):
    """A store with two images, and an empty store."""
    source, target = tmp_path / "source", tmp_path / "target"
    for folder in source, target:
        folder.mkdir()
        write_configuration(folder)
    with RegistryProcess(*SERVE, source / "registry.yml", cwd=tmp_path) as server:
        push(server, "one", b"first layer")
        push(server, "two", b"second layer")
        server.stop()
    return source, target


def copy(source, target, *flags, **environ):
    return run(
        *COPY, *flags, source / "registry.yml", target / "registry.yml", cwd=target, **environ
    )


def test_stores_are_copied_while_registries_serve(folders):
    source, target = folders
    with (
        RegistryProcess(*SERVE, source / "registry.yml", cwd=source) as old,
        RegistryProcess(*SERVE, target / "registry.yml", cwd=target) as new,
    ):
        status, out, err = copy(source, target)
        assert (status, err) == (0, [])
        assert out.startswith("4 blobs copied (")
        assert out.endswith("0 already present; 2 manifests and 2 tags linked in 1 repository\n")
        for tag in "one", "two":
            path = f"/v2/a/manifests/{tag}"
            assert new.ask(path=path)[1] == old.ask(path=path)[1]
        assert new.ask(path=f"/v2/a/blobs/{digest_of(b'first layer')}")[1] == b"first layer"
    assert files(target) == files(source)


def test_a_second_run_copies_nothing_and_prints_json(folders):
    copy(*folders)
    status, out, _ = copy(*folders, "--json")
    assert status == 0
    assert json.loads(out) == {
        "repositories": 1, "blobs": 0, "bytes": 0, "present": 4, "manifests": 0, "tags": 0,
        "damaged": [],
    }  # fmt: skip


def test_damaged_blobs_are_left_out_and_printed(folders):
    source, target = folders
    digest = digest_of(b"first layer")
    (path,) = (source / "store").rglob(f"blobs/**/{digest.partition(':')[2]}/data")
    path.write_bytes(b"first lawyer")
    status, out, _ = copy(source, target)
    assert status == 1
    assert f"{digest}: its bytes are those of {digest_of(b'first lawyer')}\n" in out
    assert "not copied" in out


def test_registry_variables_are_ignored(folders):
    source, target = folders
    elsewhere = str(target / "elsewhere")
    assert copy(source, target, REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY=elsewhere)[0] == 0
    assert files(target) == files(source)


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("a", "a", "FROM and TO are the same store"),
        ("a", "memory", "{0}/memory/registry.yml: storage.inmemory: a command cannot open the"),
        (
            "none",
            "a",
            "{0}/none/registry.yml: storage.filesystem.rootdirectory: {0}/none/store: not",
        ),
        ("b", "a", "FROM has no repositories; check its rootdirectory"),
    ],
)
def test_stores_that_cannot_be_copied_are_reported(tmp_path, source, target, message):
    for name in "a", "b", "none", "memory":
        (tmp_path / name).mkdir()
        text = "version: 0.1\nstorage: inmemory\n" if name == "memory" else CONFIGURATION
        write_configuration(tmp_path / name, text)
    for name in "a", "b":
        (tmp_path / name / "store").mkdir()
    status, out, err = copy(tmp_path / source, tmp_path / target)
    assert (status, out) == (1, "")
    (line,) = err
    assert line.startswith(f"twisted-registry: {message.format(tmp_path)}")


def test_an_unreachable_bucket_is_an_error(folders):
    source, target = folders
    (target / "registry.yml").write_text(
        "version: 0.1\nstorage: {s3: {bucket: b, region: r, accesskey: a, secretkey: s,"
        " secure: false, regionendpoint: 'http://127.0.0.1:1'}}\n"
    )
    status, _, err = copy(source, target)
    assert status == 1
    assert err[-1].startswith(f"twisted-registry: {target}/registry.yml: storage.s3: ")


def test_the_bar_shows_bytes_and_then_repositories():
    class Copy:
        name = ""
        processed_bytes, total = 3 * 1024 * 1024, 4 * 1024 * 1024
        done = StoreCopyResult(repositories=2)

    out = io.StringIO()
    bar = ProgressBar(out)
    draw_progress(Copy, bar)
    Copy.name = "b"
    draw_progress(Copy, bar)
    assert out.getvalue() == (
        f"\r\x1b[KMiB [{'#' * 30}{' ' * 10}] 3 of 4\r\x1b[Klinking: 2 repositories, now b"
    )
