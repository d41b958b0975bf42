"""Rights of files and folders."""

from __future__ import annotations

import os

import pytest

from tests.doctor.conftest import as_nobody
from twisted_registry.doctor.files import check_appendable, check_file, check_folder


def only(found):
    (finding,) = found
    return finding


def test_a_file_that_can_be_read_is_fine(tmp_path):
    (tmp_path / "users").write_text("x")
    (tmp_path / "users").chmod(0o600)
    assert check_file("auth", str(tmp_path / "users"), is_secret=True) == []


def test_a_missing_file_is_named(tmp_path):
    found = only(check_file("http.tls.key", f"{tmp_path}/key.pem"))
    assert str(found) == (
        f"http.tls.key: {tmp_path}/key.pem does not exist (open); create it, or correct the key"
    )
    assert not found.is_warning


def test_a_file_that_the_registry_creates_may_be_missing(tmp_path):
    assert check_file("auth", f"{tmp_path}/new/users", is_created=True) == []


def test_a_directory_in_place_of_a_file_is_found(tmp_path):
    assert "is a directory" in only(check_file("auth", str(tmp_path))).problem
    assert "is a directory" in only(check_appendable("log.audit", str(tmp_path))).problem


def test_an_unreadable_file_comes_with_its_rights_and_the_command(shared):
    path = shared / "users"
    path.write_text("secret")
    path.chmod(0o000)
    found = only(as_nobody(lambda: check_file("auth.htpasswd.path", str(path))))
    assert f"may not read {path}" in found.problem
    assert "mode 0000" in found.evidence
    assert f"chmod g+r {path}" in found.advice


@pytest.mark.parametrize("check", [check_file, check_appendable, check_folder])
def test_the_folder_that_cannot_be_entered_is_named(shared, check):
    closed = shared / "closed"
    closed.mkdir()
    (closed / "file").write_text("")
    closed.chmod(0o000)
    found = only(as_nobody(lambda: check("key", f"{closed}/file")))
    closed.chmod(0o755)
    assert f"{closed}: mode 0000" in found.evidence
    assert f"chmod g+x {closed}" in found.advice


def test_secrets_that_everyone_can_read_are_a_warning(tmp_path):
    path = tmp_path / "key.pem"
    path.write_text("key")
    path.chmod(0o644)
    found = only(check_file("http.tls.key", str(path), is_secret=True))
    assert found.is_warning
    assert "mode 0644" in found.evidence
    assert found.advice == f"chmod o-rwx {path}"


def test_wrong_content_is_told(tmp_path):
    def parse(content):
        raise ValueError(f"line 1: {len(content)} bytes")

    (tmp_path / "users").write_text("x")
    found = only(check_file("auth", f"{tmp_path}/users", parse=parse))
    assert found.problem == f"{tmp_path}/users: line 1: 1 bytes"


def test_a_log_can_be_created_in_a_folder_only(tmp_path, shared):
    assert check_appendable("log.audit", f"{tmp_path}/audit.log") == []
    found = only(check_appendable("log.audit", f"{tmp_path}/no/audit.log"))
    assert found.advice == f"mkdir -p {tmp_path}/no"
    log = shared / "audit.log"
    log.write_text("")
    log.chmod(0o444)
    assert "may not write" in only(as_nobody(lambda: check_appendable("log", str(log)))).problem


def test_a_folder_is_created_below_one_that_may_be_written(tmp_path, shared):
    assert check_folder("root", f"{tmp_path}/a/b") == []
    shared.chmod(0o555)
    found = only(as_nobody(lambda: check_folder("root", f"{shared}/a/b")))
    assert "may not create it" in found.problem
    assert f"{shared}: mode 0555" in found.evidence
    assert found.advice.startswith("install -d -m 0750 -o ")


def test_folders_that_cannot_be_used_are_found(tmp_path, shared):
    (tmp_path / "file").write_text("")
    assert "is not a directory" in only(check_folder("root", f"{tmp_path}/file")).problem
    assert "Not a directory" in only(check_folder("root", f"{tmp_path}/file/x")).evidence
    found = only(check_folder("root", f"{tmp_path}/none", is_written=False))
    assert "does not exist" in found.problem
    shared.chmod(0o555)
    assert "chmod g+rwx" in only(as_nobody(lambda: check_folder("root", str(shared)))).advice
    assert as_nobody(lambda: check_folder("root", str(shared), is_written=False)) == []


@pytest.mark.parametrize("name", ["", "new/folder"])
def test_a_read_only_file_system_is_named(tmp_path, monkeypatch, name):
    mounted = os.statvfs_result([0] * 8 + [os.ST_RDONLY, 255, 0])
    monkeypatch.setattr("os.statvfs", lambda _: mounted)
    monkeypatch.setattr("os.access", lambda _path, mode: not mode & os.W_OK)
    found = only(check_folder("key", str(tmp_path / name)))
    assert found.problem == f"{tmp_path} is on a read-only file system"
    assert "chmod" not in found.advice
