"""The command ``user``."""

from __future__ import annotations

import io
import json
import os
import pty
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.passwords import password_lines
from tests.support.processes import environment, write_configuration
from twisted_registry.auth import htpasswd as htpasswd_module
from twisted_registry.auth.htpasswd import parse_htpasswd
from twisted_registry.auth.password_file import verify_password
from twisted_registry.cli import main

#: Runs a command whose controlling terminal is its standard input.
AT_A_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
USER = (sys.executable, "-m", "twisted_registry", "user")


@pytest.fixture
def htpasswd_file(tmp_path):
    """An htpasswd file with a comment, two users, and one whose hash is not bcrypt."""
    path = tmp_path / "users"
    path.write_bytes(b"# people\n" + password_lines(ada="first", bob="second") + b"weak:x")
    path.chmod(0o640)
    return path


@pytest.fixture
def user(capsys, monkeypatch):
    """Runs the command with a password on standard input; returns status, output, errors."""

    def run(path, *given, password=""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(password.encode())))
        status = main(["user", *given, "--htpasswd", str(path)])
        return status, *capsys.readouterr()

    return run


def knows(path, name, password):
    hashed = parse_htpasswd(path.read_bytes()).hashes.get(name)
    return hashed is not None and verify_password(password, hashed)


def test_a_user_is_added_changed_and_removed(user, htpasswd_file):
    before = htpasswd_file.read_bytes()
    assert user(htpasswd_file, "add", "eve", password="secret\n") == (0, "", "")
    assert htpasswd_file.read_bytes().startswith(before + b"\neve:$2y$10$")
    assert knows(htpasswd_file, b"eve", b"secret")
    assert user(htpasswd_file, "passwd", "eve", password="other\r\n") == (0, "", "")
    assert knows(htpasswd_file, b"eve", b"other")
    assert user(htpasswd_file, "remove", "eve") == (0, "", "")
    assert htpasswd_file.read_bytes() == before + b"\n"
    assert stat.S_IMODE(htpasswd_file.stat().st_mode) == 0o640
    assert [*htpasswd_file.parent.iterdir()] == [htpasswd_file]


def test_a_password_keeps_its_spaces_and_needs_no_line_end(user, htpasswd_file):
    assert user(htpasswd_file, "passwd", "ada", password=" a b:ß ")[0] == 0
    assert knows(htpasswd_file, b"ada", " a b:ß ".encode())
    assert knows(htpasswd_file, b"bob", b"second")


def test_users_are_listed(user, htpasswd_file):
    status, out, err = user(htpasswd_file, "list")
    assert (status, out) == (0, "ada\nbob\n")
    assert err.endswith("users: ignored: line 4: expected NAME:HASH with a bcrypt hash\n")
    listed = json.loads(user(htpasswd_file, "list", "--json")[1])
    assert listed == {"users": [{"name": "ada", "cost": 4}, {"name": "bob", "cost": 4}]}


def test_a_missing_file_is_created_for_the_first_user(user, tmp_path):
    path = tmp_path / "new" / "users"
    assert user(path, "add", "ada", password="x") == (0, "", "")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert knows(path, b"ada", b"x")


@pytest.mark.parametrize(
    ("given", "password", "message"),
    [
        (("add", "ada"), "x", "ada already exists; use passwd to change the password"),
        (("passwd", "eve"), "x", "eve does not exist; use list to print the users"),
        (("remove", "eve"), "", "eve does not exist; use list to print the users"),
        (("add", "a:b"), "x", "invalid name 'a:b': expected printable text without a colon"),
        (("add", ""), "x", "invalid name '': expected printable text without a colon"),
        (("add", "eve"), "", "the password is empty"),
        (("add", "eve"), "\n", "the password is empty"),
        (("add", "eve"), "a\0b", "the password contains a null byte"),
        (("add", "eve"), "x" * 73, "the password is longer than 72 bytes; bcrypt ignores the rest"),
    ],
)
def test_a_rejected_change_leaves_the_file_unchanged(user, htpasswd_file, given, password, message):
    before = htpasswd_file.read_bytes()
    assert user(htpasswd_file, *given, password=password) == (
        2 if message.startswith("invalid name") else 1,
        "",
        f"twisted-registry: {message}\n",
    )
    assert htpasswd_file.read_bytes() == before


def test_an_invalid_file_is_not_changed(user, htpasswd_file):
    htpasswd_file.write_bytes(b"no colon\n")
    for given in (("list",), ("add", "eve"), ("remove", "eve")):
        status, out, err = user(htpasswd_file, *given, password="x")
        assert (status, out) == (1, "")
        assert err == f"twisted-registry: {htpasswd_file}: line 1: expected NAME:HASH\n"
    assert (
        user(htpasswd_file.parent, "list")[2]
        == f"twisted-registry: {htpasswd_file.parent}: Is a directory\n"
    )


def test_a_password_is_not_an_argument(user, htpasswd_file):
    with pytest.raises(SystemExit):
        user(htpasswd_file, "add", "eve", "--password", "x")


def test_the_file_of_the_configuration_is_used(tmp_path, htpasswd_file):
    auth = f"auth: {{htpasswd: {{realm: r, path: {htpasswd_file}}}}}\n"
    for more, expected in ((auth, (0, "ada\nbob\n")), ("", (1, ""))):
        path = write_configuration(tmp_path, more=more)
        done = subprocess.run(
            [*USER, "list", path], capture_output=True, text=True, env=environment(), check=False
        )
        assert (done.returncode, done.stdout) == expected
    assert f"auth.htpasswd.path is not set in {path}, named on" in done.stderr


@pytest.mark.parametrize(("typed", "status"), [("secret\nsecret\n", 0), ("secret\nother\n", 1)])
def test_a_terminal_prompts_twice_without_echo(htpasswd_file, typed, status):
    terminal, other_end = pty.openpty()
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", AT_A_TERMINAL, *USER, "add", "eve"),
            *("--htpasswd", str(htpasswd_file)),
        ],
        stdin=other_end,
        stdout=other_end,
        stderr=other_end,
        env=environment(),
        start_new_session=True,
    )
    os.close(other_end)
    shown = b""
    for line, prompt in zip(
        typed.splitlines(), (b"password of eve", b"repeat the password"), strict=True
    ):
        while prompt not in shown:
            shown += os.read(terminal, 1000)
        os.write(terminal, f"{line}\n".encode())
    assert process.wait(60) == status
    rest = os.read(terminal, 1000) if status else b""
    os.close(terminal)
    assert b"secret" not in shown
    assert (b"the passwords differ" in rest) == bool(status)
    assert knows(htpasswd_file, b"eve", b"secret") == (not status)


def test_concurrent_edits_lose_nothing(htpasswd_file):
    names = [f"user{number}" for number in range(20)]

    def add(name):
        htpasswd_module.edit_file(
            str(htpasswd_file), lambda old: htpasswd_module.with_entry(old, name.encode(), b"x")
        )

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(add, names)) == [None] * 20
    content = htpasswd_file.read_bytes()
    assert all(htpasswd_module.has_entry(content, name.encode()) for name in (*names, "ada", "bob"))


def test_a_symbolic_link_is_kept(user, tmp_path, htpasswd_file):
    link = tmp_path / "link"
    link.symlink_to(htpasswd_file)
    assert user(link, "remove", "bob")[0] == 0
    assert link.is_symlink()
    assert not htpasswd_module.has_entry(htpasswd_file.read_bytes(), b"bob")


def test_a_failed_edit_leaves_no_file_behind(htpasswd_file, monkeypatch):
    before = htpasswd_file.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        htpasswd_module.edit_file(str(htpasswd_file), lambda _: b"")
    assert htpasswd_file.read_bytes() == before
    assert [*htpasswd_file.parent.iterdir()] == [htpasswd_file]


@pytest.mark.parametrize("name", [b"ada", b"bob"])
def test_an_entry_is_removed_without_space_for_a_new_file(htpasswd_file, monkeypatch, name):
    before = htpasswd_file.read_bytes()
    users = htpasswd_module.parse_htpasswd(before).hashes

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(htpasswd_module, "temporary_file", fail)
    htpasswd_module.remove_entry(str(htpasswd_file), name, lambda _: None)
    after = htpasswd_file.read_bytes()
    assert len(after) == len(before)
    assert users[name] not in after
    left = htpasswd_module.parse_htpasswd(after)
    assert left.hashes == {other: users[other] for other in users if other != name}
    assert len(left.ignored) == len(htpasswd_module.parse_htpasswd(before).ignored)
    # The next edit that has space finds a file as before.
    monkeypatch.undo()
    htpasswd_module.edit_file(
        str(htpasswd_file), lambda content: htpasswd_module.with_entry(content, name, b"x")
    )
    assert htpasswd_module.has_entry(htpasswd_file.read_bytes(), name)


@pytest.mark.parametrize(("folder", "file"), [(0o2750, 0o640), (0o750, 0o600), (0o777, 0o600)])
def test_a_new_file_is_readable_to_the_group_in_a_shared_directory(tmp_path, folder, file):
    directory = tmp_path / "etc"
    directory.mkdir()
    directory.chmod(folder)
    path = directory / "users"
    htpasswd_module.edit_file(str(path), lambda _: b"ada:x\n")
    assert path.stat().st_mode & 0o777 == file
    path.chmod(0o600)
    htpasswd_module.edit_file(str(path), lambda _: b"bob:x\n")
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_removal_is_not_made_in_place_for_another_error(htpasswd_file, monkeypatch):
    before = htpasswd_file.read_bytes()

    def fail(*_):
        raise OSError(13, "Permission denied")

    monkeypatch.setattr(htpasswd_module, "temporary_file", fail)
    with pytest.raises(OSError, match="Permission"):
        htpasswd_module.remove_entry(str(htpasswd_file), b"bob", lambda _: None)
    assert htpasswd_file.read_bytes() == before


def test_a_duplicate_entry_is_replaced_by_one():
    content = b"a:1\n# a:2\nb:1\na:3\n"
    assert htpasswd_module.with_entry(content, b"a", b"4") == b"# a:2\nb:1\na:4\n"
    assert htpasswd_module.without_entry(content, b"a") == b"# a:2\nb:1\n"
    assert htpasswd_module.with_entry(b"", b"a", b"1") == b"a:1\n"
