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


def check_password(checker, name, password):
    """Return the name, or the type of the error."""
    results = []
    checker.requestAvatarId(UsernamePassword(name, password)).addBoth(results.append)
    (result,) = results
    return getattr(result, "type", result)


def test_checker_interfaces(password_file):
    assert verifyObject(ICredentialsChecker, password_file.checker())
    assert verifyObject(IVersionedChecker, password_file.checker())


def test_passwords_are_checked(password_file):
    password_file.write(password_lines(me="secret", you="other"))
    checker = password_file.checker()
    assert check_password(checker, b"me", b"secret") == b"me"
    for name, password in ((b"me", b"other"), (b"me", b""), (b"nobody", b"secret"), (b"", b"")):
        assert check_password(checker, name, password) is UnauthorizedLogin


def test_unknown_name_costs_as_much_as_a_known_one(password_file, bcrypt_costs):
    dear = b"dear:" + hash_password(b"x", 5) + b"\n"
    password_file.write(
        password_lines(me="secret") + dear + b"weak:$apr1$abc$NlhuBqv/5jhqpEy0ebBjR0\n"
    )
    checker = password_file.checker()
    for name in (b"dear", b"nobody", b"weak", b"\xff", b""):
        check_password(checker, name, b"secret")
        assert bcrypt_costs.take() == [5], name
    check_password(checker, b"me", b"wrong")
    assert bcrypt_costs.take() == [4]


def test_file_is_read_again_only_when_it_has_changed(password_file):
    password_file.write(password_lines(me="secret"))
    checker = password_file.checker()
    version = checker.version()
    for _ in range(3):
        assert check_password(checker, b"me", b"secret") == b"me"
    assert password_file.reads == 1
    password_file.write(password_lines(me="changed"))
    assert checker.version() != version is not None
    assert check_password(checker, b"me", b"secret") is UnauthorizedLogin
    assert check_password(checker, b"me", b"changed") == b"me"
    assert password_file.reads == 2


def test_replaced_file_with_the_same_time_is_read(password_file):
    password_file.write(password_lines(me="secret"))
    checker = password_file.checker()
    assert check_password(checker, b"me", b"secret") == b"me"
    before = password_file.path.stat()
    other = password_file.path.with_name("other")
    other.write_bytes(password_lines(me="changed"))
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.rename(password_file.path)
    password_file.settle()
    assert check_password(checker, b"me", b"changed") == b"me"


def test_file_modified_just_now_has_no_version(password_file):
    password_file.write(password_lines(me="secret"), settled=False)
    checker = password_file.checker()
    password_file.clock.rightNow = password_file.path.stat().st_mtime_ns / 1e9
    for reads in (1, 2):
        assert checker.version() is None
        assert check_password(checker, b"me", b"secret") == b"me"
        assert password_file.reads == reads


def test_unreadable_file_makes_authentication_unavailable(password_file):
    checker = password_file.checker()
    assert check_password(checker, b"me", b"secret") is AuthenticationUnavailable
    assert checker.version() is None
    password_file.write(b"torn")
    assert check_password(checker, b"me", b"secret") is AuthenticationUnavailable
    with pytest.raises(HtpasswdInvalid):
        checker.load()


def test_ignored_lines_are_logged_once_for_each_version(password_file, log_events):
    password_file.write(password_lines(me="secret") + b"a:x\nb:y\n")
    checker = password_file.checker()
    checker.load()
    check_password(checker, b"me", b"secret")
    (event,) = [event for event in log_events if "lines" in event]
    assert (event["lines"], event["path"]) == ("lines 2, 3", str(password_file.path))


def test_cancelling_cancels_the_check(password_file):
    password_file.write(password_lines(me="secret"))
    cancelled = []
    checker = PasswordFile(
        str(password_file.path), lambda *_: Deferred(cancelled.append), password_file.clock
    )
    check = checker.requestAvatarId(UsernamePassword(b"me", b"secret"))
    check.addErrback(lambda _: None)
    check.cancel()
    assert len(cancelled) == 1


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
