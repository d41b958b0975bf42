"""Whether a file knows a password, what it costs to find out, and when the file is read."""

from __future__ import annotations

import os
import stat

import pytest
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from tests.support.passwords import entries
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
    """The name, or the kind of the error."""
    answers = []
    checker.requestAvatarId(UsernamePassword(name, password)).addBoth(answers.append)
    (answer,) = answers
    return getattr(answer, "type", answer)


def test_it_is_a_checker(written):
    assert verifyObject(ICredentialsChecker, written.checker())
    assert verifyObject(IVersionedChecker, written.checker())


def test_who_is_known(written):
    written.write(entries(me="secret", you="other"))
    checker = written.checker()
    assert ask(checker, b"me", b"secret") == b"me"
    for name, password in ((b"me", b"other"), (b"me", b""), (b"nobody", b"secret"), (b"", b"")):
        assert ask(checker, name, password) is UnauthorizedLogin


def test_a_name_that_is_unknown_costs_what_a_known_one_does(written, counted):
    dear = b"dear:" + hash_password(b"x", 5) + b"\n"
    written.write(entries(me="secret") + dear + b"weak:$apr1$abc$NlhuBqv/5jhqpEy0ebBjR0\n")
    checker = written.checker()
    for name in (b"dear", b"nobody", b"weak", b"\xff", b""):
        ask(checker, name, b"secret")
        assert counted.take() == [5], name
    ask(checker, b"me", b"wrong")
    assert counted.take() == [4]


def test_it_is_read_again_when_it_has_changed_and_only_then(written):
    written.write(entries(me="secret"))
    checker = written.checker()
    version = checker.version()
    for _ in range(3):
        assert ask(checker, b"me", b"secret") == b"me"
    assert written.reads == 1
    written.write(entries(me="changed"))
    assert checker.version() != version is not None
    assert ask(checker, b"me", b"secret") is UnauthorizedLogin
    assert ask(checker, b"me", b"changed") == b"me"
    assert written.reads == 2


def test_a_file_that_took_its_place_is_read_even_if_it_looks_as_old(written):
    written.write(entries(me="secret"))
    checker = written.checker()
    assert ask(checker, b"me", b"secret") == b"me"
    before = written.path.stat()
    other = written.path.with_name("other")
    other.write_bytes(entries(me="changed"))
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.rename(written.path)
    written.settle()
    assert ask(checker, b"me", b"changed") == b"me"


def test_a_file_that_was_just_written_may_be_written_again_unseen(written):
    written.write(entries(me="secret"), settled=False)
    checker = written.checker()
    written.clock.rightNow = written.path.stat().st_mtime_ns / 1e9
    for reads in (1, 2):
        assert checker.version() is None
        assert ask(checker, b"me", b"secret") == b"me"
        assert written.reads == reads


def test_a_file_that_can_not_be_read_is_no_refusal(written):
    checker = written.checker()
    assert ask(checker, b"me", b"secret") is AuthenticationUnavailable
    assert checker.version() is None
    written.write(b"torn")
    assert ask(checker, b"me", b"secret") is AuthenticationUnavailable
    with pytest.raises(HtpasswdInvalid):
        checker.load()


def test_lines_of_no_use_are_told_once_for_each_version(written, log_events):
    written.write(entries(me="secret") + b"a:x\nb:y\n")
    checker = written.checker()
    checker.load()
    ask(checker, b"me", b"secret")
    (event,) = [event for event in log_events if "ignored" in event]
    assert (event["ignored"], event["path"]) == (2, str(written.path))


def test_a_client_that_leaves_ends_the_question(written):
    written.write(entries(me="secret"))
    gone = []
    checker = PasswordFile(str(written.path), lambda *_: Deferred(gone.append), written.clock)
    asked = checker.requestAvatarId(UsernamePassword(b"me", b"secret"))
    asked.addErrback(lambda _: None)
    asked.cancel()
    assert len(gone) == 1


def test_a_file_that_is_missing_is_made(tmp_path):
    path = tmp_path / "new" / "folders" / "users"
    password = create_if_missing(str(path))
    users = parse_htpasswd(path.read_bytes())
    assert verify_password(password.encode(), users.hashes[b"docker"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [*path.parent.iterdir()] == [path]
    assert create_if_missing(str(path)) is None


def test_a_file_that_another_makes_meanwhile_stays(tmp_path, monkeypatch):
    path = tmp_path / "users"
    real = os.link

    def link(source, target):
        path.write_bytes(b"theirs")
        real(source, target)

    monkeypatch.setattr(os, "link", link)
    assert create_if_missing(str(path)) is None
    assert [*tmp_path.iterdir()] == [tmp_path / "users"]
    assert path.read_bytes() == b"theirs"


def test_a_file_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert create_if_missing("users")
    assert [*tmp_path.iterdir()] == [tmp_path / "users"]
