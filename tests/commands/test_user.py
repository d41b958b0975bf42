"""``user`` as an operator runs it."""

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

from tests.support.passwords import entries
from tests.support.processes import configured, environment
from twisted_registry.auth import htpasswd as htpasswd_module
from twisted_registry.auth.htpasswd import parse_htpasswd
from twisted_registry.auth.password_file import verify_password
from twisted_registry.cli import main

#: Runs a command with its standard input as the terminal that it is asked at.
AT_A_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
USER = (sys.executable, "-m", "twisted_registry", "user")


@pytest.fixture
def file(tmp_path):
    """A file of users with a comment, and one user whose hash is of no use."""
    path = tmp_path / "users"
    path.write_bytes(b"# people\n" + entries(ada="first", bob="second") + b"weak:x")
    path.chmod(0o640)
    return path


@pytest.fixture
def user(capsys, monkeypatch):
    """The command, with a password on its standard input; answers status, output, errors."""

    def run(file, *given, password=""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(password.encode())))
        status = main(["user", *given, "--htpasswd", str(file)])
        return status, *capsys.readouterr()

    return run


def knows(file, name, password):
    hashed = parse_htpasswd(file.read_bytes()).hashes.get(name)
    return hashed is not None and verify_password(password, hashed)


def test_a_user_comes_changes_and_goes(user, file):
    before = file.read_bytes()
    assert user(file, "add", "eve", password="secret\n") == (0, "", "")
    assert file.read_bytes().startswith(before + b"\neve:$2y$10$")
    assert knows(file, b"eve", b"secret")
    assert user(file, "passwd", "eve", password="other\r\n") == (0, "", "")
    assert knows(file, b"eve", b"other")
    assert user(file, "remove", "eve") == (0, "", "")
    assert file.read_bytes() == before + b"\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert [*file.parent.iterdir()] == [file]


def test_a_password_without_a_line_end_and_with_spaces(user, file):
    assert user(file, "passwd", "ada", password=" a b:ß ")[0] == 0
    assert knows(file, b"ada", " a b:ß ".encode())
    assert knows(file, b"bob", b"second")


def test_who_is_there(user, file):
    status, out, err = user(file, "list")
    assert (status, out) == (0, "ada\nbob\n")
    assert err.endswith("users: 1 lines are of no use: their hash is not bcrypt's\n")
    listed = json.loads(user(file, "list", "--json")[1])
    assert listed == [{"name": "ada", "cost": 4}, {"name": "bob", "cost": 4}]


def test_a_file_that_is_missing_is_made_for_the_first_user(user, tmp_path):
    file = tmp_path / "new" / "users"
    assert user(file, "add", "ada", password="x") == (0, "", "")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert knows(file, b"ada", b"x")


@pytest.mark.parametrize(
    ("given", "password", "said"),
    [
        (("add", "ada"), "x", "ada is there already; passwd gives another password"),
        (("passwd", "eve"), "x", "eve is not there; list shows who is"),
        (("remove", "eve"), "", "eve is not there; list shows who is"),
        (("add", "a:b"), "x", "'a:b' is no name: expected printable text without a colon"),
        (("add", ""), "x", "'' is no name: expected printable text without a colon"),
        (("add", "eve"), "", "an empty password lets everybody in"),
        (("add", "eve"), "\n", "an empty password lets everybody in"),
        (("add", "eve"), "a\0b", "a password is text"),
        (("add", "eve"), "x" * 73, "more than 72 bytes, of which bcrypt would not see the rest"),
    ],
)
def test_what_is_refused_leaves_the_file_as_it_is(user, file, given, password, said):
    before = file.read_bytes()
    assert user(file, *given, password=password) == (1, "", f"twisted-registry: {said}\n")
    assert file.read_bytes() == before


def test_a_file_that_is_none_is_not_touched(user, file):
    file.write_bytes(b"no colon\n")
    for given in (("list",), ("add", "eve"), ("remove", "eve")):
        status, out, err = user(file, *given, password="x")
        assert (status, out) == (1, "")
        assert err == f"twisted-registry: {file}: line 1: expected NAME:HASH\n"
    assert user(file.parent, "list")[2] == f"twisted-registry: {file.parent}: Is a directory\n"


def test_the_password_is_no_argument(user, file):
    with pytest.raises(SystemExit):
        user(file, "add", "eve", "--password", "x")


def test_the_file_of_the_configuration(tmp_path, file):
    auth = f"auth: {{htpasswd: {{realm: r, path: {file}}}}}\n"
    for more, expected in ((auth, (0, "ada\nbob\n")), ("", (1, ""))):
        path = configured(tmp_path, more=more)
        done = subprocess.run(
            [*USER, "list", path], capture_output=True, text=True, env=environment(), check=False
        )
        assert (done.returncode, done.stdout) == expected
    assert f"auth.htpasswd.path is not set in {path}, named on" in done.stderr


@pytest.mark.parametrize(("typed", "status"), [("secret\nsecret\n", 0), ("secret\nother\n", 1)])
def test_at_a_terminal_it_is_asked_for_twice_and_not_shown(file, typed, status):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", AT_A_TERMINAL, *USER, "add", "eve", "--htpasswd", str(file)],
        stdin=theirs, stdout=theirs, stderr=theirs, env=environment(), start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    for line, prompt in zip(
        typed.splitlines(), (b"password of eve", b"the same again"), strict=True
    ):
        while prompt not in shown:
            shown += os.read(ours, 1000)
        os.write(ours, f"{line}\n".encode())
    assert process.wait(60) == status
    with_end = os.read(ours, 1000) if status else b""
    os.close(ours)
    assert b"secret" not in shown
    assert (b"two passwords" in with_end) == bool(status)
    assert knows(file, b"eve", b"secret") == (not status)


def test_many_at_once_lose_nothing(file):
    names = [f"user{number}" for number in range(20)]

    def add(name):
        htpasswd_module.edit_file(
            str(file), lambda old: htpasswd_module.with_entry(old, name.encode(), b"x")
        )

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(add, names)) == [None] * 20
    content = file.read_bytes()
    assert all(htpasswd_module.has_entry(content, name.encode()) for name in (*names, "ada", "bob"))


def test_a_link_stays_a_link(user, tmp_path, file):
    link = tmp_path / "link"
    link.symlink_to(file)
    assert user(link, "remove", "bob")[0] == 0
    assert link.is_symlink()
    assert not htpasswd_module.has_entry(file.read_bytes(), b"bob")


def test_an_edit_that_fails_leaves_nothing_behind(file, monkeypatch):
    before = file.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        htpasswd_module.edit_file(str(file), lambda _: b"")
    assert file.read_bytes() == before
    assert [*file.parent.iterdir()] == [file]


def test_of_a_name_that_stands_twice_one_is_left():
    content = b"a:1\n# a:2\nb:1\na:3\n"
    assert htpasswd_module.with_entry(content, b"a", b"4") == b"# a:2\nb:1\na:4\n"
    assert htpasswd_module.without_entry(content, b"a") == b"# a:2\nb:1\n"
    assert htpasswd_module.with_entry(b"", b"a", b"1") == b"a:1\n"
