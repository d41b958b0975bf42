"""The private folder of a store: who may read what is in it."""

from __future__ import annotations

import os
import stat

import pytest

from tests.storage.filesystem.kit import make_driver, result_of
from twisted_registry.repository import layout
from twisted_registry.storage.files import make_private_directories
from twisted_registry.storage.filesystem.permissions import WidePermissions, restrict_permissions
from twisted_registry.storage.filesystem.tree import PRIVATE_FOLDER

USER = os.geteuid()


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(autouse=True)
def usual_umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_secrets_are_in_the_private_folder():
    assert all(path.startswith(f"{PRIVATE_FOLDER}/") for path in layout.SECRETS)


def test_small_files_in_the_private_folder_are_for_the_owner_only(tmp_path):
    driver = make_driver(tmp_path)
    result_of(driver.create(layout.UPLOAD_SECRET, b"secret"))
    result_of(driver.put(layout.token_record("0" * 36), b"{}"))
    result_of(driver.put("docker/registry/v2/file", b""))
    result_of(driver.create("twisted-registry-too/file", b""))
    (result_of(driver.lock("name")))()
    private = tmp_path / PRIVATE_FOLDER
    found = [private, *private.rglob("*")]
    assert len(found) == 8
    assert {mode_of(path) for path in found if path.is_dir()} == {0o700}
    assert {mode_of(path) for path in found if path.is_file()} == {0o600}
    for folder in ("docker", "docker/registry/v2", "twisted-registry-too"):
        assert mode_of(tmp_path / folder) == 0o755
        assert {mode_of(path) for path in (tmp_path / folder).rglob("file")} == {0o644}


def test_content_that_leaves_the_private_folder_is_as_readable_as_before(tmp_path):
    """Blobs pass through it: copied from another store, and restored from the trash."""
    driver = make_driver(tmp_path)
    writer = result_of(driver.writer(f"{PRIVATE_FOLDER}/incoming/blob", 0))
    writer.write(b"content")
    result_of(writer.commit())
    result_of(driver.move(f"{PRIVATE_FOLDER}/incoming/blob", "blobs/one"))
    result_of(writer.close())
    result_of(driver.move("blobs/one", f"{PRIVATE_FOLDER}/trash/one"))
    result_of(driver.copy(f"{PRIVATE_FOLDER}/trash/one", "blobs/one"))
    assert mode_of(tmp_path / PRIVATE_FOLDER) == 0o700
    assert mode_of(tmp_path / "blobs" / "one") == 0o644


def wide_store(folder):
    """A store that an earlier release has written."""
    for path in (layout.UPLOAD_SECRET, layout.TOKEN_KEYS):
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("secret")
        file.chmod(0o644)
        file.parent.chmod(0o755)
    return folder / PRIVATE_FOLDER


def test_wide_permissions_are_restricted_once(tmp_path):
    private = wide_store(tmp_path)
    found = restrict_permissions(str(tmp_path), layout.SECRETS, USER)
    assert found == [
        WidePermissions(str(private), 0o755),
        WidePermissions(str(private / "upload-secret"), 0o644),
        WidePermissions(str(private / "tokens"), 0o755),
        WidePermissions(str(private / "tokens" / "keys"), 0o644),
    ]
    assert mode_of(private) == mode_of(private / "tokens") == 0o700
    assert mode_of(private / "upload-secret") == mode_of(private / "tokens" / "keys") == 0o600
    assert restrict_permissions(str(tmp_path), layout.SECRETS, USER) == []


def test_folder_of_another_user_is_reported_and_not_changed(tmp_path):
    private = wide_store(tmp_path)
    found = restrict_permissions(str(tmp_path), (), USER + 1)
    assert found == [WidePermissions(str(private), 0o755, "it belongs to another user")]
    assert mode_of(private) == 0o755


def test_store_without_a_private_folder_stays_without(tmp_path):
    assert restrict_permissions(str(tmp_path), layout.SECRETS, USER) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(USER != 0, reason="only root can give files away")
def test_what_root_makes_belongs_to_the_owner_of_the_store(tmp_path):
    """Otherwise the serving user could not read a token or a list that root has made."""
    os.chown(tmp_path, 12345, 54321)
    driver = make_driver(tmp_path)
    result_of(driver.put(layout.token_record("0" * 36), b"{}"))
    result_of(driver.create(layout.UPLOAD_SECRET, b"secret"))
    (result_of(driver.lock("name")))()
    make_private_directories(tmp_path / PRIVATE_FOLDER / "collector" / "below")
    private = tmp_path / PRIVATE_FOLDER
    found = [private, *private.rglob("*")]
    assert len(found) == 10
    assert {(path.stat().st_uid, path.stat().st_gid) for path in found} == {(12345, 54321)}
    assert mode_of(private / "collector" / "below") == 0o700
