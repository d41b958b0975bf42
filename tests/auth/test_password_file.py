"""The checker for an htpasswd file: results, costs, and when the file is read."""

from __future__ import annotations

import os
import stat

import pytest
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from tests.support.passwords import password_lines
from twisted_registry.auth.access import AuthenticationUnavailable
from twisted_registry.auth.basic import IVersionedChecker
from twisted_registry.auth.htpasswd import HtpasswdInvalid, parse_htpasswd
from twisted_registry.auth.password_file import (
    PasswordFile,
    create_if_missing,
    hash_password,
    verify_password,
)


def ask(checker, name, password):
    """The name, or the type of the error."""
    answers = []
    checker.requestAvatarId(UsernamePassword(name, password)).addBoth(answers.append)
    (answer,) = answers
    return getattr(answer, "type", answer)


def test_checker_interfaces(written):
    assert verifyObject(ICredentialsChecker, written.checker())
    assert verifyObject(IVersionedChecker, written.checker())


def test_passwords_are_checked(written):
    written.write(password_lines(me="secret", you="other"))
    checker = written.checker()
    assert ask(checker, b"me", b"secret") == b"me"
    for name, password in ((b"me", b"other"), (b"me", b""), (b"nobody", b"secret"), (b"", b"")):
        assert ask(checker, name, password) is UnauthorizedLogin


def test_unknown_name_costs_as_much_as_a_known_one(written, counted):
    dear = b"dear:" + hash_password(b"x", 5) + b"\n"
    written.write(password_lines(me="secret") + dear + b"weak:$apr1$abc$NlhuBqv/5jhqpEy0ebBjR0\n")
    checker = written.checker()
    for name in (b"dear", b"nobody", b"weak", b"\xff", b""):
        ask(checker, name, b"secret")
        assert counted.take() == [5], name
    ask(checker, b"me", b"wrong")
    assert counted.take() == [4]


def test_file_is_read_again_only_when_it_has_changed(written):
    written.write(password_lines(me="secret"))
    checker = written.checker()
    version = checker.version()
    for _ in range(3):
        assert ask(checker, b"me", b"secret") == b"me"
    assert written.reads == 1
    written.write(password_lines(me="changed"))
    assert checker.version() != version is not None
    assert ask(checker, b"me", b"secret") is UnauthorizedLogin
    assert ask(checker, b"me", b"changed") == b"me"
    assert written.reads == 2


def test_replaced_file_with_the_same_time_is_read(written):
    written.write(password_lines(me="secret"))
    checker = written.checker()
    assert ask(checker, b"me", b"secret") == b"me"
    before = written.path.stat()
    other = written.path.with_name("other")
    other.write_bytes(password_lines(me="changed"))
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.rename(written.path)
    written.settle()
    assert ask(checker, b"me", b"changed") == b"me"


def test_file_modified_just_now_has_no_version(written):
    written.write(password_lines(me="secret"), settled=False)
    checker = written.checker()
    written.clock.rightNow = written.path.stat().st_mtime_ns / 1e9
    for reads in (1, 2):
        assert checker.version() is None
        assert ask(checker, b"me", b"secret") == b"me"
        assert written.reads == reads


def test_unreadable_file_makes_authentication_unavailable(written):
    checker = written.checker()
    assert ask(checker, b"me", b"secret") is AuthenticationUnavailable
    assert checker.version() is None
    written.write(b"torn")
    assert ask(checker, b"me", b"secret") is AuthenticationUnavailable
    with pytest.raises(HtpasswdInvalid):
        checker.load()


def test_ignored_lines_are_logged_once_for_each_version(written, log_events):
    written.write(password_lines(me="secret") + b"a:x\nb:y\n")
    checker = written.checker()
    checker.load()
    ask(checker, b"me", b"secret")
    (event,) = [event for event in log_events if "ignored" in event]
    assert (event["ignored"], event["path"]) == (2, str(written.path))


def test_cancelling_cancels_the_check(written):
    written.write(password_lines(me="secret"))
    gone = []
    checker = PasswordFile(str(written.path), lambda *_: Deferred(gone.append), written.clock)
    asked = checker.requestAvatarId(UsernamePassword(b"me", b"secret"))
    asked.addErrback(lambda _: None)
    asked.cancel()
    assert len(gone) == 1


def test_missing_file_is_created(tmp_path):
    path = tmp_path / "new" / "folders" / "users"
    password = create_if_missing(str(path))
    users = parse_htpasswd(path.read_bytes())
    assert verify_password(password.encode(), users.hashes[b"docker"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [*path.parent.iterdir()] == [path]
    assert create_if_missing(str(path)) is None


def test_file_created_by_another_process_is_kept(tmp_path, monkeypatch):
    path = tmp_path / "users"
    real = os.link

    def link(source, target):
        path.write_bytes(b"theirs")
        real(source, target)

    monkeypatch.setattr(os, "link", link)
    assert create_if_missing(str(path)) is None
    assert [*tmp_path.iterdir()] == [tmp_path / "users"]
    assert path.read_bytes() == b"theirs"


def test_file_in_the_current_directory_is_created(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert create_if_missing("users")
    assert [*tmp_path.iterdir()] == [tmp_path / "users"]
