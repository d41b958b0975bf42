from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred, execute, fail
from twisted.internet.task import Clock

from tests.support.certificates import Authority
from twisted_registry.tls.reload import RELOAD_INTERVAL_S, CertificateReloader
from twisted_registry.tls.sources import CertificateFiles

AUTHORITY = Authority()


class Reloading:
    """A CertificateReloader for files in a folder."""

    def __init__(self, folder):
        self.folder = folder
        certificate, key = AUTHORITY.issue("old").write(folder)
        authority = folder / "clients.pem"
        authority.write_bytes(AUTHORITY.pem)
        self.files = CertificateFiles(certificate, key, (str(authority),))
        self.used = []
        self.read = lambda: execute(self.files.load)
        self.clock = Clock()
        self.reloader = CertificateReloader(self.clock, self.files, self._read, self.used.append)
        self.reloader.startService()

    def _read(self):
        return self.read()

    def look(self, times=1):
        self.clock.pump([RELOAD_INTERVAL_S] * times)


@pytest.fixture
def reloading(tmp_path):
    made = Reloading(tmp_path)
    yield made
    made.reloader.stopService()
    assert not made.clock.getDelayedCalls()


def test_unchanged_files_are_not_read(reloading):
    reloading.read = None
    reloading.look(10)
    assert reloading.used == []


def test_changed_files_are_read_once_they_have_settled(reloading):
    issued = AUTHORITY.issue("new")
    issued.write(reloading.folder)
    reloading.look()
    assert reloading.used == []
    reloading.look(5)
    (used,) = reloading.used
    assert (used.certificate, used.key) == (issued.certificate, issued.key)


def test_files_that_keep_changing_are_not_read(reloading):
    key = reloading.folder / "server.key"
    for size in range(1, 5):
        key.write_bytes(b"x" * size)
        reloading.look()
    assert reloading.used == []
    reloading.look()
    assert reloading.used[0].key == b"xxxx"


def test_change_of_an_authority_is_noticed(reloading):
    (reloading.folder / "clients.pem").write_bytes(Authority("other").pem)
    reloading.look(2)
    assert len(reloading.used) == 1


def test_change_of_a_symbolic_link_is_noticed(reloading, tmp_path):
    for name in ("server.pem", "server.key"):
        (tmp_path / name).rename(tmp_path / f"1-{name}")
        (tmp_path / f"2-{name}").write_bytes(b"two")
        (tmp_path / name).symlink_to(tmp_path / f"1-{name}")
    reloading.look(2)
    assert len(reloading.used) == 1
    for name in ("server.pem", "server.key"):
        (tmp_path / "new").symlink_to(tmp_path / f"2-{name}")
        (tmp_path / "new").rename(tmp_path / name)
    reloading.look(2)
    assert reloading.used[1].key == b"two"


def test_unusable_file_is_logged_once_and_changes_nothing(reloading, log_lines):
    key = reloading.folder / "server.key"
    key.rename(reloading.folder / "away")
    reloading.look(10)
    assert log_lines == [
        f"http.tls.key: {key}: No such file or directory; the certificate in use stays"
    ]
    assert reloading.used == []
    (reloading.folder / "away").rename(key)
    reloading.look(2)
    assert len(reloading.used) == 1


def test_unexpected_error_does_not_stop_the_checks(reloading, log_lines):
    reloading.read = lambda: fail(ZeroDivisionError())
    (reloading.folder / "server.key").write_bytes(b"x")
    reloading.look(2)
    assert log_lines[0].startswith("cannot load the certificate again")
    reloading.read = lambda: execute(reloading.files.load)
    (reloading.folder / "server.key").write_bytes(b"xx")
    reloading.look(2)
    assert len(reloading.used) == 1


def test_reloads_on_request_run_one_after_another(reloading):
    waiting = []

    def read():
        waiting.append(Deferred())
        return waiting[-1]

    reloading.read = read
    done = [reloading.reloader.reload(), reloading.reloader.reload()]
    assert len(waiting) == 1
    waiting[0].callback("first")
    assert len(waiting) == 2
    waiting[1].callback("second")
    assert reloading.used == ["first", "second"]
    assert all(each.called for each in done)
    reloading.look(3)
    assert len(waiting) == 2
